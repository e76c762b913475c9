"""Countdown puzzles: solvable, different, in one split each, a function of the seed."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paced_rl.prompts import check_splits_are_disjoint, countdown_prompts, countdown_puzzles
from paced_rl.prompts.countdown import without_leading_minus
from paced_rl.types import Split, VerdictStatus
from paced_rl.verifiers.arithmetic import ArithmeticVerifier, evaluate, parse_expression

RANGES: dict[str, int] = {
    "min_numbers": 2,
    "max_numbers": 4,
    "min_value": 1,
    "max_value": 20,
    "min_target": 1,
    "max_target": 60,
}
TEMPLATE = "{numbers}>{target}:"
COUNTS = {"num_train": 60, "num_audit": 15, "num_validation": 20, "num_test": 5}


@pytest.mark.parametrize(("changes", "count"), [({}, 400), ({"min_numbers": 5, "max_numbers": 6}, 60)])
def test_every_expression_solves_its_puzzle(changes: dict[str, int], count: int) -> None:
    ranges = {**RANGES, **changes}
    puzzles = countdown_puzzles(**ranges, seed=5, count=count)
    assert len(puzzles) == count
    assert len({puzzle.key for puzzle in puzzles}) == count
    verifier = ArithmeticVerifier()
    for puzzle in puzzles:
        assert ranges["min_numbers"] <= len(puzzle.numbers) <= ranges["max_numbers"]
        assert all(1 <= number <= 20 for number in puzzle.numbers)
        assert 1 <= puzzle.target <= 60
        arguments = {"numbers": list(puzzle.numbers), "target": puzzle.target}
        verifier.check_arguments(arguments)
        assert verifier.verify(puzzle.expression, arguments).status is VerdictStatus.RIGHT, puzzle
    assert any(list(puzzle.numbers) != sorted(puzzle.numbers) for puzzle in puzzles)


def test_puzzles_are_a_function_of_the_seed_and_consume_no_global_generator() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    first = countdown_puzzles(**RANGES, seed=5, count=50)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])

    assert countdown_puzzles(**RANGES, seed=5, count=30) == first[:30]
    # The generator seeds puzzle i with seed + i: neighbouring seeds must not give the same list shifted by one.
    neighbour = {puzzle.key for puzzle in countdown_puzzles(**RANGES, seed=6, count=50)}
    assert len(neighbour & {puzzle.key for puzzle in first}) < 15


def test_a_space_is_exhausted_before_the_error_and_the_error_says_so() -> None:
    tiny = {**RANGES, "max_numbers": 2, "max_value": 2}
    # Of 1 and 2: 1+1=2, 1*1=1/1=1; 1+2=3, 1*2=2/1=2, 2-1=1; 2+2=4, 2*2=4, 2/2=1.
    keys = {((1, 1), 2), ((1, 1), 1), ((1, 2), 3), ((1, 2), 2), ((1, 2), 1), ((2, 2), 4), ((2, 2), 1)}
    assert {puzzle.key for puzzle in countdown_puzzles(**tiny, seed=0, count=7)} == keys
    with pytest.raises(ValueError, match=r"only 7 of 8 different countdown puzzles .*Ask for fewer prompts"):
        countdown_puzzles(**tiny, seed=0, count=8)
    with pytest.raises(ValueError, match="only 0 of 1 different"):
        countdown_puzzles(**{**tiny, "min_target": 50}, seed=0, count=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_target": 0}, "1 ≤ min_target ≤ max_target; got min_target=0"),
        ({"min_numbers": 1}, "2 ≤ min_numbers"),
        ({"min_value": 21}, "min_value=21, max_value=20"),
    ],
)
def test_impossible_ranges_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        countdown_puzzles(**{**RANGES, **changes}, seed=0, count=1)


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("3 + 4", "3 + 4"),
        ("3 - 4*2 + 9", "3 - 4*2 + 9"),
        ("-4 + (7 + 17)/4", "(7 + 17)/4 - 4"),
        ("-1 - 2 - 13 + (15 + 12)/1 + 3", "(15 + 12)/1 - 1 - 2 - 13 + 3"),
        ("3*(-6 + 9 + (19 - 2)/1)", "3*(9 - 6 + (19 - 2)/1)"),
        ("-2*(-3 + 5) + 7*(1 + 1)", "7*(1 + 1) - 2*(5 - 3)"),
    ],
)
def test_a_leading_minus_is_moved_behind_a_plus(expression: str, wanted: str) -> None:
    assert without_leading_minus(expression) == wanted


@given(
    st.recursive(
        st.integers(1, 9).map(str),
        lambda part: st.lists(part, min_size=2, max_size=3).map(lambda x: f"({' - '.join(x)})"),
        max_leaves=8,
    )
)
def test_moving_terms_keeps_the_value(inner: str) -> None:
    moved = without_leading_minus(f"-{inner}*2 + 5")
    assert not moved.startswith("-")
    node, reference = parse_expression(moved), parse_expression(f"5 - {inner}*2")
    assert node is not None
    assert reference is not None
    assert evaluate(node) == evaluate(reference)


def make_prompts(**changes: Any) -> list[Any]:
    return countdown_prompts(**{**RANGES, **COUNTS, "template": TEMPLATE, "seed": 3, **changes})


def test_prompts_fill_the_splits_and_share_no_puzzle() -> None:
    prompts = make_prompts()
    assert Counter(prompt.split for prompt in prompts) == {
        Split.TRAIN: 60,
        Split.AUDIT: 15,
        Split.VALIDATION: 20,
        Split.TEST: 5,
    }
    check_splits_are_disjoint(prompts)
    puzzles = {
        (tuple(sorted(prompt.verifier_arguments["numbers"])), prompt.verifier_arguments["target"]) for prompt in prompts
    }
    assert len(puzzles) == len({prompt.prompt_id for prompt in prompts}) == 100
    for prompt in prompts:
        numbers, target = prompt.verifier_arguments["numbers"], prompt.verifier_arguments["target"]
        assert prompt.text == " ".join(map(str, numbers)) + f">{target}:"
        assert prompt.metadata == {"num_numbers": len(numbers)}
        assert (prompt.verifier, prompt.source) == ("arithmetic", "reasoning_gym/countdown")
        verdict = ArithmeticVerifier().verify(prompt.reference_answer, prompt.verifier_arguments)
        assert verdict.status is VerdictStatus.RIGHT
    assert make_prompts() == prompts
    assert make_prompts(seed=4) != prompts


def test_splits_are_equally_hard() -> None:
    """Puzzles of two numbers repeat, so they are drawn first; unshuffled they would gather in train."""
    small = {"max_numbers": 3, "max_value": 9, "max_target": 30}
    prompts = make_prompts(**small, num_train=200, num_audit=0, num_validation=200, num_test=0)
    share = {
        split: np.mean([prompt.metadata["num_numbers"] == 2 for prompt in prompts if prompt.split is split])
        for split in [Split.TRAIN, Split.VALIDATION]
    }
    # Standard deviation of the difference of two shares of 200 is below 0.05.
    assert abs(share[Split.TRAIN] - share[Split.VALIDATION]) < 0.15


def test_the_template_may_say_anything_around_its_two_placeholders() -> None:
    prompt = make_prompts(template="{{use}} {numbers} to make {target}\n")[0]
    assert prompt.text.startswith("{use} ")
    assert prompt.text.endswith(f" to make {prompt.verifier_arguments['target']}\n")


@pytest.mark.parametrize(
    "template", ["", "{numbers}", "{target}>", "{numbers}{target}{answer}", "{}{numbers}{target}", "{numbers"]
)
def test_an_unusable_template_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="countdown template"):
        make_prompts(template=template)
