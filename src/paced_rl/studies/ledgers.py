"""The tables of a study's report that look at each arm by itself: its progress, its costs, its estimates."""

import numpy as np
import pandas as pd

from paced_rl.metrics.bootstrap import bootstrap_mean
from paced_rl.metrics.calibration import (
    binomial_floor,
    brier_score,
    expected_calibration_error,
    mean_absolute_error,
    spearman_rank_correlation,
)
from paced_rl.seeds import derive_generator
from paced_rl.stages import STAGES, START_STAGES
from paced_rl.studies.panels import StudyResults

NUM_RANGES = 3
"""Stretches of rounds that calibration is shown for: early, middle, late."""

FINISHED, UNFINISHED, MISSING = "finished", "unfinished", "missing"

TOKENS = ("tokens_sampled", "tokens_trained", "tokens_evaluated", "tokens_measured")


def progress(results: StudyResults) -> pd.DataFrame:
    """One row per experiment of the study: how far it has come."""
    rows = []
    for arm in results.plan.arms:
        finished = {experiment.seed for experiment in results.finished(arm.name)}
        for seed in results.plan.seeds:
            found = results.experiments.get((arm.name, seed))
            state = MISSING if found is None else FINISHED if seed in finished else UNFINISHED
            rows.append(
                {
                    "experiment": results.plan.experiment(arm.name, seed),
                    "arm": arm.name,
                    "seed": seed,
                    "state": state,
                    "last_round": found.last_round if found is not None else 0,
                    "last_evaluated_round": int(found.evaluations.rounds.max()) if found is not None else None,
                }
            )
    return pd.DataFrame(rows)


def costs(results: StudyResults) -> pd.DataFrame:
    """One row per arm: tokens and seconds per stage up to the horizon, means over its finished experiments."""
    rows = []
    for arm in results.arms:
        totals = []
        for experiment in results.finished(arm):
            until = experiment.costs[experiment.costs.index <= results.horizon]
            stages = [stage for stage in STAGES if stage in until and stage not in START_STAGES]
            seconds = {f"seconds_{stage}": float(until[stage].sum()) for stage in stages}
            totals.append({**{name: float(until[name].sum()) for name in TOKENS}, **seconds})
        means = pd.DataFrame(totals).mean().to_dict()
        rows.append({"arm": arm, "num_seeds": len(totals), **means})
    return pd.DataFrame(rows)


def calibration(results: StudyResults) -> pd.DataFrame:
    """One row per arm and stretch of rounds: how wrong its estimates were on prompts that were drawn uniformly.

    All finished seeds together. The interval of the mean absolute error is over groups: it covers the luck of prompts
    and completions, and not that of seeds.
    """
    rows = []
    ranges = np.array_split(np.arange(1, results.horizon + 1), min(NUM_RANGES, max(1, results.horizon)))
    for arm in results.arms:
        outcomes = pd.concat([experiment.uniform_outcomes for experiment in results.finished(arm)], ignore_index=True)
        for rounds in filter(len, ranges):
            within = outcomes[outcomes["scheduled_round"].between(rounds[0], rounds[-1])]
            row = {"arm": arm, "first_round": int(rounds[0]), "last_round": int(rounds[-1]), "num_groups": len(within)}
            rows.append(row | (_errors(within, arm, int(rounds[0])) if len(within) else {}))
    return pd.DataFrame(rows)


def _errors(outcomes: pd.DataFrame, *labels: str | int) -> dict[str, float]:
    estimates = outcomes["estimated_accuracy"].to_numpy(dtype=np.float64)
    correct, scored = (outcomes[name].to_numpy(dtype=np.int64) for name in ("num_correct", "num_scored"))
    interval = bootstrap_mean(np.abs(correct / scored - estimates), generator=derive_generator(0, "study", *labels))
    return {
        "mean_absolute_error": mean_absolute_error(estimates, correct, scored),
        "low": interval.low,
        "high": interval.high,
        "binomial_floor": binomial_floor(estimates, scored),
        "brier_score": brier_score(estimates, correct, scored),
        "expected_calibration_error": expected_calibration_error(estimates, correct, scored),
        "rank_correlation": spearman_rank_correlation(estimates, correct, scored),
    }
