"""vLLM on the adapter that a round leaves inside the policy's folder, against the merged weights beside it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from vllm_policies import STARTER, checkpoint_of, make_requests

from paced_rl.datasets.checkpoint import CheckpointDataset
from paced_rl.generation.vllm_engine import EAGER_ENVIRONMENT, ENVIRONMENT
from paced_rl.policies import load_policy, policy_files
from paced_rl.policies.loading import LoadedPolicy
from paced_rl.policies.lora import ADAPTER_FOLDER, AdapterSettings, adapter_files, merge_adapter, open_adapter
from paced_rl.training.scoring import score_completions
from paced_rl.types import Checkpoint, CheckpointFiles

pytestmark = pytest.mark.vllm


def policy_with_adapter(folder: Path) -> Checkpoint:
    """The starter with an adapter of rank 8 that changes what it says."""
    base, start = load_policy(STARTER, device="cpu", dtype="float32"), checkpoint_of(STARTER)
    settings = AdapterSettings(
        rank=8, alpha=16, target_modules="all-linear", base_source=str(STARTER), base_revision=None, seed=1
    )
    model = open_adapter(base, start, start, settings)
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter += 0.02 * torch.randn(parameter.shape, generator=noise)
    adapter = adapter_files(model)
    merged = LoadedPolicy(
        model=merge_adapter(model),
        tokenizer=base.tokenizer,
        pad_token_id=base.pad_token_id,
        eos_token_ids=base.eos_token_ids,
    )
    dataset = CheckpointDataset(filepath=str(folder / "policy.json"))
    files = {**policy_files(merged, STARTER), **adapter}
    dataset.save(CheckpointFiles(files=files, metadata={"policy_version": 1}))
    return dataset.load()


def test_vllm_loads_the_adapter_and_says_what_the_merged_policy_says(tmp_path: Path) -> None:
    stored = policy_with_adapter(tmp_path)
    prompts = [list(request.prompt_token_ids) for request in make_requests(checkpoint_of(STARTER), num_prompts=6)]
    script = Path(__file__).with_name("vllm_lora.py")
    command = [sys.executable, str(script), str(STARTER), str(stored.folder / ADAPTER_FOLDER), json.dumps(prompts)]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT, **EAGER_ENVIRONMENT}, check=True
    )
    token_ids, log_probs = zip(*json.loads(result.stdout.splitlines()[-1]), strict=True)

    gaps = {}
    for name, folder in (("merged", stored.folder), ("base", STARTER)):
        policy = load_policy(folder, device="cpu", dtype="float32")
        scored = score_completions(policy, prompts, token_ids, temperature=1.0, max_tokens_per_forward=1024)
        gaps[name] = max(np.abs(np.array(a) - b).max() for a, b in zip(log_probs, scored, strict=True))
    assert gaps["merged"] < 1e-4
    assert gaps["base"] > 1e-2
