"""Tiny policies of three architectures whose predictions depend strongly on what they read."""

import hashlib
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from paced_rl.policies import LoadedPolicy, open_policy
from paced_rl.starter import build_character_tokenizer, build_tiny_qwen2, write_policy_folder
from paced_rl.types import Checkpoint

CHARACTERS = "0123456789 +-*/()>:"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SPREAD = 0.25
"""Standard deviation of the weights; at the usual 0.02 every prediction is uniform and a wrong mask goes unnoticed."""


def make_checkpoint(folder: Path) -> Checkpoint:
    """What the manifest of a folder would say."""
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    return Checkpoint(folder=folder, files=files, metadata={"policy_version": 0})


def _build_foreign(name: str, vocabulary_size: int) -> PreTrainedModel:
    shared = {**SIZES, "vocab_size": vocabulary_size, "max_position_embeddings": 64, "initializer_range": SPREAD}
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if name == "llama":  # grouped-query attention, untied head
            return LlamaForCausalLM(LlamaConfig(**shared, **tokens, num_key_value_heads=2)).eval()
        # A window shorter than the prompts: another kind of cache layer.
        return MistralForCausalLM(MistralConfig(**shared, **tokens, num_key_value_heads=4, sliding_window=7)).eval()


@pytest.fixture(scope="session", params=["qwen2", "llama", "mistral"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A random policy with 64 positions, in each architecture."""
    tokenizer = build_character_tokenizer(CHARACTERS)
    if request.param == "qwen2":
        model: PreTrainedModel = build_tiny_qwen2(
            tokenizer,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            intermediate_size=48,
            max_positions=64,
            seed=3,
            initializer_range=SPREAD,
        )
    else:
        model = _build_foreign(request.param, vocabulary_size=24)
    folder = tmp_path_factory.mktemp(request.param)
    write_policy_folder(model, tokenizer, folder)
    return make_checkpoint(folder)


@pytest.fixture(scope="session")
def policy(checkpoint: Checkpoint) -> LoadedPolicy:
    """The same policy in memory."""
    return open_policy(checkpoint, device="cpu", dtype="float32")
