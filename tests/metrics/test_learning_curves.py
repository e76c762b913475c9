"""Crossings of learning curves and what they save, against SciPy, hand-computed tables and relations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from paced_rl.metrics.learning_curves import first_crossing, monotone, relative_saving, value_at

curves = st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array)


@settings(max_examples=200)
@given(curves)
def test_the_monotone_fit_is_isotonic_regression(accuracies):
    assert monotone(accuracies) == pytest.approx(isotonic_regression(accuracies).x, abs=1e-12)


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=5).map(np.array))
def test_many_curves_at_once_are_each_by_itself(accuracies):
    assert monotone(accuracies) == pytest.approx(np.array([monotone(row) for row in accuracies]))
    assert np.array_equal(first_crossing(accuracies, 0.4), [first_crossing(row, 0.4) for row in accuracies])


@given(curves)
def test_a_rising_curve_is_its_own_fit_and_a_falling_one_its_mean(accuracies):
    rising = np.sort(accuracies)
    assert monotone(rising) == pytest.approx(rising)
    assert monotone(rising[::-1]) == pytest.approx(np.full(len(rising), rising.mean()))


def test_a_lucky_evaluation_is_averaged_with_what_follows():
    """The 0.5 in the middle is followed by 0.3: the fit is 0.4 there, so 0.45 is first reached on the way to 0.6."""
    accuracies = np.array([0.2, 0.5, 0.3, 0.6])
    assert monotone(accuracies) == pytest.approx([0.2, 0.4, 0.4, 0.6])
    assert first_crossing(accuracies, 0.3) == pytest.approx(0.5)
    assert first_crossing(accuracies, 0.45) == pytest.approx(2.25)
    assert value_at(np.array([0.0, 100.0, 200.0, 400.0]), first_crossing(accuracies, 0.45)) == pytest.approx(250.0)


def test_a_level_may_be_there_from_the_start_or_never_come():
    accuracies = np.array([[0.3, 0.4], [0.1, 0.2], [0.1, 0.35]])
    positions = first_crossing(accuracies, 0.3)
    assert positions == pytest.approx([0.0, np.inf, 0.8])
    costs = np.array([[0.0, 50.0]] * 3)
    assert value_at(costs, positions) == pytest.approx([0.0, np.inf, 40.0])


@given(curves, st.floats(0.01, 0.99))
def test_the_fit_has_the_level_where_it_crosses_it(accuracies, level):
    position = first_crossing(accuracies, level)
    fit = monotone(accuracies)
    if np.isfinite(position):
        assert value_at(fit, position) == pytest.approx(max(level, fit[0]), abs=1e-9)
    else:
        assert fit[-1] < level


@given(curves, st.floats(0.01, 0.98), st.floats(0, 0.02))
def test_a_higher_level_is_never_reached_earlier(accuracies, level, more):
    assert first_crossing(accuracies, level) <= first_crossing(accuracies, level + more)


def test_savings_with_and_without_an_end():
    costs = np.array([60.0, 100.0, 150.0, np.inf, 40.0, np.inf])
    baseline = np.array([100.0, 100.0, 100.0, 100.0, np.inf, np.inf])
    saving = relative_saving(costs, baseline, np.full(6, 200.0))
    assert saving[:5] == pytest.approx([0.4, 0.0, -0.5, -np.inf, 0.8]), "the fifth: at least 1 − 40/200"
    assert np.isnan(saving[5]), "neither gets there"


def test_a_baseline_that_begins_at_the_level_leaves_nothing_to_save():
    assert np.isnan(relative_saving(np.array(0.0), np.array(0.0), np.array(100.0)))
