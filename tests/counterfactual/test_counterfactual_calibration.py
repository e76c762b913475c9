"""Calibration of estimators on rounds of known outcomes, against the same measures put together by hand."""

import numpy as np
import pyarrow as pa
import pytest

from paced_rl.counterfactual.calibration import SCHEMA, CalibrationSums, calibration_lines, calibration_rows
from paced_rl.metrics.calibration import binomial_floor, brier_score, spearman_rank_correlation
from paced_rl.seeds import derive_generator

SCORED = np.array([4, 4])


def two_rounds() -> CalibrationSums:
    sums = CalibrationSums()
    sums.add(3, {"exact": np.array([0.0, 1.0]), "half": np.array([0.5, 0.5])}, np.array([0, 4]), SCORED)
    sums.add(7, {"exact": np.array([0.25, 0.5]), "half": np.array([0.5, 0.5])}, np.array([1, 2]), SCORED)
    return sums


def test_measures_by_hand() -> None:
    exact, half = calibration_rows(two_rounds(), seed=0, is_total=True)
    assert (exact["first_round"], exact["last_round"], exact["num_groups"]) == (3, 7, 4)
    assert exact["mean_absolute_error"] == exact["mean_absolute_error_low"] == exact["mean_absolute_error_high"] == 0
    assert exact["rank_correlation"] == pytest.approx(1.0)
    assert half["mean_absolute_error"] == pytest.approx((0.5 + 0.5 + 0.25 + 0) / 4)
    assert half["mean_absolute_error_low"] < half["mean_absolute_error"] < half["mean_absolute_error_high"]
    assert half["brier_score"] == pytest.approx(0.25)
    assert half["rank_correlation"] is None
    assert half["expected_calibration_error"] == pytest.approx(abs(7 / 16 - 0.5))


def test_it_is_the_measures_of_all_groups_at_once() -> None:
    generator = derive_generator(1, "groups")
    sums, parts = CalibrationSums(), []
    for round_number in range(1, 6):
        estimates, scored = generator.random(10), generator.integers(3, 9, 10)
        correct = generator.binomial(scored, estimates)
        sums.add(round_number, {"learned": estimates}, correct, scored)
        parts.append((estimates, correct, scored))
    estimates, correct, scored = (np.concatenate(column) for column in zip(*parts, strict=True))
    (row,) = calibration_rows(sums, seed=0, is_total=False)
    assert row["brier_score"] == brier_score(estimates, correct, scored)
    assert row["binomial_floor"] == binomial_floor(estimates, scored)
    assert row["rank_correlation"] == spearman_rank_correlation(estimates, correct, scored)
    # Outcomes that come from the estimates themselves are off by luck alone.
    assert row["mean_absolute_error"] == pytest.approx(row["binomial_floor"], abs=0.06)


def test_rows_fit_their_schema_and_the_table_shows_them() -> None:
    rows = list(calibration_rows(two_rounds(), seed=0, is_total=True))
    assert pa.Table.from_pylist(rows, schema=SCHEMA).num_rows == 2
    lines = list(calibration_lines(rows))
    assert lines[3].startswith("| 3 to 7 | half | 4 | 0.312 [")
    assert lines[3].endswith("| – |")


def test_without_rounds_there_is_nothing_to_say() -> None:
    assert list(calibration_rows(CalibrationSums(), seed=0, is_total=True)) == []
