"""Choosing a backend, the scripted one, and a policy that cannot be sampled from."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from paced_rl.generation import Generator, get_generator
from paced_rl.generation.scripted import ScriptedGenerator
from paced_rl.policies import open_policy
from paced_rl.starter import write_policy_folder
from paced_rl.types import Checkpoint, FinishReason, GenerationRequest, SamplingSettings


def make_checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(folder=folder, files={"model.safetensors": str(folder)}, metadata={"policy_version": 0})


def test_an_unknown_backend_is_named_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"unknown generation backend 'sglang'.*: transformers, vllm"):
        get_generator("sglang", device="cpu", dtype="float32", batch_size=1)


def test_a_batch_holds_at_least_one_completion() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        get_generator("transformers", device="cpu", dtype="float32", batch_size=0)


def test_a_diverged_policy_is_reported(tiny_policy_folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy_folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_policy_folder)
    with torch.no_grad():
        model.model.norm.weight.fill_(3e38)  # finite itself, but no logit is
        model.lm_head.weight.mul_(1e3)
    write_policy_folder(model, tokenizer, tmp_path)
    generator = get_generator("transformers", device="cpu", dtype="float32", batch_size=4)
    request = GenerationRequest(prompt_token_ids=(5, 6), seeds=(1, 2))
    with pytest.raises(ValueError, match="logits that are not finite"):
        generator.generate(make_checkpoint(tmp_path), [request], SamplingSettings(temperature=1.0, max_new_tokens=3))


def test_the_scripted_generator_says_what_it_is_told(tiny_policy_folder: Path) -> None:
    checkpoint = make_checkpoint(tiny_policy_folder)
    policy = open_policy(checkpoint, device="cpu", dtype="float32")
    generator: Generator = ScriptedGenerator(lambda prompt, seed: "7" * len(prompt) + f"+{seed}")
    requests = [
        GenerationRequest(prompt_token_ids=(5, 6), seeds=(1, 2)),
        GenerationRequest(prompt_token_ids=(5, 6, 7, 8), seeds=(3,)),
    ]
    finished: list[int] = []
    settings = SamplingSettings(temperature=1.0, max_new_tokens=5)
    (one, two), (cut,) = generator.generate(checkpoint, requests, settings, on_progress=finished.append)
    assert (one.text, two.text, cut.text) == ("77+1", "77+2", "7777+")
    assert one.token_ids[-1] in policy.eos_token_ids
    assert (one.finish_reason, cut.finish_reason) == (FinishReason.EOS, FinishReason.LENGTH)
    assert (len(one.token_ids), len(cut.token_ids)) == (5, 5)
    assert one.log_probs == (0.0,) * 5
    assert finished == [2, 1]
    assert generator.generate(checkpoint, [], settings) == []
    generator.close()
