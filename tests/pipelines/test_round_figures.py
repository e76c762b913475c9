"""The figures of a round show what the tables hold, and equal tables give equal pictures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from table_examples import ROWS, example_table

from paced_rl.datasets.figure import FigureDataset
from paced_rl.datasets.parquet_table import ParquetTable
from paced_rl.pipelines.reporting.figures import calibration_figure, estimates_figure, learning_curve_figure


def _texts(figure: Figure) -> list[str]:
    axes = figure.axes[0]
    return [text.get_text() for text in (*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label)]


def _curve(folder: Path, num_rounds: int) -> pd.DataFrame:
    """A learning curve as the pipeline reads it: every fifth round is evaluated, a round samples 100 tokens."""
    rows = [
        {
            **ROWS["learning_curve"][0],
            "curve_round": number,
            "tokens_sampled": 100 * number,
            "train_accuracy": None if number == 0 else 0.5,
            **{f"validation_accuracy{bound}": 0.1 + 0.01 * number if number % 5 == 0 else None for bound in _BOUNDS},
        }
        for number in range(num_rounds + 1)
    ]
    path = folder / "experiment=paced" / f"round={num_rounds:04d}" / "learning_curve.parquet"
    dataset = ParquetTable(filepath=str(path), schema="learning_curve")
    dataset.save(pa.Table.from_pylist(rows, schema=example_table("learning_curve", rows).schema))
    table = dataset.load()
    assert isinstance(table, pd.DataFrame)
    return table


_BOUNDS = ("", "_low", "_high")


@pytest.mark.parametrize("num_rounds", [1, 7, 60])
def test_the_learning_curve_tells_rounds_and_tokens(tmp_path: Path, num_rounds: int) -> None:
    figure = learning_curve_figure(_curve(tmp_path, num_rounds))
    trained, held_out = figure.axes[0].lines
    np.testing.assert_array_equal(trained.get_xdata(), np.arange(1, num_rounds + 1))
    np.testing.assert_array_equal(held_out.get_xdata(), np.arange(0, num_rounds + 1, 5))
    np.testing.assert_allclose(held_out.get_ydata(), 0.1 + 0.01 * np.arange(0, num_rounds + 1, 5))
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks[0] == "0\n0 tokens"
    for tick in ticks:
        number, tokens = tick.split("\n")
        assert tokens == f"{100 * int(number):,} tokens"
    assert len(ticks) >= 2


def test_the_calibration_has_a_point_per_bin_that_holds_prompts() -> None:
    outcomes = pd.DataFrame(
        {"estimated_accuracy": [0.05, 0.06, 0.95], "num_correct": [0, 4, 8], "num_scored": [8, 8, 8]}
    )
    figure = calibration_figure(outcomes, round_number=4)
    points = np.asarray(figure.axes[0].collections[-1].get_offsets())
    np.testing.assert_allclose(points, [[0.055, 0.25], [0.95, 1.0]])
    assert "Calibration on uniform prompts up to round 4 (3 groups)" in _texts(figure)
    without = calibration_figure(outcomes.iloc[:0], round_number=1)
    assert not without.axes[0].collections


def test_the_histogram_counts_every_prompt_once() -> None:
    before, after = np.linspace(0, 1, 50), np.full(50, 0.5)
    figure = estimates_figure(before=before, after=after, scheduled=before[:3], round_number=2)
    counts = [patch.get_data().values for patch in figure.axes[0].patches]
    assert [values.sum() for values in counts] == [50, 50]
    assert counts[1].max() == 50
    assert figure.axes[0].get_ylim()[1] > 50
    log_z = estimates_figure(before=before - 3, after=after, scheduled=before[:3], round_number=2, is_accuracy=False)
    assert "log Z, nats per token: no accuracy" in _texts(log_z)


def test_a_picture_depends_on_the_data_alone(tmp_path: Path) -> None:
    def draw(name: str, num_rounds: int) -> bytes:
        dataset = FigureDataset(filepath=str(tmp_path / f"{name}.png"))
        dataset.save(learning_curve_figure(_curve(tmp_path, num_rounds)))
        return dataset.load()

    first = draw("first", 7)
    assert draw("other", 60) != first
    assert draw("second", 7) == first
