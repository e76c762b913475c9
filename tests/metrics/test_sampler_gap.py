"""The gap between sampler and trainer, by hand and against the divergence that it estimates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paced_rl.metrics.sampler_gap import sampler_gap


def test_by_hand() -> None:
    gap = sampler_gap([np.log([0.5, 0.25]), np.log([0.1])], [np.log([0.5, 0.5]), np.log([0.05])])

    assert gap.mean_log_prob_gap == pytest.approx(2 * np.log(2) / 3)
    assert gap.max_log_prob_gap == pytest.approx(np.log(2))
    # w = 1, 2, 1/2
    assert gap.sampler_kl == pytest.approx((0 + (1 - np.log(2)) + (np.log(2) - 0.5)) / 3)


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=20), st.integers(1, 19))
def test_equal_figures_have_no_gap_however_they_are_cut(values: list[float], cut: int) -> None:
    parts = [np.array(values[:cut]), np.array(values[cut:])]
    gap = sampler_gap(parts, [np.array(values)])
    assert (gap.mean_log_prob_gap, gap.max_log_prob_gap, gap.sampler_kl) == (0, 0, 0)


def test_the_divergence_is_that_of_the_two_distributions() -> None:
    random = np.random.default_rng(0)
    sampler, trainer = random.dirichlet(np.ones(6)), random.dirichlet(np.ones(6))
    tokens = np.arange(6).repeat(np.round(sampler * 100_000).astype(int))
    gap = sampler_gap([np.log(sampler)[tokens]], [np.log(trainer)[tokens]])

    assert gap.sampler_kl == pytest.approx(float((sampler * np.log(sampler / trainer)).sum()), rel=1e-3)
    assert gap.sampler_kl > 0


def test_a_figure_that_is_no_number_shows() -> None:
    gap = sampler_gap([np.array([-1.0, np.nan])], [np.array([-1.0, -1.0])])
    assert np.isnan([gap.mean_log_prob_gap, gap.max_log_prob_gap, gap.sampler_kl]).all()
