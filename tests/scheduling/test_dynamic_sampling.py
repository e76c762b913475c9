"""DAPO's rule within a pass: how many prompts are rolled out, and whose groups train."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduling_examples import outcome_rows, outcomes_from

from paced_rl.scheduling import groups_to_train_on, no_outcomes, num_prompts_to_roll_out

Group = tuple[int, int, int, int, str, float]


def needed(rows: list[Group], *, num_prompts: int = 32, max_oversampling: float = 3.0) -> int:
    return num_prompts_to_roll_out(
        outcomes_from(rows), num_prompts=num_prompts, max_oversampling=max_oversampling, half_life=10.0
    )


def groups(informative: int, solved: int, unsolved: int, *, age: int = 1) -> list[Group]:
    corrects = [4] * informative + [8] * solved + [0] * unsolved
    return [(index, age, correct, 8, "selected", 0.5) for index, correct in enumerate(corrects)]


def test_it_takes_as_many_as_the_informative_share_says() -> None:
    assert needed(groups(4, 2, 2)) == 64
    assert needed(groups(10, 0, 0)) == 32
    assert needed(groups(3, 1, 1)) == 54  # 32 / 0.6 = 53.3
    assert needed(groups(1, 0, 99)) == 96  # the cap
    assert needed(groups(0, 5, 5)) == 96
    assert needed(groups(1, 0, 99), num_prompts=5, max_oversampling=2.5) == 12  # whole prompts
    assert needed(groups(1, 0, 99), max_oversampling=1.0) == 32


def test_before_any_outcome_a_half_is_guessed() -> None:
    assert num_prompts_to_roll_out(no_outcomes(), num_prompts=32, max_oversampling=3.0, half_life=0.0) == 64
    assert num_prompts_to_roll_out(no_outcomes(), num_prompts=32, max_oversampling=1.5, half_life=0.0) == 48


def test_older_outcomes_count_less() -> None:
    """All informative now, none ten rounds ago: (1)/(1 + 1/2) = 2/3 of a group, at equal numbers of each."""
    old = [(index, 11, 0, 8, "audit", 0.5) for index in range(6)]
    assert needed(groups(6, 0, 0) + old) == 48


@given(outcome_rows(20), st.integers(1, 40), st.floats(1, 10))
def test_it_stays_between_the_round_and_the_cap(rows: list[Group], num_prompts: int, max_oversampling: float) -> None:
    found = needed(rows, num_prompts=num_prompts, max_oversampling=max_oversampling)
    assert num_prompts <= found <= math.floor(max_oversampling * num_prompts)


def test_a_cap_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_oversampling = 0.5"):
        needed([], max_oversampling=0.5)


def kept(num_correct: list[int], num_scored: list[int], num_prompts: int) -> list[int]:
    return np.flatnonzero(
        groups_to_train_on(np.array(num_correct, int), np.array(num_scored, int), num_prompts=num_prompts)
    ).tolist()


def test_the_first_informative_groups_train() -> None:
    correct, scored = [0, 3, 8, 1, 0, 7, 2], [8, 8, 8, 8, 0, 8, 2]
    assert kept(correct, scored, 2) == [1, 3]
    assert kept(correct, scored, 3) == [1, 3, 5]
    assert kept(correct, scored, 10) == [1, 3, 5]  # a group of two that are right is uniform, one without reward too


def test_without_an_informative_group_the_round_is_that_of_uniform() -> None:
    assert kept([0, 8, 0, 8], [8, 8, 0, 8], 2) == [0, 1]
    assert kept([0, 8, 0, 8], [8, 8, 0, 8], 3) == [0, 1, 3]
    assert kept([0, 0], [0, 0], 2) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=20), st.integers(1, 20))
def test_groups_by_a_plain_loop(pairs: list[tuple[int, int]], num_prompts: int) -> None:
    pairs = [(min(pair), max(pair)) for pair in pairs]
    informative = [index for index, (correct, scored) in enumerate(pairs) if 0 < correct < scored]
    scored_ones = [index for index, (_, scored) in enumerate(pairs) if scored]
    expected = (informative or scored_ones)[:num_prompts]
    assert kept([correct for correct, _ in pairs], [scored for _, scored in pairs], num_prompts) == expected
