"""Calibration measures: hand-computed values, enumeration of all outcomes, and relations."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paced_rl.metrics.calibration import (
    BAND_PROBABILITY,
    NUM_BINS,
    binomial_floor,
    brier_score,
    expected_calibration_error,
    mean_absolute_error,
    reliability_bins,
    spearman_rank_correlation,
)

ESTIMATES = np.array([0.2, 0.24, 0.9, 0.5])
NUM_CORRECT = np.array([1, 3, 4, 0])
NUM_SCORED = np.array([4, 4, 4, 0])
"""The last prompt has no scored completion."""

MEASURES = [brier_score, expected_calibration_error, mean_absolute_error, spearman_rank_correlation]
PROMPTS = st.lists(
    st.integers(0, 8).flatmap(lambda n: st.tuples(st.floats(0, 1), st.integers(0, n), st.just(n))), max_size=30
)


def _arrays(prompts):
    columns = list(zip(*prompts, strict=True)) if prompts else [(), (), ()]
    return np.array(columns[0], dtype=float), np.array(columns[1], dtype=int), np.array(columns[2], dtype=int)


def test_brier_score_by_hand():
    first = 1 * 0.8**2 + 3 * 0.2**2
    second = 3 * 0.76**2 + 1 * 0.24**2
    third = 4 * 0.1**2
    assert brier_score(ESTIMATES, NUM_CORRECT, NUM_SCORED) == pytest.approx((first + second + third) / 12)


def test_brier_score_equals_a_loop_over_completions():
    terms = []
    for p, c, n in zip(ESTIMATES, NUM_CORRECT, NUM_SCORED, strict=True):
        terms += [(p - r) ** 2 for r in [1] * c + [0] * (n - c)]
    assert brier_score(ESTIMATES, NUM_CORRECT, NUM_SCORED) == pytest.approx(sum(terms) / len(terms))


def test_reliability_bins_by_hand():
    bins = reliability_bins(ESTIMATES, NUM_CORRECT, NUM_SCORED)
    assert len(bins) == NUM_BINS
    third = bins[2]
    assert (third.lower_edge, third.upper_edge) == (0.2, 0.3)
    assert (third.num_prompts, third.num_completions) == (2, 8)
    assert third.mean_estimate == pytest.approx(0.22)
    assert third.observed_accuracy == 0.5
    assert (bins[9].num_prompts, bins[9].num_completions, bins[9].observed_accuracy) == (1, 4, 1.0)
    empty = bins[5]
    assert (empty.num_prompts, empty.num_completions) == (0, 0)
    assert all(math.isnan(x) for x in (empty.mean_estimate, empty.observed_accuracy, empty.band_low, empty.band_high))


def test_mean_estimate_of_a_bin_weighs_prompts_by_their_completions():
    third = reliability_bins(np.array([0.2, 0.28]), np.array([0, 0]), np.array([1, 7]))[2]
    assert third.mean_estimate == pytest.approx(0.27)


@pytest.mark.parametrize("estimate", [k / 10 for k in range(10)])
def test_a_bin_holds_its_lower_edge(estimate):
    bins = reliability_bins(np.array([estimate]), np.array([1]), np.array([2]))
    assert [b.num_prompts for b in bins].index(1) == round(10 * estimate)


def test_the_last_bin_holds_one_and_rounding_beyond_the_ends_is_taken():
    bins = reliability_bins(np.array([1.0, 1 + 1e-7, -1e-7]), np.array([1, 1, 0]), np.array([1, 1, 1]))
    assert (bins[9].num_prompts, bins[9].mean_estimate) == (2, 1.0)
    assert (bins[0].num_prompts, bins[0].mean_estimate) == (1, 0.0)


@pytest.mark.parametrize(("estimate", "total"), [(0.22, 8), (0.5, 40), (0.03, 25), (0.97, 25)])
def test_band_is_the_central_95_percent_of_the_binomial(estimate, total):
    """The narrowest that leaves less than 2.5 % out at each end, by summation of the probabilities."""
    (b,) = [x for x in reliability_bins(np.array([estimate]), np.array([0]), np.array([total])) if x.num_prompts]
    probability = [math.comb(total, x) * estimate**x * (1 - estimate) ** (total - x) for x in range(total + 1)]
    tail = (1 - BAND_PROBABILITY) / 2
    low, high = round(b.band_low * total), round(b.band_high * total)
    assert sum(probability[:low]) < tail <= sum(probability[: low + 1])
    assert sum(probability[high + 1 :]) <= tail < sum(probability[high:])


def test_band_of_a_certain_estimate_has_no_width():
    bins = reliability_bins(np.array([0.0, 1.0]), np.array([0, 3]), np.array([3, 3]))
    assert (bins[0].band_low, bins[0].band_high) == (0, 0)
    assert (bins[9].band_low, bins[9].band_high) == (1, 1)


def test_expected_calibration_error_by_hand():
    expected = (8 * abs(0.5 - 0.22) + 4 * abs(1 - 0.9)) / 12
    assert expected_calibration_error(ESTIMATES, NUM_CORRECT, NUM_SCORED) == pytest.approx(expected)


def test_errors_within_a_bin_cancel_in_calibration_and_not_in_absolute_error():
    p, c, n = np.array([0.5, 0.5]), np.array([0, 8]), np.array([8, 8])
    assert expected_calibration_error(p, c, n) == 0
    assert mean_absolute_error(p, c, n) == 0.5


def test_mean_absolute_error_by_hand():
    expected = (0.05 + 0.51 + 0.1) / 3
    assert mean_absolute_error(ESTIMATES, NUM_CORRECT, NUM_SCORED) == pytest.approx(expected)


def test_floor_by_hand():
    """n = 2, p = 0.5: |0 − ½|·¼ + 0·½ + |1 − ½|·¼ = ¼. n = 1, p = 0.2: 0.2·0.8 + 0.8·0.2 = 0.32."""
    assert binomial_floor(np.array([0.5]), np.array([2])) == pytest.approx(0.25)
    assert binomial_floor(np.array([0.2]), np.array([1])) == pytest.approx(0.32)
    assert binomial_floor(np.array([0.5, 0.2, 0.7]), np.array([2, 1, 0])) == pytest.approx(0.285)
    assert binomial_floor(np.array([0.5]), np.array([8])) == pytest.approx(0.13671875)
    assert binomial_floor(np.array([0.0, 1.0]), np.array([8, 8])) == 0


def test_floor_is_the_expected_error_of_right_estimates():
    """Mean of `mean_absolute_error` over all 2⁶ outcomes of six completions, weighed by their probability."""
    p, n = np.array([0.3, 0.8]), np.array([2, 4])
    expected = 0.0
    for outcome in product([0, 1], repeat=6):
        chances = np.repeat(p, n)
        probability = np.prod(np.where(outcome, chances, 1 - chances))
        c = np.array([sum(outcome[:2]), sum(outcome[2:])])
        expected += probability * mean_absolute_error(p, c, n)
    assert binomial_floor(p, n) == pytest.approx(expected, abs=1e-14)


@given(p=st.floats(0.001, 0.999), n=st.integers(1, 200))
def test_floor_is_de_moivres_formula(p, n):
    """E|X − np| = 2ν·C(n, ν)·p^ν·(1 − p)^(n − ν + 1) with ν = ⌊np⌋ + 1."""
    v = math.floor(n * p) + 1
    expected = 2 * v * float(stats.binom.pmf(v, n, p)) * (1 - p) / n
    assert binomial_floor(np.array([p]), np.array([n])) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("nothing", [0.0, 5e-324, 2.3e-308, 1e-300, 1e-20])
def test_floor_and_band_of_a_vanishing_estimate(nothing):
    p, n = np.array([nothing]), np.array([64])
    assert binomial_floor(p, n) == pytest.approx(0, abs=1e-12)
    first = reliability_bins(p, np.array([0]), n)[0]
    assert (first.band_low, first.band_high) == (0, 0)


def test_spearman_by_hand():
    """Ranks 1 2 3 4 against 1 3 2 4: 1 − 6·(0 + 1 + 1 + 0)/(4·15) = 0.8."""
    p, c, n = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 2, 1, 3]), np.array([4, 4, 4, 4])
    assert spearman_rank_correlation(p, c, n) == pytest.approx(0.8)
    assert spearman_rank_correlation(p, n - c, n) == pytest.approx(-0.8)


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.integers(0, 8)), min_size=2, max_size=20).filter(
        lambda rows: all(len(set(column)) > 1 for column in zip(*rows, strict=True))
    )
)
def test_spearman_with_ties_equals_scipy(rows):
    p, c = (np.array(column) for column in zip(*rows, strict=True))
    expected = float(stats.spearmanr(p, c).statistic)
    assert spearman_rank_correlation(p, c, np.full(len(p), 8)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("p", "c", "n"),
    [
        ([0.5, 0.5, 0.5], [0, 1, 2], [2, 2, 2]),
        ([0.1, 0.5, 0.9], [1, 2, 4], [2, 4, 8]),
        ([0.1, 0.9], [0, 1], [0, 1]),
        ([], [], []),
    ],
)
def test_spearman_is_nan_where_there_is_no_order(p, c, n):
    assert math.isnan(spearman_rank_correlation(np.array(p), np.array(c, dtype=int), np.array(n, dtype=int)))


@given(PROMPTS, st.randoms(use_true_random=False))
def test_order_of_prompts_and_unscored_prompts_change_nothing(prompts, random):
    shuffled = [*prompts, (0.3, 0, 0)]
    random.shuffle(shuffled)
    for measure in MEASURES:
        assert measure(*_arrays(shuffled)) == pytest.approx(measure(*_arrays(prompts)), abs=1e-9, nan_ok=True)


@given(PROMPTS.filter(lambda prompts: any(n for _, _, n in prompts)))
def test_measures_stay_in_their_range(prompts):
    p, c, n = _arrays(prompts)
    for measure in (brier_score, expected_calibration_error, mean_absolute_error):
        assert 0 <= measure(p, c, n) <= 1
    assert 0 <= binomial_floor(p, n) <= 0.5 + 1e-12
    for b in reliability_bins(p, c, n):
        if b.num_completions:
            assert b.lower_edge - 1e-12 <= b.mean_estimate <= b.upper_edge + 1e-12
            assert 0 <= b.band_low <= b.band_high <= 1
    assert sum(b.num_completions for b in reliability_bins(p, c, n)) == n.sum()


@given(PROMPTS.filter(lambda prompts: any(n for _, _, n in prompts)))
def test_perfect_estimates_have_no_error(prompts):
    _, c, n = _arrays(prompts)
    c, n = c[n > 0], n[n > 0]
    assert mean_absolute_error(c / n, c, n) == 0
    assert expected_calibration_error(c / n, c, n) == pytest.approx(0, abs=1e-12)


def test_nothing_scored_is_nan():
    empty = np.array([0.5]), np.array([0]), np.array([0])
    assert all(math.isnan(measure(*empty)) for measure in MEASURES)
    assert math.isnan(binomial_floor(empty[0], empty[2]))


@pytest.mark.parametrize(
    ("p", "c", "n", "message"),
    [
        ([0.5, 1.2], [1, 1], [2, 2], "estimate 1.2 at position 1"),
        ([math.nan], [1], [2], "estimate nan at position 0"),
        ([0.5], [3], [2], "num_correct = 3 of num_scored = 2"),
        ([0.5], [-1], [2], "num_correct = -1"),
        ([0.5, 0.5], [1], [2], "of one length"),
    ],
)
def test_impossible_values_are_refused(p, c, n, message):
    for measure in (*MEASURES, reliability_bins):
        with pytest.raises(ValueError, match=message):
            measure(np.array(p), np.array(c), np.array(n))
