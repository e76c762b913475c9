"""pass@k against enumeration."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paced_rl.metrics.pass_at_k import pass_at_k

COUNTS = st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))


def _one(n: int, c: int, k: int) -> float:
    return float(pass_at_k(np.array([n]), np.array([c]), k)[0])


def test_by_hand():
    assert pass_at_k(np.array([4, 4, 4, 4]), np.array([0, 1, 2, 3]), 2).tolist() == pytest.approx([0, 1 / 2, 5 / 6, 1])


@pytest.mark.parametrize("n", range(1, 8))
def test_equals_the_share_of_subsets_with_a_correct_sample(n):
    for c in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(combinations([1] * c + [0] * (n - c), k))
            assert _one(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


@given(COUNTS)
def test_equals_the_ratio_of_binomial_coefficients(counts):
    n, c, k = counts
    assert _one(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-12)


@given(COUNTS)
def test_pass_at_one_is_accuracy_and_more_samples_never_hurt(counts):
    n, c, k = counts
    assert _one(n, c, 1) == pytest.approx(c / n)
    assert _one(n, c, 1) - 1e-12 <= _one(n, c, k) <= 1
    assert (_one(n, c, n) == 1) == (c > 0)


def test_is_unbiased():
    """Averaged over the outcomes of n draws, it is the probability that one of k draws is correct."""
    n, k, p = 9, 4, 0.15
    probability = np.array([comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)])
    estimate = pass_at_k(np.full(n + 1, n), np.arange(n + 1), k)
    assert probability @ estimate == pytest.approx(1 - (1 - p) ** k, abs=1e-14)


def test_many_samples_do_not_overflow_and_rare_successes_are_not_lost():
    result = pass_at_k(np.array([100_000, 100_000, 100_000]), np.array([0, 1, 50_000]), 1000)
    assert result.tolist() == pytest.approx([0, 0.01, 1], abs=1e-12)


def test_prompts_may_differ_in_samples():
    result = pass_at_k(np.array([3, 8]), np.array([1, 1]), 2)
    assert result.tolist() == pytest.approx([2 / 3, 1 / 4])
    assert pass_at_k(np.array([], dtype=int), np.array([], dtype=int), 2).shape == (0,)


@pytest.mark.parametrize(
    ("n", "c", "k", "message"),
    [
        ([8, 4], [1, 1], 5, "k = 5 with 4 samples"),
        ([8], [1], 0, "k = 0, must be at least 1"),
        ([8, 8], [1, 9], 1, "num_correct = 9 at position 1"),
        ([8], [-1], 1, "num_correct = -1 at position 0"),
    ],
)
def test_impossible_counts_are_refused(n, c, k, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(np.array(n), np.array(c), k)
