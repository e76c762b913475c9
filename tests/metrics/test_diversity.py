"""Distinct correct answers per solved prompt, and the slope of pass@k."""

import math

import numpy as np
import pytest

from paced_rl.metrics.diversity import distinct_correct_answers, pass_at_k_slope


def test_by_hand():
    """a: {3+4, 4+3} = 2; b: {7} = 1; c is not solved."""
    rows = [
        ("a", 1.0, "3+4"),
        ("a", 1.0, "4+3"),
        ("a", 1.0, "3+4"),
        ("a", 0.0, "3-4"),
        ("b", 1.0, "7"),
        ("b", None, "8"),
        ("c", 0.0, "9"),
        ("c", math.nan, None),
    ]
    assert distinct_correct_answers(*zip(*rows, strict=True)) == 1.5
    assert distinct_correct_answers(*zip(*reversed(rows), strict=True)) == 1.5


def test_the_same_answer_to_two_prompts_counts_for_both():
    assert distinct_correct_answers(["a", "b"], [1.0, 1.0], ["7", "7"]) == 1


def test_correct_completions_without_a_canonical_answer_count_once():
    missing = [None, math.nan, float("nan")]
    assert distinct_correct_answers(["a"] * 4, [1.0] * 4, [*missing, "7"]) == 2


@pytest.mark.parametrize("rewards", [[], [0.0, 0.0], [None, math.nan]])
def test_nothing_solved_is_nan(rewards):
    assert math.isnan(distinct_correct_answers(["a"] * len(rewards), rewards, ["7"] * len(rewards)))


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 prompt_ids, 1 rewards and 2 extracted_answers"):
        distinct_correct_answers(["a", "b"], [1.0], ["7", "7"])


def test_the_slope_of_pass_at_k_is_that_of_a_line_in_the_logarithm():
    k = np.arange(1, 9)
    assert pass_at_k_slope(0.2 + 0.15 * np.log(k)) == pytest.approx(0.15)
    assert pass_at_k_slope(np.array([[0.5, 0.5, 0.5], [0.1, 0.4, 0.3]])) == pytest.approx(
        [0.0, np.polyfit(np.log([1, 2, 3]), [0.1, 0.4, 0.3], 1)[0]]
    )
    assert np.isnan(pass_at_k_slope(np.array([0.5])))
