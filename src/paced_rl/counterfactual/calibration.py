"""How good each estimator was on uniformly drawn groups, before it could have seen them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from paced_rl.metrics.bootstrap import bootstrap_mean
from paced_rl.metrics.calibration import (
    binomial_floor,
    brier_score,
    expected_calibration_error,
    mean_absolute_error,
    spearman_rank_correlation,
)
from paced_rl.seeds import derive_generator

SCHEMA = pa.schema(
    [
        pa.field("is_total", pa.bool_(), nullable=False),  # over all rounds, or one block of them
        pa.field("first_round", pa.int32(), nullable=False),
        pa.field("last_round", pa.int32(), nullable=False),
        pa.field("num_groups", pa.int32(), nullable=False),
        pa.field("estimator", pa.string(), nullable=False),
        pa.field("mean_absolute_error", pa.float64(), nullable=False),
        pa.field("mean_absolute_error_low", pa.float64(), nullable=False),  # 95 %, bootstrap over groups
        pa.field("mean_absolute_error_high", pa.float64(), nullable=False),
        pa.field("binomial_floor", pa.float64(), nullable=False),  # the error that luck alone would cause
        pa.field("brier_score", pa.float64(), nullable=False),
        pa.field("expected_calibration_error", pa.float64(), nullable=False),
        pa.field("rank_correlation", pa.float64()),  # null where all estimates are alike
    ]
)
"""Of `calibration.parquet`."""


@dataclass(slots=True)
class CalibrationSums:
    """Estimates and outcomes of some rounds: five numbers a group, since ranks and bins need them all at once."""

    rounds: list[int] = field(default_factory=list)
    estimates: defaultdict[str, list[Float[np.ndarray, " num_pool"]]] = field(default_factory=lambda: defaultdict(list))
    num_correct: list[Int[np.ndarray, " num_pool"]] = field(default_factory=list)
    num_scored: list[Int[np.ndarray, " num_pool"]] = field(default_factory=list)

    def add(
        self,
        round_number: int,
        estimates: Mapping[str, Float[np.ndarray, " num_pool"]],
        num_correct: Int[np.ndarray, " num_pool"],
        num_scored: Int[np.ndarray, " num_pool"],
    ) -> None:
        """Takes in one round's pool."""
        self.rounds.append(round_number)
        self.num_correct.append(num_correct)
        self.num_scored.append(num_scored)
        for name, values in estimates.items():
            self.estimates[name].append(values)


def calibration_rows(sums: CalibrationSums, *, seed: int, is_total: bool) -> Iterator[dict[str, Any]]:
    """One row of `SCHEMA` per estimator; none without rounds."""
    if not sums.rounds:
        return
    correct, scored = np.concatenate(sums.num_correct), np.concatenate(sums.num_scored)
    for name, parts in sums.estimates.items():
        estimates = np.concatenate(parts)
        # The same resamples for every estimator, so that their intervals move together.
        generator = derive_generator(seed, "counterfactual_calibration", sums.rounds[0])
        error = bootstrap_mean(np.abs(correct / scored - estimates), generator=generator)
        correlation = spearman_rank_correlation(estimates, correct, scored)
        yield {
            "is_total": is_total,
            "first_round": sums.rounds[0],
            "last_round": sums.rounds[-1],
            "num_groups": len(correct),
            "estimator": name,
            "mean_absolute_error": mean_absolute_error(estimates, correct, scored),
            "mean_absolute_error_low": error.low,
            "mean_absolute_error_high": error.high,
            "binomial_floor": binomial_floor(estimates, scored),
            "brier_score": brier_score(estimates, correct, scored),
            "expected_calibration_error": expected_calibration_error(estimates, correct, scored),
            "rank_correlation": correlation if np.isfinite(correlation) else None,
        }


def calibration_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The table in Markdown, all rounds together first."""
    yield "| rounds | estimator | groups | mean abs error | if exact | Brier | ECE | rank correlation |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        correlation = row["rank_correlation"]
        yield (
            f"| {row['first_round']} to {row['last_round']} | {row['estimator']} | {row['num_groups']} "
            f"| {row['mean_absolute_error']:.3f} [{row['mean_absolute_error_low']:.3f}, "
            f"{row['mean_absolute_error_high']:.3f}] | {row['binomial_floor']:.3f} | {row['brier_score']:.3f} "
            f"| {row['expected_calibration_error']:.3f} | {'–' if correlation is None else f'{correlation:.2f}'} |"
        )
