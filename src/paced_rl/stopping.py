"""Whether a loop over rounds has reached what it was run for, from the learning curve on disk.

The decision after a round depends on the evaluations up to that round alone, so a loop that is resumed stops where an
uninterrupted one would have.
"""

from collections.abc import Sequence
from pathlib import Path

from paced_rl.parameters import StoppingParameters

Evaluation = tuple[int, float]
"""(round, validation accuracy)."""

_ROUNDING = 1e-9
"""0.6 is better than 0.5 by 0.1, although the difference of the two floats is a little less."""


def reason_to_stop(evaluations: Sequence[Evaluation], stopping: StoppingParameters) -> str | None:
    """Why to stop after these evaluations, at the first of them that gives a reason; None to go on.

    Args:
        evaluations: all of an experiment up to some round, in order.
        stopping: without a target and a patience nothing stops.
    """
    best_round, best, num_since = 0, -1.0, 0
    for round_number, accuracy in evaluations:
        if stopping.target_accuracy is not None and accuracy >= stopping.target_accuracy:
            return (
                f"validation accuracy {accuracy:.4g} of round {round_number} has reached stopping.target_accuracy = "
                f"{stopping.target_accuracy}"
            )
        if accuracy > best and accuracy - best >= stopping.min_improvement - _ROUNDING:
            best_round, best, num_since = round_number, accuracy, 0
        else:
            num_since += 1
        if num_since == stopping.patience:
            by = f" by {stopping.min_improvement}" if stopping.min_improvement else ""
            return (
                f"the last {num_since} evaluations, up to round {round_number}, are not better{by} than validation "
                f"accuracy {best:.4g} of round {best_round} (stopping.patience = {stopping.patience})"
            )
    return None


def evaluations_until(project: Path, experiment: str, round_number: int) -> list[Evaluation]:
    """The evaluations up to a finished round, in order; empty where the round has no learning curve on disk.

    Args:
        project: the project's root.
        experiment: its name.
        round_number: 0 or more.
    """
    import pyarrow.parquet as pq

    folder = project / "data/08_reporting/learning_curve" / f"experiment={experiment}" / f"round={round_number:04d}"
    file = folder / "learning_curve.parquet"
    if not file.is_file():
        return []
    # Not by way of the folder, which would add columns for `name=value` in the path.
    rows = pq.ParquetFile(file).read(columns=["curve_round", "validation_accuracy"]).to_pylist()
    return [(row["curve_round"], row["validation_accuracy"]) for row in rows if row["validation_accuracy"] is not None]
