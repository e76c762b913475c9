"""Informative fraction and hit rate."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paced_rl.metrics.informativeness import hit_rate, informative_fraction

EIGHTHS = np.arange(9) / 8


def test_by_hand():
    assert informative_fraction(EIGHTHS) == 7 / 9
    assert hit_rate(EIGHTHS) == 5 / 9  # 2/8 … 6/8, both ends included
    assert hit_rate(np.array([1 / 3, 0.249, 0.751])) == pytest.approx(1 / 3)


def test_groups_without_a_score_are_left_out():
    observed = np.array([0.5, math.nan, 1.0, math.nan])
    assert informative_fraction(observed) == 0.5
    assert hit_rate(observed) == 0.5


@pytest.mark.parametrize("observed", [np.array([]), np.array([math.nan])])
def test_no_groups_are_nan(observed):
    assert math.isnan(informative_fraction(observed))
    assert math.isnan(hit_rate(observed))


@given(st.lists(st.floats(0, 1), min_size=1))
def test_hits_are_informative_and_right_and_wrong_are_symmetric(values):
    observed = np.array(values)
    assert 0 <= hit_rate(observed) <= informative_fraction(observed) <= 1
    eighths = np.round(observed * 8) / 8
    assert hit_rate(1 - eighths) == hit_rate(eighths)
    assert informative_fraction(1 - eighths) == informative_fraction(eighths)
