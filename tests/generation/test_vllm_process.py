"""The child process of the vLLM backend: what it is told, and every way in which it may fail. vLLM is a stand-in here,
so that these tests need neither the library nor its seconds of start; the process and its protocol are the real ones.
"""

import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from vllm_policies import checkpoint_of

from paced_rl.generation import close_generators, get_generator, vllm_engine
from paced_rl.generation.vllm_backend import EngineSettings, VllmGenerator
from paced_rl.generation.vllm_engine import EngineDiedError, EngineMemoryError
from paced_rl.types import Checkpoint, FinishReason, GenerationRequest, SamplingSettings

SETTINGS = SamplingSettings(temperature=1.0, max_new_tokens=8)
REQUESTS = [
    GenerationRequest(prompt_token_ids=(5, 6, 7), seeds=(1, 2, 3)),
    GenerationRequest(prompt_token_ids=(8,), seeds=()),
    GenerationRequest(prompt_token_ids=(9, 10), seeds=(2**63 - 1, 0)),
]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the stand-in before vLLM, for child processes."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).with_name("fake_vllm")))
    monkeypatch.setenv("FAKE_VLLM_JOURNAL", str(tmp_path / "journal"))
    return tmp_path / "journal"


@pytest.fixture
def first(tiny_policy_folder: Path, tmp_path: Path) -> Checkpoint:
    return checkpoint_of(Path(shutil.copytree(tiny_policy_folder, tmp_path / "first")))


@pytest.fixture
def second(tiny_policy_folder: Path, tmp_path: Path) -> Checkpoint:
    """Another version of the same model: safetensors allows spaces behind its header, which is padded with them."""
    folder = Path(shutil.copytree(tiny_policy_folder, tmp_path / "second"))
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    length = int.from_bytes(content[:8], "little")
    weights.write_bytes((length + 8).to_bytes(8, "little") + content[8 : 8 + length] + b" " * 8 + content[8 + length :])
    return checkpoint_of(folder, version=1)


@pytest.fixture
def generator() -> Iterator[VllmGenerator]:
    generator = make_generator()
    yield generator
    generator.close()


def make_generator(release: str = "keep") -> VllmGenerator:
    return VllmGenerator(dtype="float32", batch_size=4, settings=EngineSettings(release=release))


def expected_tokens(checkpoint: Checkpoint) -> list[list[tuple[int, ...]]]:
    size = (checkpoint.folder / "model.safetensors").stat().st_size
    return [
        [(2 + (seed + sum(request.prompt_token_ids) + size) % 7, 1) for seed in request.seeds] for request in REQUESTS
    ]


def sample(generator: VllmGenerator, checkpoint: Checkpoint) -> list[list[tuple[int, ...]]]:
    groups = generator.generate(checkpoint, REQUESTS, SETTINGS)
    return [[completion.token_ids for completion in group] for group in groups]


@pytest.mark.usefixtures("journal")
def test_completions_come_in_the_order_of_requests_and_seeds(generator: VllmGenerator, first: Checkpoint) -> None:
    steps: list[int] = []
    groups = generator.generate(first, REQUESTS, SETTINGS, on_progress=steps.append)

    assert [[completion.token_ids for completion in group] for group in groups] == expected_tokens(first)
    assert {completion.log_probs for group in groups for completion in group} == {(-0.5, -0.25)}
    assert {completion.finish_reason for group in groups for completion in group} == {FinishReason.EOS}
    assert sum(steps) == 5
    assert generator.generate(first, [], SETTINGS) == []


def test_an_engine_stays_and_takes_new_weights_in_place(
    generator: VllmGenerator, first: Checkpoint, second: Checkpoint, journal: Path
) -> None:
    assert sample(generator, first) == sample(generator, first) == expected_tokens(first)
    process = generator.process_id
    assert sample(generator, second) == expected_tokens(second)

    assert generator.process_id == process
    assert journal.read_text().splitlines() == ["start first", "reload_policy second", "reset_prefix_cache"]


def test_another_model_takes_another_engine(
    generator: VllmGenerator, first: Checkpoint, second: Checkpoint, journal: Path
) -> None:
    sample(generator, first)
    with (second.folder / "config.json").open("a") as file:
        file.write("\n")
    sample(generator, checkpoint_of(second.folder))
    assert journal.read_text().splitlines() == ["start first", "start second"]


@pytest.mark.parametrize(
    ("release", "lines"),
    [
        ("restart", ["start first", "start second"]),
        (
            "sleep",
            [
                "start first",
                "sleep 2",
                "wake_up weights",
                "reload_policy second",
                "wake_up kv_cache",
                "reset_prefix_cache",
                "sleep 2",
            ],
        ),
    ],
)
def test_memory_is_given_back_between_two_calls(
    first: Checkpoint, second: Checkpoint, journal: Path, release: str, lines: list[str]
) -> None:
    generator = make_generator(release)
    sample(generator, first)
    assert sample(generator, second) == expected_tokens(second)
    generator.close()
    assert journal.read_text().splitlines() == lines


@pytest.mark.usefixtures("journal")
def test_an_engine_that_cannot_sleep_is_ended_and_its_work_kept(
    first: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_FAULT", "no_sleep")
    generator = make_generator("sleep")
    assert sample(generator, first) == expected_tokens(first)
    assert generator.process_id is None


@pytest.mark.parametrize("fault", ["die", "raise", "hang", "twice"])
@pytest.mark.usefixtures("journal")
def test_a_failing_engine_is_replaced_once(
    generator: VllmGenerator,
    first: Checkpoint,
    journal: Path,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("FAKE_VLLM_FAULT", fault)
    monkeypatch.setattr(vllm_engine, "SILENCE_SECONDS", 2.0)
    steps: list[int] = []
    with caplog.at_level(logging.WARNING):
        groups = generator.generate(first, REQUESTS, SETTINGS, on_progress=steps.append)

    assert [[completion.token_ids for completion in group] for group in groups] == expected_tokens(first)
    assert sum(steps) == 5
    assert journal.read_text().splitlines() == ["start first"] * 2
    assert "started again for 3 completions" in caplog.text


@pytest.mark.usefixtures("journal")
def test_an_engine_that_fails_again_is_an_error_with_its_last_words(
    generator: VllmGenerator, first: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_FAULT", "raise always")
    with pytest.raises(EngineDiedError, match=r"(?s)RuntimeError: a kernel failed.*exit code 1.*Traceback") as caught:
        generator.generate(first, [GenerationRequest(prompt_token_ids=(5,), seeds=tuple(range(9)))], SETTINGS)

    assert "a kernel failed" in str(caught.value)
    assert generator.process_id is None
    monkeypatch.delenv("FAKE_VLLM_FAULT")
    assert sample(generator, first) == expected_tokens(first)


def test_too_little_memory_is_said_at_once(
    generator: VllmGenerator, first: Checkpoint, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_FAULT", "no_memory")
    with pytest.raises(
        EngineMemoryError, match=r"lower rollout\.vllm\.kv_cache_gib or rollout\.batch_size\. It said: "
    ):
        sample(generator, first)
    assert journal.read_text().splitlines() == ["start first"]


@pytest.mark.usefixtures("journal")
def test_log_probs_that_are_no_numbers_are_reported(
    generator: VllmGenerator, first: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_FAULT", "nan")
    with pytest.raises(ValueError, match="logits that are not finite"):
        sample(generator, first)


def test_an_interrupt_ends_the_engine(generator: VllmGenerator, first: Checkpoint, journal: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generator.generate(first, REQUESTS, SETTINGS, on_progress=interrupt)
    assert generator.process_id is None
    assert sample(generator, first) == expected_tokens(first)
    assert journal.read_text().splitlines() == ["start first"] * 2


def test_an_engine_that_died_between_two_calls_is_replaced(
    generator: VllmGenerator, first: Checkpoint, journal: Path
) -> None:
    sample(generator, first)
    assert generator.process_id is not None
    os.kill(generator.process_id, signal.SIGKILL)
    assert sample(generator, first) == expected_tokens(first)
    assert journal.read_text().splitlines() == ["start first"] * 2


def test_the_process_ends_with_its_generator(first: Checkpoint, journal: Path) -> None:
    def get(batch_size: int) -> VllmGenerator:
        generator = get_generator("vllm", device="cpu", dtype="float32", batch_size=batch_size, options={})
        assert isinstance(generator, VllmGenerator)
        return generator

    generator = get(4)
    sample(generator, first)
    process = generator.process_id
    assert get(4) is generator
    assert get(5) is not generator  # other settings: the first engine's memory is free before another starts
    assert generator.process_id is None
    with pytest.raises(ProcessLookupError):
        os.kill(process or 0, 0)
    close_generators()
    assert journal.read_text().splitlines() == ["start first"]


def test_a_temperature_that_vllm_would_raise_is_refused(generator: VllmGenerator, first: Checkpoint) -> None:
    with pytest.raises(ValueError, match=r"at least 0\.01, or greedily at 0; got 0\.005"):
        generator.generate(first, REQUESTS, SamplingSettings(temperature=0.005, max_new_tokens=8))
    assert generator.process_id is None
