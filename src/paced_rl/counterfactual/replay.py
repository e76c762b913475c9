"""From rounds to a table: what each rule would have chosen was worth, over all rounds and by blocks of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from paced_rl.counterfactual.calibration import SCHEMA as CALIBRATION
from paced_rl.counterfactual.calibration import CalibrationSums, calibration_rows
from paced_rl.counterfactual.history import check_is_enough, read_rounds, source_of
from paced_rl.inspection.experiment import Experiment
from paced_rl.metrics.choices import COLUMNS, ReferenceRows, choice_measures, group_values, resampled_sums
from paced_rl.progress import progress_bar
from paced_rl.scheduling import SelectorSettings
from paced_rl.scheduling.counterfactual import (
    HINDSIGHT,
    ORACLE,
    RULES,
    UNIFORM,
    Choices,
    PastRound,
    ReplaySettings,
    replay,
)
from paced_rl.seeds import derive_generator

NUM_RESAMPLES = 400
"""Of the bootstrap: the ends of an interval move by about 5 % of its width."""
CONFIDENCE = 0.95

SCHEMA = pa.schema(
    [
        pa.field("is_total", pa.bool_(), nullable=False),  # over all rounds, or one block of them
        pa.field("first_round", pa.int32(), nullable=False),
        pa.field("last_round", pa.int32(), nullable=False),
        pa.field("num_prompts", pa.int32(), nullable=False),  # in the pools of these rounds
        pa.field("known_share", pa.float64(), nullable=False),  # of them, with an outcome to look back at
        pa.field("selector", pa.string(), nullable=False),
        pa.field("estimator", pa.string(), nullable=False),  # empty where the selector looks at none
        pa.field("measure", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
    ]
)
"""Of `counterfactual.parquet`. Figures that would not be honest are null."""

ROWS = ReferenceRows(
    uniform=RULES.index(UNIFORM),
    oracle=RULES.index(ORACLE),
    hindsight=RULES.index(HINDSIGHT),
)


@dataclass(slots=True, kw_only=True)
class _Block:
    """Sums over some rounds."""

    number: int
    rounds: list[int]
    sums: Float[np.ndarray, "resamples rules columns"]
    num_prompts: int
    num_known: int
    calibration: CalibrationSums


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What came out."""

    table: pa.Table
    """As `SCHEMA` says."""
    calibration: pa.Table
    """As `calibration.SCHEMA` says."""
    rounds: Sequence[int]
    """That had a pool."""
    pool_sizes: tuple[int, int]
    """Smallest and largest."""


def replay_experiment(experiment: Experiment, *, share: float, num_blocks: int) -> tuple[Replayed, ReplaySettings]:
    """Replays every rule on an experiment's rounds, under its parameters as they apply now.

    Raises:
        ExperimentError: it holds too few uniform rollouts, a table is damaged, or its log Z is no accuracy.
    """
    scheduling = experiment.parameters["scheduling"]
    settings = ReplaySettings(
        share=share,
        target_accuracy=scheduling.target_accuracy,
        experiment_seed=experiment.parameters["seed"],
        selectors=SelectorSettings(
            softening=scheduling.softening,
            outcome_half_life=scheduling.outcome_half_life,
            retest_share=scheduling.retest_share,
            retest_after=scheduling.retest_after,
        ),
    )
    source = source_of(experiment)
    with progress_bar("replay", len(source.rounds)) as advance:
        rounds = read_rounds(source, on_progress=advance)
        replayed = replay_rounds(rounds, settings, last_round=source.rounds[-1], num_blocks=num_blocks)
    check_is_enough(len(replayed.rounds), experiment.name)
    return replayed, settings


def replay_rounds(
    rounds: Iterable[PastRound], settings: ReplaySettings, *, last_round: int, num_blocks: int
) -> Replayed:
    """Replays every rule in one pass over the rounds.

    Args:
        rounds: in ascending order.
        settings: see `ReplaySettings`.
        last_round: number of the last one; blocks are equal parts of 1 … last_round.
        num_blocks: at least 1.
    """
    total, block = _empty_block(), _empty_block()
    rows: list[dict[str, Any]] = []
    calibration: list[dict[str, Any]] = []
    sizes: list[int] = []
    seed = settings.experiment_seed
    for past, choices in replay(rounds, settings):
        if choices is None:
            continue
        number = (past.round_number - 1) * num_blocks // last_round
        if block.rounds and number != block.number:
            rows += _rows(block, is_total=False)
            calibration += calibration_rows(block.calibration, seed=seed, is_total=False)
            block = _empty_block()
        block.number = number
        sums = _sums(past, choices, seed)
        outcomes = past.num_correct[past.is_pool], past.num_scored[past.is_pool]
        for part in (total, block):
            part.sums += sums
            part.rounds.append(past.round_number)
            part.num_prompts += len(choices.is_known)
            part.num_known += int(choices.is_known.sum())
            part.calibration.add(past.round_number, choices.estimates, *outcomes)
        sizes.append(len(choices.is_known))
    if sizes:
        rows = [*_rows(total, is_total=True), *rows, *_rows(block, is_total=False)]
        last = calibration_rows(block.calibration, seed=seed, is_total=False)
        calibration = [*calibration_rows(total.calibration, seed=seed, is_total=True), *calibration, *last]
    return Replayed(
        table=pa.Table.from_pylist(rows, schema=SCHEMA),
        calibration=pa.Table.from_pylist(calibration, schema=CALIBRATION),
        rounds=total.rounds,
        pool_sizes=(min(sizes, default=0), max(sizes, default=0)),
    )


def _empty_block() -> _Block:
    sums = np.zeros((1 + NUM_RESAMPLES, len(RULES), len(COLUMNS)))
    return _Block(number=0, rounds=[], sums=sums, num_prompts=0, num_known=0, calibration=CalibrationSums())


def _sums(past: PastRound, choices: Choices, seed: int) -> Float[np.ndarray, "resamples rules columns"]:
    pool = past.is_pool
    values = group_values(past.num_correct[pool], past.num_scored[pool], past.num_tokens[pool], choices.left_out_differ)
    return resampled_sums(
        choices.shares,
        values,
        num_resamples=NUM_RESAMPLES,
        generator=derive_generator(seed, "counterfactual_bootstrap", past.round_number),
    )


def _rows(block: _Block, *, is_total: bool) -> list[dict[str, Any]]:
    """One row per rule and measure."""
    measures = choice_measures(block.sums, ROWS)
    tail = (1 - CONFIDENCE) / 2
    ends = {name: np.quantile(values[1:], [tail, 1 - tail], axis=0) for name, values in measures.items()}
    if ends["regret"][0][ROWS.uniform] <= 0:
        # Where the oracle cannot be told from uniform, a share of the difference is a share of chance.
        for values in (measures["captured_headroom"], ends["captured_headroom"]):
            values[:] = np.nan
    common = {
        "is_total": is_total,
        "first_round": block.rounds[0],
        "last_round": block.rounds[-1],
        "num_prompts": block.num_prompts,
        "known_share": block.num_known / block.num_prompts,
    }
    return [
        {
            **common,
            "selector": selector,
            "estimator": estimator,
            "measure": name,
            "value": _finite(values[0, row]),
            "low": _finite(ends[name][0, row]),
            "high": _finite(ends[name][1, row]),
        }
        for row, (selector, estimator) in enumerate(RULES)
        for name, values in measures.items()
    ]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
