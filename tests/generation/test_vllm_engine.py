"""The real vLLM engine on a CPU, against transformers, the trainer, and itself after a change of weights."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from vllm_policies import STARTER, checkpoint_of, in_one, make_requests, other_weights, tokens_of

from paced_rl.generation.transformers_backend import TransformersGenerator
from paced_rl.generation.vllm_backend import EngineSettings, VllmGenerator
from paced_rl.generation.vllm_engine import EAGER_ENVIRONMENT, ENVIRONMENT, EngineMemoryError
from paced_rl.metrics.sampler_gap import sampler_gap
from paced_rl.policies import PolicyFolderError, open_policy
from paced_rl.training.scoring import score_completions
from paced_rl.types import Checkpoint, Completion, GenerationRequest, SamplingSettings

pytestmark = pytest.mark.vllm

SETTINGS = SamplingSettings(temperature=1.0, max_new_tokens=24)
GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=24)


def make_generator(**settings: object) -> VllmGenerator:
    return VllmGenerator(dtype="float32", batch_size=64, settings=EngineSettings(**settings))


@pytest.fixture(scope="module")
def generator() -> Iterator[VllmGenerator]:
    """One engine for the whole file: every test finds it with whatever weights the last one left."""
    generator = make_generator()
    yield generator
    generator.close()


@pytest.fixture(scope="module")
def starter() -> Checkpoint:
    return checkpoint_of(STARTER)


@pytest.fixture(scope="module")
def requests(starter: Checkpoint) -> list[GenerationRequest]:
    return make_requests(starter)


def score(
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    settings: SamplingSettings,
) -> list[np.ndarray]:
    return score_completions(
        open_policy(checkpoint, device="cpu", dtype="float32"),
        prompts,
        completions,
        temperature=settings.temperature or 1.0,
        top_k=settings.top_k,
        top_p=settings.top_p,
        max_tokens_per_forward=4096,
    )


def trainer_log_probs(
    checkpoint: Checkpoint,
    requests: list[GenerationRequest],
    groups: list[tuple[Completion, ...]],
    settings: SamplingSettings,
) -> list[np.ndarray]:
    prompts = [request.prompt_token_ids for request, group in zip(requests, groups, strict=True) for _ in group]
    return score(checkpoint, prompts, tokens_of(groups), settings)


def test_greedy_completions_are_those_of_transformers(
    generator: VllmGenerator, starter: Checkpoint, requests: list[GenerationRequest]
) -> None:
    # So short a limit that some completions are cut.
    settings = SamplingSettings(temperature=0.0, max_new_tokens=7)
    expected = TransformersGenerator(device="cpu", dtype="float32", batch_size=64).generate(starter, requests, settings)
    found = generator.generate(starter, requests, settings)

    for one, other in zip(in_one(found), in_one(expected), strict=True):
        assert (one.text, one.token_ids, one.finish_reason) == (other.text, other.token_ids, other.finish_reason)
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
    assert {str(completion.finish_reason) for completion in in_one(found)} == {"eos", "length"}


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        SamplingSettings(temperature=0.7, max_new_tokens=24),
        SamplingSettings(temperature=1.0, max_new_tokens=24, top_k=3),
        SamplingSettings(temperature=1.3, max_new_tokens=24, top_p=0.8),
        SamplingSettings(temperature=1.3, max_new_tokens=24, top_k=5, top_p=0.9),
    ],
    ids=["plain", "cold", "top_k", "top_p", "both"],
)
def test_log_probs_are_the_trainers(
    generator: VllmGenerator, starter: Checkpoint, requests: list[GenerationRequest], settings: SamplingSettings
) -> None:
    groups = generator.generate(starter, requests, settings)
    scored = trainer_log_probs(starter, requests, groups, settings)

    for completion, values in zip(in_one(groups), scored, strict=True):
        assert completion.log_probs == pytest.approx(values.tolist(), abs=1e-3)
    assert len(set(tokens_of(groups))) > len(requests)  # they were drawn, not decoded greedily


def test_a_completion_depends_on_its_prompt_and_seed_alone(
    generator: VllmGenerator, starter: Checkpoint, requests: list[GenerationRequest]
) -> None:
    together = generator.generate(starter, requests, SETTINGS)
    again = generator.generate(starter, requests, SETTINGS)
    backwards = generator.generate(starter, requests[::-1], SETTINGS)[::-1]
    alone = generator.generate(
        starter,
        [GenerationRequest(prompt_token_ids=requests[3].prompt_token_ids, seeds=requests[3].seeds[2:3])],
        SETTINGS,
    )

    assert together == again
    assert tokens_of(together) == tokens_of(backwards)
    assert alone[0][0].token_ids == together[3][2].token_ids


def test_progress_counts_every_completion(
    generator: VllmGenerator, starter: Checkpoint, requests: list[GenerationRequest]
) -> None:
    steps: list[int] = []
    groups = generator.generate(starter, requests, SETTINGS, on_progress=steps.append)
    assert sum(steps) == len(in_one(groups)) == 4 * len(requests)


def test_a_warm_engine_with_new_weights_is_a_fresh_one(
    generator: VllmGenerator, starter: Checkpoint, requests: list[GenerationRequest], tmp_path: Path
) -> None:
    changed = other_weights(tmp_path / "changed", seed=1)
    before = generator.generate(starter, requests, SETTINGS)
    warm = generator.generate(changed, requests, SETTINGS)
    back = generator.generate(starter, requests, SETTINGS)
    fresh_generator = make_generator(release="restart")
    fresh = fresh_generator.generate(changed, requests, SETTINGS)

    assert tokens_of(warm) != tokens_of(before)
    assert warm == fresh
    assert back == before
    for completion, values in zip(in_one(warm), trainer_log_probs(changed, requests, warm, SETTINGS), strict=True):
        assert completion.log_probs == pytest.approx(values.tolist(), abs=1e-3)


def test_vllms_own_reload_keeps_an_old_output_layer(
    starter: Checkpoint, requests: list[GenerationRequest], tmp_path: Path
) -> None:
    """Why weights are not replaced by `reload_weights` alone; when this fails, vLLM has mended it."""
    changed = other_weights(tmp_path / "changed", seed=1)
    script = Path(__file__).with_name("vllm_reload.py")
    prompts = [list(request.prompt_token_ids) for request in requests]
    command = [sys.executable, str(script), str(STARTER), str(changed.folder), json.dumps(prompts)]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT, **EAGER_ENVIRONMENT}, check=True
    )
    answers = json.loads(result.stdout.splitlines()[-1])

    gaps = {}
    for name, (token_ids, log_probs) in answers.items():
        scored = score(changed, prompts, token_ids, GREEDY)
        gaps[name] = sampler_gap([np.array(values) for values in log_probs], scored).mean_log_prob_gap
    assert gaps["cured"] < 1e-5
    assert gaps["uncured"] > 0.01  # the canary's limit is a tenth of this
    greedy = TransformersGenerator(device="cpu", dtype="float32", batch_size=64).generate(changed, requests, GREEDY)
    assert answers["cured"][0] == [list(group[0].token_ids) for group in greedy]
    assert answers["uncured"][0] != answers["cured"][0]


def test_a_killed_engine_is_replaced_and_every_completion_comes_once(
    starter: Checkpoint, requests: list[GenerationRequest], caplog: pytest.LogCaptureFixture
) -> None:
    generator = make_generator()
    expected = generator.generate(starter, requests, SETTINGS)
    finished: list[int] = []

    def kill_once(num_finished: int) -> None:
        finished.append(num_finished)
        if sum(finished) == 20:
            os.kill(generator.process_id, signal.SIGKILL)

    with caplog.at_level(logging.WARNING):
        found = generator.generate(starter, requests, SETTINGS, on_progress=kill_once)
    generator.close()

    assert found == expected
    assert sum(finished) == len(in_one(expected))
    assert "started again for" in caplog.text


def test_an_engine_without_memory_names_what_to_lower(starter: Checkpoint, requests: list[GenerationRequest]) -> None:
    generator = make_generator(kv_cache_gib=100_000.0)
    with pytest.raises(EngineMemoryError, match=r"lower rollout\.vllm\.kv_cache_gib or rollout\.batch_size"):
        generator.generate(starter, requests, SETTINGS)


def test_what_the_engine_must_not_see_is_refused_and_leaves_it_warm(
    generator: VllmGenerator, starter: Checkpoint, requests: list[GenerationRequest], tmp_path: Path
) -> None:
    expected = generator.generate(starter, requests, SETTINGS)
    before = generator.process_id
    too_long = GenerationRequest(prompt_token_ids=(5,) * 105, seeds=(1,))
    with pytest.raises(ValueError, match="105 tokens; with max_new_tokens=24 it may have at most 104"):
        generator.generate(starter, [*requests, too_long], SETTINGS)

    damaged = other_weights(tmp_path / "damaged", seed=2)
    with (damaged.folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    with pytest.raises(PolicyFolderError, match=r"model\.safetensors.*not those that the manifest"):
        generator.generate(damaged, requests, SETTINGS)

    assert generator.process_id == before
    assert generator.generate(starter, requests, SETTINGS) == expected
