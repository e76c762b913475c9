"""The percentile bootstrap of a mean."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paced_rl.metrics.bootstrap import bootstrap_mean


def _generator(seed=0):
    return np.random.default_rng(seed)


def test_quantiles_are_those_of_all_resamples():
    """Four prompts have 4⁴ equally likely resamples; many random ones find the same quantiles."""
    values = np.array([0.0, 1.0, 2.0, 10.0])
    means = [np.mean(resample) for resample in product(values, repeat=4)]
    interval = bootstrap_mean(values, generator=_generator(), num_resamples=100_000, confidence=0.8)
    assert interval.mean == 3.25
    low, high = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    assert interval.low == pytest.approx(low, abs=0.26)  # the means lie on a grid of 0.25
    assert interval.high == pytest.approx(high, abs=0.26)


def test_width_is_that_of_the_normal_approximation():
    values = _generator(1).normal(size=400)
    interval = bootstrap_mean(values, generator=_generator(2), num_resamples=20_000)
    half_width = 1.96 * values.std() / 20
    assert interval.low == pytest.approx(interval.mean - half_width, abs=0.1 * half_width)
    assert interval.high == pytest.approx(interval.mean + half_width, abs=0.1 * half_width)


def test_covers_the_true_mean_as_often_as_it_says():
    source = _generator(3)
    hits = 0
    for _ in range(300):
        interval = bootstrap_mean(source.random(60), generator=source, num_resamples=300, confidence=0.9)
        hits += interval.low <= 0.5 <= interval.high
    assert 0.83 < hits / 300 < 0.96


def test_same_generator_same_interval():
    values = _generator(4).random(50)
    first = bootstrap_mean(values, generator=_generator(5))
    assert bootstrap_mean(values, generator=_generator(5)) == first
    assert bootstrap_mean(values, generator=_generator(6)) != first


def test_many_prompts_are_drawn_in_parts():
    values = _generator(7).random(2_500_000)
    interval = bootstrap_mean(values, generator=_generator(8), num_resamples=3)
    assert interval.low < interval.high
    assert interval.mean == pytest.approx(0.5, abs=1e-2)


@settings(max_examples=30)
@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), shift=st.integers(-5, 5))
def test_interval_lies_within_the_values_and_moves_with_them(values, shift):
    array = np.array(values)
    interval = bootstrap_mean(array, generator=_generator(9), num_resamples=100)
    assert array.min() - 1e-9 <= interval.low <= interval.high <= array.max() + 1e-9
    moved = bootstrap_mean(array + shift, generator=_generator(9), num_resamples=100)
    assert moved.low == pytest.approx(interval.low + shift, abs=1e-9)
    assert moved.high == pytest.approx(interval.high + shift, abs=1e-9)


def test_one_prompt_has_no_width():
    interval = bootstrap_mean(np.array([0.3]), generator=_generator())
    assert interval.low == interval.mean == interval.high == 0.3


def test_wider_confidence_is_a_wider_interval():
    values = _generator(10).random(30)
    narrow = bootstrap_mean(values, generator=_generator(11), confidence=0.5)
    wide = bootstrap_mean(values, generator=_generator(11), confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("values", "arguments", "message"),
    [
        ([], {}, "shape \\(0,\\)"),
        ([0.5, np.nan], {}, "1 NaN"),
        ([[0.5]], {}, "shape \\(1, 1\\)"),
        ([0.5], {"num_resamples": 0}, "num_resamples = 0"),
        ([0.5], {"confidence": 1.0}, "confidence = 1.0"),
    ],
)
def test_impossible_requests_are_refused(values, arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(np.array(values), generator=_generator(), **arguments)
