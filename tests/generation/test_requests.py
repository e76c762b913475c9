"""What every backend asks of its requests, and what it may know of a policy without loading it."""

import json
import shutil
from pathlib import Path

import pytest
from vllm_policies import checkpoint_of

from paced_rl.generation.requests import check_requests, make_completions
from paced_rl.policies import LoadedPolicy, PolicyFolderError, describe_policy, text_digests
from paced_rl.types import Checkpoint, FinishReason, GenerationRequest, SamplingSettings


def test_a_description_says_what_the_loaded_policy_does(checkpoint: Checkpoint, policy: LoadedPolicy) -> None:
    described, loaded = describe_policy(checkpoint), policy.description
    assert described.eos_token_ids == loaded.eos_token_ids == (1,)
    assert described.num_positions == loaded.num_positions == 64
    assert described.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()


def test_versions_that_differ_in_weights_share_a_description(tiny_policy_folder: Path, tmp_path: Path) -> None:
    first = checkpoint_of(tiny_policy_folder)
    other = dict(first.files, **{"model.safetensors": "0" * 64})
    assert describe_policy(Checkpoint(folder=tiny_policy_folder, files=other, metadata={})) is describe_policy(first)

    folder = Path(shutil.copytree(tiny_policy_folder, tmp_path / "other"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 1]}))
    changed = checkpoint_of(folder)
    assert text_digests(changed) != text_digests(first)
    assert describe_policy(changed).eos_token_ids == (1, 3)


def test_a_policy_without_an_end_is_refused(tiny_policy_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_policy_folder, tmp_path / "endless"))
    (folder / "generation_config.json").unlink()
    for name, token in (("config.json", "eos_token_id"), ("tokenizer_config.json", "eos_token")):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, token: None}))
    with pytest.raises(PolicyFolderError, match="no end-of-sequence token"):
        describe_policy(checkpoint_of(folder))


def test_a_prompt_may_just_fill_the_positions() -> None:
    settings = SamplingSettings(temperature=1.0, max_new_tokens=4)
    request = GenerationRequest(prompt_token_ids=(5,) * 6, seeds=(1,))
    check_requests([request], settings, num_positions=10)
    check_requests([request], settings, num_positions=None)
    with pytest.raises(ValueError, match="request 1 has 6 tokens; with max_new_tokens=4 it may have at most 5"):
        check_requests([GenerationRequest(prompt_token_ids=(5,), seeds=()), request], settings, num_positions=9)
    with pytest.raises(ValueError, match="request 0 has an empty prompt"):
        check_requests([GenerationRequest(prompt_token_ids=(), seeds=())], settings, num_positions=9)


def test_text_and_finish_reason_come_from_the_ids(policy: LoadedPolicy) -> None:
    ended, cut = make_completions([[5, 6, 1], [7, 8]], [[-1.0, -2.0, -3.0], [-0.5, -0.25]], policy.description)
    assert (ended.finish_reason, cut.finish_reason) == (FinishReason.EOS, FinishReason.LENGTH)
    assert (ended.text, cut.text) == (policy.tokenizer.decode([5, 6]), policy.tokenizer.decode([7, 8]))
    assert (ended.token_ids, ended.log_probs) == ((5, 6, 1), (-1.0, -2.0, -3.0))
