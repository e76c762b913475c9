from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paced_rl.datasets.parquet_table import ParquetTable
from paced_rl.parameters import StoppingParameters
from paced_rl.stopping import Evaluation, evaluations_until, reason_to_stop

CURVE = [(0, 0.2), (5, 0.5), (10, 0.4), (15, 0.6), (20, 0.6), (25, 0.6)]


def first_stop(evaluations: list[Evaluation], **stopping: float | int | None) -> int | None:
    """Round after which a loop that asks after every evaluation stops."""
    parameters = StoppingParameters.model_validate(stopping)
    for length in range(1, len(evaluations) + 1):
        if reason_to_stop(evaluations[:length], parameters) is not None:
            return evaluations[length - 1][0]
    return None


@pytest.mark.parametrize(
    ("stopping", "expected"),
    [
        ({}, None),
        ({"target_accuracy": 0.5}, 5),
        ({"target_accuracy": 0.6}, 15),
        ({"target_accuracy": 0.61}, None),
        ({"target_accuracy": 0.1}, 0),
        ({"patience": 1}, 10),
        ({"patience": 2}, 25),
        ({"patience": 3}, None),
        ({"patience": 2, "min_improvement": 0.1}, 25),  # 0.6 - 0.5 is a little less than 0.1 in floats
        ({"patience": 2, "min_improvement": 0.11}, 15),
        ({"patience": 2, "target_accuracy": 0.6}, 15),
    ],
)
def test_where_a_known_curve_stops(stopping: dict[str, float], expected: int | None) -> None:
    assert first_stop(CURVE, **stopping) == expected


def test_the_reason_says_what_was_reached_and_where() -> None:
    assert reason_to_stop(CURVE, StoppingParameters(target_accuracy=0.5)) == (
        "validation accuracy 0.5 of round 5 has reached stopping.target_accuracy = 0.5"
    )
    assert reason_to_stop(CURVE, StoppingParameters(patience=2, min_improvement=0.05)) == (
        "the last 2 evaluations, up to round 25, are not better by 0.05 than validation accuracy 0.6 of round 15 "
        "(stopping.patience = 2)"
    )
    assert reason_to_stop([], StoppingParameters(target_accuracy=0.0, patience=1)) is None


@given(
    accuracies=st.lists(st.integers(0, 10).map(lambda tenths: tenths / 10), max_size=12),
    target=st.none() | st.integers(0, 10).map(lambda tenths: tenths / 10),
    patience=st.none() | st.integers(1, 4),
    min_improvement=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_a_resumed_loop_decides_as_an_uninterrupted_one(
    accuracies: list[float], target: float | None, patience: int | None, min_improvement: float
) -> None:
    evaluations = [*enumerate(accuracies)]
    stopping = StoppingParameters(target_accuracy=target, patience=patience, min_improvement=min_improvement)
    stop = first_stop(evaluations, **stopping.model_dump())
    for length in range(len(evaluations) + 1):  # from any later round on, it is still time to stop
        is_late = stop is not None and length > stop
        assert (reason_to_stop(evaluations[:length], stopping) is not None) == is_late


def test_evaluations_are_read_from_the_rounds_learning_curve(tmp_path: Path) -> None:
    assert evaluations_until(tmp_path, "x", 2) == []
    accuracies = [0.25, None, 0.5]
    curve = pd.DataFrame(
        {
            "curve_round": [0, 1, 2],
            "tokens_sampled": [0, 10, 20],
            "train_accuracy": [None, 0.1, 0.2],
            "validation_accuracy": accuracies,
            "validation_accuracy_low": accuracies,
            "validation_accuracy_high": accuracies,
        }
    )
    folder = tmp_path / "data/08_reporting/learning_curve/experiment=x/round=0002"
    ParquetTable(filepath=str(folder / "learning_curve.parquet"), schema="learning_curve").save(curve)
    assert evaluations_until(tmp_path, "x", 2) == [(0, 0.25), (2, 0.5)]
