"""Accuracy of the arms of a study, side by side: figures in, rows out; every formula is in `paced_rl.metrics`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from paced_rl.metrics.diversity import pass_at_k_slope
from paced_rl.metrics.seeds_and_prompts import (
    Ratio,
    Resamples,
    interval_over_seeds,
    mean_over_seeds,
    percentile_interval,
    resample,
)
from paced_rl.seeds import derive_generator
from paced_rl.studies.panels import HEADLINE, StudyResults, panel

UNIFORM, ORACLE = "uniform", "oracle"


def baseline_of(results: StudyResults) -> str:
    """The arm that the others are compared with."""
    named = results.plan.report.baseline
    return named or _with_selector(results, UNIFORM) or results.plan.arms[0].name


def oracle_of(results: StudyResults) -> str | None:
    """The arm that measures its candidates before it chooses."""
    return results.plan.report.oracle or _with_selector(results, ORACLE)


def _with_selector(results: StudyResults, selector: str) -> str | None:
    arms = results.plan.arms
    return next((arm.name for arm in arms if arm.params.get("scheduling", {}).get("selector") == selector), None)


def resampled(results: StudyResults, ratios: Mapping[str, Sequence[Ratio]], *labels: str) -> Resamples:
    """Redraws of seeds and prompts, the same ones whenever they are asked for under the same labels."""
    generator = derive_generator(0, "study", results.plan.name, *labels)
    return resample(ratios, generator=generator, num_resamples=results.plan.report.num_resamples)


def learning_curves(results: StudyResults) -> pd.DataFrame:
    """One row per arm and evaluated round: test accuracy with its interval, costs so far, diversity."""
    rows = []
    for arm in results.arms:
        if (alone := panel(results, [arm])) is None:
            continue
        figures = alone.figures()
        means = {name: mean_over_seeds(ratios)[0] for name, ratios in figures.items()}
        drawn = resampled(results, figures, "curve", arm).figures["accuracy"][:, 0]
        for place, number in enumerate(alone.rounds):
            interval = percentile_interval(float(means["accuracy"][place]), drawn[:, place])
            rows.append(
                {
                    "arm": arm,
                    "round": int(number),
                    "tokens_sampled": float(alone.tokens[0, :, place].mean()),
                    "seconds": float(alone.seconds[0, :, place].mean()),
                    "accuracy": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "distinct_correct_per_solved_prompt": float(means["distinct"][place]),
                    "pass_at_k": float(means["pass_at_k"][place]),
                    "k": alone.max_k,
                    "num_seeds": len(alone.seeds),
                }
            )
    return pd.DataFrame(rows)


def headline(results: StudyResults) -> pd.DataFrame:
    """One row per arm: test accuracy of the chosen checkpoint, of the last, mean over evaluations; and against the
    baseline, with both kinds of interval and one difference per seed."""
    rows = []
    baseline = baseline_of(results)
    for arm in results.arms:
        if (alone := panel(results, [arm])) is None:
            continue
        own = alone.headline()
        drawn = resampled(results, {"accuracy": own}, "headline", arm).figures["accuracy"][:, 0]
        estimates = mean_over_seeds(own)[0]
        differences = paired_differences(results, arm, baseline)
        for place, measure in enumerate(HEADLINE):
            interval = percentile_interval(float(estimates[place]), drawn[:, place])
            rows.append(
                {
                    "arm": arm,
                    "measure": measure,
                    "accuracy": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "num_seeds": len(alone.seeds),
                    **differences.get(measure, {}),
                }
            )
    return pd.DataFrame(rows)


def paired_differences(results: StudyResults, arm: str, reference: str) -> dict[str, dict[str, Any]]:
    """Measure → difference of an arm from another, paired by seed and prompt; empty where nothing pairs."""
    pair = panel(results, [reference, arm]) if arm != reference else None
    if pair is None:
        return {}
    ratios = pair.headline()
    drawn = resampled(results, {"accuracy": ratios}, "difference", *pair.arms).figures["accuracy"]
    per_seed = np.array([(r.above.sum(axis=-1) / r.below.sum(axis=-1)) for r in ratios])  # [S, A, 3]
    found = {}
    for place, measure in enumerate(HEADLINE):
        by_seed = per_seed[:, 1, place] - per_seed[:, 0, place]
        bootstrap = percentile_interval(float(by_seed.mean()), drawn[:, 1, place] - drawn[:, 0, place])
        student = interval_over_seeds(by_seed)
        found[measure] = {
            "difference": bootstrap.mean,
            "difference_low": bootstrap.low,
            "difference_high": bootstrap.high,
            "difference_low_over_seeds": student.low,
            "difference_high_over_seeds": student.high,
            "difference_by_seed": by_seed.tolist(),
            "num_paired_seeds": len(pair.seeds),
        }
    return found


def pass_curves(results: StudyResults) -> pd.DataFrame:
    """One row per arm and k: pass@k of the chosen checkpoint with its interval, and the slope in log k."""
    rows = []
    for arm in results.arms:
        if (alone := panel(results, [arm])) is None:
            continue
        ratios = alone.pass_curves()
        estimates = mean_over_seeds(ratios)[0]
        drawn = resampled(results, {"pass": ratios}, "pass", arm).figures["pass"][:, 0]
        slope = percentile_interval(float(pass_at_k_slope(estimates)), pass_at_k_slope(drawn))
        for place, estimate in enumerate(estimates):
            interval = percentile_interval(float(estimate), drawn[:, place])
            rows.append(
                {
                    "arm": arm,
                    "k": place + 1,
                    "pass_at_k": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "slope": slope.mean,
                    "slope_low": slope.low,
                    "slope_high": slope.high,
                    "num_seeds": len(alone.seeds),
                }
            )
    return pd.DataFrame(rows)
