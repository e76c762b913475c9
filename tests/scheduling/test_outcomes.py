"""What earlier rounds say of each prompt, against loops over the rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling_examples import outcome_rows, outcomes_from

from paced_rl.scheduling import forgotten_counts, last_measured, no_outcomes


@settings(deadline=None)
@given(outcome_rows(6), st.floats(0.5, 50))
def test_counts_are_a_loop_over_the_rows(rows: list[tuple[int, int, int, int, str, float]], half_life: float) -> None:
    right, wrong = [0.0] * 6, [0.0] * 6
    for prompt, age, correct, scored, _, _ in rows:
        right[prompt] += 2 ** (-age / half_life) * correct
        wrong[prompt] += 2 ** (-age / half_life) * (scored - correct)
    found = forgotten_counts(outcomes_from(rows), num_prompts_total=6, half_life=half_life)
    np.testing.assert_allclose(found, [right, wrong], rtol=1e-12, atol=1e-12)


def test_counts_halve_with_every_half_life() -> None:
    outcomes = outcomes_from([(1, 5, 8, 8, "audit", 0.5), (1, 10, 4, 8, "selected", 0.5)])
    right, wrong = forgotten_counts(outcomes, num_prompts_total=3, half_life=5.0)
    assert right.tolist() == [0.0, 4.0 + 1.0, 0.0]
    assert wrong.tolist() == [0.0, 1.0, 0.0]


@settings(deadline=None)
@given(outcome_rows(6))
def test_last_measured_is_the_newest_row(rows: list[tuple[int, int, int, int, str, float]]) -> None:
    accuracies, ages = last_measured(outcomes_from(rows), 6)
    for prompt in range(6):
        own = [row for row in rows if row[0] == prompt]
        if own:
            newest = min(own, key=lambda row: row[1])
            assert (accuracies[prompt], ages[prompt]) == (newest[2] / newest[3], newest[1])
        else:
            assert np.isnan(accuracies[prompt])
            assert np.isinf(ages[prompt])


def test_nothing_measured() -> None:
    assert [part.tolist() for part in forgotten_counts(no_outcomes(), num_prompts_total=2, half_life=0.0)] == [
        [0.0, 0.0],
        [0.0, 0.0],
    ]
    assert np.isnan(last_measured(no_outcomes(), 2)[0]).all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((3, 1, 1, 2, "audit", 0.5), "name prompts 3 to 3, and there are 3 estimates"),
        ((-1, 1, 1, 2, "audit", 0.5), "name prompts -1"),
        ((0, 0, 1, 2, "audit", 0.5), "at least 1 round old, got 0"),
        ((0, 1, 0, 0, "audit", 0.5), "at least 1 scored completion"),
        ((0, 1, 3, 2, "audit", 0.5), "more correct than scored"),
    ],
)
def test_impossible_outcomes_are_refused(row: tuple[int, int, int, int, str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        last_measured(outcomes_from([row]), 3)
