"""The reasoning_gym verifier: same scores as in process, thresholds, and answers that are code."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reasoning_gym

from paced_rl.parameters import VerificationParameters
from paced_rl.types import VerdictStatus
from paced_rl.verifiers.reasoning_gym import MAX_COMPLETION_CHARS, MAX_ENTRY_CHARS, ReasoningGymVerifier
from paced_rl.verifiers.sandbox import WorkerStartError

MEMORY_BYTES = 2 * 1024**3


def _arguments(dataset: str, *, seed: int = 3) -> dict[str, Any]:
    entry = reasoning_gym.create_dataset(dataset, size=1, seed=seed)[0]
    return {"dataset": dataset, "entry": json.loads(json.dumps(entry))}


@pytest.fixture(scope="module")
def verifier() -> Iterator[ReasoningGymVerifier]:
    running = ReasoningGymVerifier(timeout_seconds=10.0, memory_bytes=MEMORY_BYTES)
    yield running
    running.close()


@pytest.mark.parametrize(
    "dataset", ["countdown", "chain_sum", "basic_arithmetic", "simple_integration", "sudoku", "spell_backward"]
)
def test_verdicts_agree_with_the_scorer_in_process(verifier: ReasoningGymVerifier, dataset: str) -> None:
    arguments = _arguments(dataset)
    score_answer = reasoning_gym.get_score_answer_fn(dataset)
    own = str(arguments["entry"]["answer"])
    verifier.check_arguments(arguments)
    # Nothing here is code that does anything, so that it may be scored in this process for comparison.
    for answer in (own, f"\n {own} \n", "0", "zzz", ""):
        verdict = verifier.verify(answer, arguments)
        is_right = score_answer(answer.strip(), arguments["entry"]) == 1.0
        assert verdict.status is (VerdictStatus.RIGHT if is_right else VerdictStatus.WRONG)
        assert verdict.reward == float(is_right)
        assert verdict.extracted_answer == answer.strip()
    assert verifier.verify(own, arguments).status is VerdictStatus.RIGHT


def test_partial_credit_is_wrong(verifier: ReasoningGymVerifier) -> None:
    arguments = _arguments("countdown")
    assert 0 < reasoning_gym.get_score_answer_fn("countdown")("1+1", arguments["entry"]) < 1
    assert verifier.verify("1+1", arguments).reward == 0.0


def test_an_answer_the_scorer_raises_on_is_unparseable_and_a_broken_entry_is_an_error(
    verifier: ReasoningGymVerifier,
) -> None:
    arguments = _arguments("prime_factorization")
    verdict = verifier.verify("zzz", arguments)
    assert (verdict.status, verdict.reward, verdict.extracted_answer) == (VerdictStatus.UNPARSEABLE, 0.0, None)
    broken = {"dataset": "prime_factorization", "entry": {"answer": "2 × zzz"}}
    verdict = verifier.verify("2", broken)
    assert (verdict.status, verdict.reward) == (VerdictStatus.VERIFIER_ERROR, None)


def test_countdown_executes_its_answers_and_the_sandbox_contains_them(
    verifier: ReasoningGymVerifier, tmp_path: Path
) -> None:
    arguments = _arguments("countdown")
    own = arguments["entry"]["answer"]
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    # The answer is executed, or it could not end its process: that is what the sandbox is for.
    assert verifier.verify("__import__('os')._exit(1)", arguments).status is VerdictStatus.VERIFIER_ERROR
    for attack in (
        f"__import__('os').remove({str(victim)!r})",
        f"__import__('os').system('rm {victim}')",
        f"open({str(victim)!r}, 'w')",
        f"__import__('os').kill({os.getpid()}, 9)",
    ):
        assert verifier.verify(attack, arguments).reward == 0.0
        assert victim.read_text() == "precious"
    assert verifier.verify(own, arguments).status is VerdictStatus.RIGHT


@pytest.mark.parametrize("answer", ["\x00", "\ud800", "٣+²", "(" * 60_000, "9" * 60_000, "é" * MAX_COMPLETION_CHARS])
def test_hostile_text_is_no_reward_and_no_exception(verifier: ReasoningGymVerifier, answer: str) -> None:
    assert verifier.verify(answer, _arguments("chain_sum")).reward == 0.0


def test_a_longer_completion_is_unparseable_unseen(verifier: ReasoningGymVerifier) -> None:
    verdict = verifier.verify("9" * (MAX_COMPLETION_CHARS + 1), _arguments("chain_sum"))
    assert verdict.status is VerdictStatus.UNPARSEABLE


def test_a_stalling_answer_times_out_with_reward_zero() -> None:
    verifier = ReasoningGymVerifier(timeout_seconds=0.5, memory_bytes=MEMORY_BYTES)
    verdict = verifier.verify("__import__('time').sleep(600)", _arguments("countdown"))
    verifier.close()
    assert (verdict.status, verdict.reward, verdict.extracted_answer) == (VerdictStatus.TIMED_OUT, 0.0, None)


def test_too_little_memory_to_start_is_an_error_that_names_the_parameter() -> None:
    verifier = ReasoningGymVerifier(timeout_seconds=5.0, memory_bytes=64 * 1024**2)
    with pytest.raises(WorkerStartError, match=r"verification\.memory_bytes"):
        verifier.verify("1", _arguments("chain_sum"))


@pytest.mark.parametrize("dataset", ["arc_agi", "codeio", "spell_backward", "simple_integration"])
def test_the_least_memory_that_may_be_set_is_enough(verifier: ReasoningGymVerifier, dataset: str) -> None:
    (least,) = [rule.ge for rule in VerificationParameters.model_fields["memory_bytes"].metadata]
    arguments = _arguments(dataset)  # these scorers need the most
    own = str(arguments["entry"]["answer"])
    small = ReasoningGymVerifier(timeout_seconds=10.0, memory_bytes=least)
    verdict = small.verify(own, arguments)
    small.close()
    assert verdict == verifier.verify(own, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "countdown"}, r"missing: \['entry'\]"),
        ({"dataset": "countdwn", "entry": {}}, "countdwn.*Nearest: .*countdown"),
        ({"dataset": 3, "entry": {}}, "dataset must be"),
        ({"dataset": ["countdown"], "entry": {}}, "dataset must be"),
        ({"dataset": "countdown", "entry": "text"}, "entry must be an object"),
        ({"dataset": "countdown", "entry": {"answer": float("nan")}}, "serialisable"),
        ({"dataset": "countdown", "entry": {"answer": {1, 2}}}, "serialisable"),
        ({"dataset": "countdown", "entry": {"answer": "x" * MAX_ENTRY_CHARS}}, "characters as JSON"),
    ],
)
def test_bad_arguments_are_refused(verifier: ReasoningGymVerifier, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verifier.check_arguments(arguments)
