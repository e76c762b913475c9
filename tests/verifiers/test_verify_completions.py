"""Choosing verifiers by name and judging a batch."""

import json
from typing import Any

import pytest
import reasoning_gym

from paced_rl.types import VerdictStatus
from paced_rl.verifiers import VERIFIER_NAMES, VerificationItem, get_verifier, verify_completions

LIMITS: dict[str, Any] = {"timeout_seconds": 10.0, "memory_bytes": 2 * 1024**3}
PUZZLE = {"numbers": [3, 8], "target": 24}


def test_every_name_gives_a_verifier() -> None:
    for name in VERIFIER_NAMES:
        verifier = get_verifier(name, **LIMITS)
        assert verifier.argument_names
        verifier.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aritmetic", "arithmetic, exact_match, reasoning_gym.*Did you mean arithmetic"),
        ("", "allowed: arithmetic, exact_match, reasoning_gym.$"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_verifier(name, **LIMITS)


def test_verdicts_come_in_order_and_seconds_by_verifier() -> None:
    entry = json.loads(json.dumps(reasoning_gym.create_dataset("countdown", size=1, seed=3)[0]))
    gym = {"dataset": "countdown", "entry": entry}
    items: list[VerificationItem] = [
        ("arithmetic", PUZZLE, "3*8", False),
        ("reasoning_gym", gym, entry["answer"], False),
        ("arithmetic", PUZZLE, "3*8", True),
        ("reasoning_gym", gym, "__import__('os')._exit(1)", False),
        ("arithmetic", PUZZLE, "3+8", False),
        ("reasoning_gym", gym, entry["answer"], False),
        ("reasoning_gym", gym, "__import__('os')._exit(1)", True),
        ("arithmetic", PUZZLE, "?", False),
    ]
    verdicts, seconds = verify_completions(items, **LIMITS)
    assert [verdict.status.value for verdict in verdicts] == [
        "right",
        "right",
        "truncated",
        "verifier_error",
        "wrong",
        "right",
        "truncated",
        "unparseable",
    ]
    assert [verdict.reward for verdict in verdicts] == [1.0, 1.0, 0.0, None, 0.0, 1.0, 0.0, 0.0]
    assert verdicts[2].extracted_answer is None
    assert set(seconds) == {"arithmetic", "reasoning_gym"}
    assert min(seconds.values()) > 0


def test_nothing_to_judge() -> None:
    assert verify_completions([], **LIMITS) == ([], {})
    verdicts, seconds = verify_completions([("arithmetic", PUZZLE, "3*8", True)], **LIMITS)
    assert verdicts[0].status is VerdictStatus.TRUNCATED
    assert seconds == {"arithmetic": 0.0}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (("arithmetic", {"numbers": [3]}, "3", False), "completion 1 of 2: .*missing"),
        (("arithmetic", {"numbers": [3]}, "3", True), "completion 1 of 2: .*missing"),
        (("math", {}, "3", False), "completion 1 of 2: there is no verifier 'math'"),
    ],
)
def test_bad_items_are_refused_with_their_index(bad: VerificationItem, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify_completions([("arithmetic", PUZZLE, "3*8", False), bad], **LIMITS)
