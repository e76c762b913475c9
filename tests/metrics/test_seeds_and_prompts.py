"""Intervals over seeds and prompts, against plain loops, formulas, and coverage in simulation."""

import numpy as np
import pytest
from scipy import stats

from paced_rl.metrics.seeds_and_prompts import (
    Ratio,
    interval_over_seeds,
    mean_over_seeds,
    percentile_interval,
    resample,
)


def _generator(seed=0):
    return np.random.default_rng(seed)


def _ratio(above, below=None):
    above = np.asarray(above, dtype=np.float64)
    return Ratio(above=above, below=np.ones_like(above) if below is None else np.asarray(below, dtype=np.float64))


def test_the_mean_weighs_seeds_alike_and_prompts_within_them():
    """Seed 0: (1 + 3) / (1 + 1) = 2; seed 1: 6 / 2 = 3, whatever its third prompt, which counts nowhere."""
    seeds = [_ratio([[[1, 3]]]), _ratio([[[6, 0, 0]]], [[[1, 1, 0]]])]
    assert mean_over_seeds(seeds) == pytest.approx(np.array([[2.5]]))


def test_resamples_are_those_of_a_plain_loop():
    """In distribution: the loop draws seeds, then prompts of each drawn seed, by index."""
    source = _generator(1)
    seeds = [_ratio(source.random((2, 3, size)), source.random((2, 3, size)) + 0.1) for size in (4, 7, 5)]
    drawn = resample({"x": seeds}, generator=_generator(2), num_resamples=20_000).figures["x"]
    loop = []
    for _ in range(4_000):
        values = []
        for seed in source.integers(3, size=3):
            chosen = source.integers(seeds[seed].above.shape[-1], size=seeds[seed].above.shape[-1])
            values.append(seeds[seed].above[..., chosen].sum(-1) / seeds[seed].below[..., chosen].sum(-1))
        loop.append(np.mean(values, axis=0))
    assert drawn.mean(axis=0) == pytest.approx(np.mean(loop, axis=0), abs=0.02)
    assert drawn.std(axis=0) == pytest.approx(np.std(loop, axis=0), rel=0.08)


def test_arms_and_figures_see_the_same_draws():
    source = _generator(3)
    # The second arm is better by 0.25 on every prompt.
    seeds = [_ratio(source.random((1, 1, size)) + np.array([[[0.0]], [[0.25]]])) for size in (50, 30)]
    drawn = resample({"x": seeds, "twice": [_ratio(2 * seed.above) for seed in seeds]}, generator=_generator(4))
    assert drawn.figures["x"][:, 1] - drawn.figures["x"][:, 0] == pytest.approx(0.25)
    assert drawn.figures["twice"] == pytest.approx(2 * drawn.figures["x"])
    assert drawn.figures["x"][:, 0].std() > 0


def test_what_a_seed_has_as_a_whole_is_drawn_with_it():
    """Seeds whose prompts are all alike: the figure of a resample is the mean of the drawn seeds' values."""
    values = np.array([1.0, 10.0, 100.0])
    seeds = [_ratio(np.full((1, 1, 6), value)) for value in values]
    drawn = resample({"x": seeds}, generator=_generator(5), num_resamples=500)
    assert drawn.seed_shares.sum(axis=1) == pytest.approx(1)
    assert drawn.figures["x"][:, 0, 0] == pytest.approx(drawn.seed_shares @ values)


def test_many_prompts_are_drawn_in_parts():
    size = 3_000_000
    drawn = resample({"x": [_ratio(np.ones((1, 1, size)))]}, generator=_generator(6), num_resamples=3)
    assert drawn.figures["x"] == pytest.approx(1)


def test_a_figure_without_a_value_is_nan_and_not_an_error():
    drawn = resample({"x": [_ratio([[[1.0, 1.0]]], [[[0.0, 0.0]]])]}, generator=_generator(), num_resamples=5)
    assert np.isnan(drawn.figures["x"]).all()


@pytest.mark.parametrize("seeds", [[], [_ratio(np.ones((1, 1, 0)))]])
def test_no_seeds_and_no_prompts_are_refused(seeds):
    with pytest.raises(ValueError, match="at least one seed with at least one prompt"):
        resample({"x": seeds}, generator=_generator())


def test_a_percentile_interval_is_that_of_the_sorted_values():
    values = _generator(7).permutation(np.arange(1001.0))
    interval = percentile_interval(3.0, values)
    assert (interval.mean, interval.low, interval.high) == (3.0, 25.0, 975.0)


@pytest.mark.parametrize(("num_unknown", "is_open"), [(10, False), (40, True)])
def test_unknown_resamples_open_both_ends_once_they_are_more_than_the_tails(num_unknown, is_open):
    values = np.concatenate([np.full(num_unknown, np.nan), np.ones(1000 - num_unknown)])
    interval = percentile_interval(1.0, values)
    assert (interval.low == -np.inf, interval.high == np.inf) == (is_open, is_open)


def test_the_interval_over_seeds_is_the_one_sample_t_interval():
    values = np.array([0.02, -0.01, 0.05])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    interval = interval_over_seeds(values)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.02, expected.low, expected.high))
    assert np.isnan(interval_over_seeds(values[:1]).low)


@pytest.mark.parametrize(("spread_of_seeds", "least", "most"), [(0.0, 0.95, 1.0), (0.1, 0.6, 0.9)])
def test_why_a_bootstrap_over_few_seeds_is_not_enough(spread_of_seeds, least, most):
    """Three seeds: it covers too often where prompts alone differ, and too rarely where seeds do; Student does not."""
    source = _generator(8)
    hits = {"bootstrap": 0, "student": 0}
    num_trials = 200
    for _ in range(num_trials):
        seeds = [_ratio(source.normal(source.normal(0, spread_of_seeds), 0.5, size=(1, 1, 100))) for _ in range(3)]
        drawn = resample({"x": seeds}, generator=source, num_resamples=300).figures["x"][:, 0, 0]
        bootstrap = percentile_interval(0.0, drawn)
        student = interval_over_seeds(np.array([seed.above.mean() for seed in seeds]))
        hits["bootstrap"] += bootstrap.low <= 0 <= bootstrap.high
        hits["student"] += student.low <= 0 <= student.high
    assert least <= hits["bootstrap"] / num_trials <= most
    assert 0.91 <= hits["student"] / num_trials <= 0.985
