"""The shipped starter policy, other weights of the same model, and prompts for both; what tests of engines need."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from paced_rl.policies import file_digests, open_policy
from paced_rl.types import Checkpoint, Completion, GenerationRequest

STARTER = Path(__file__).parents[2] / "data" / "01_raw" / "starter_policy"
"""Tied embeddings, float32, head size 32."""


def checkpoint_of(folder: Path, version: int = 0) -> Checkpoint:
    return Checkpoint(folder=folder, files=file_digests(folder), metadata={"policy_version": version})


def other_weights(folder: Path, *, seed: int, only: str = "", scale: float = 0.1) -> Checkpoint:
    """The starter with noise on every tensor whose name contains `only`, `scale` times the tensor's own spread."""
    shutil.copytree(STARTER, folder)
    weights = load_file(folder / "model.safetensors")
    noise = torch.Generator().manual_seed(seed)
    for name, tensor in weights.items():
        if only in name and tensor.ndim == 2:
            tensor += scale * tensor.std() * torch.randn(tensor.shape, generator=noise)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return checkpoint_of(folder, version=seed)


def make_requests(checkpoint: Checkpoint, *, num_prompts: int = 20, group_size: int = 4) -> list[GenerationRequest]:
    """Countdown puzzles of several lengths, each with seeds of its own."""
    tokenizer = open_policy(checkpoint, device="cpu", dtype="float32").tokenizer
    texts = [f"{' '.join(str(1 + (i * j) % 9) for j in range(1, 2 + i % 4))}>{5 + i}:" for i in range(num_prompts)]
    return [
        GenerationRequest(
            prompt_token_ids=tuple(tokenizer.encode(text, add_special_tokens=False)),
            seeds=tuple(2**62 + 1000 * index + sample for sample in range(group_size)),
        )
        for index, text in enumerate(texts)
    ]


def in_one(groups: list[tuple[Completion, ...]]) -> list[Completion]:
    return [completion for group in groups for completion in group]


def tokens_of(groups: list[tuple[Completion, ...]]) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in in_one(groups)]
