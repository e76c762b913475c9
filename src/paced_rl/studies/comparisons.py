"""The tables of a study's report that compare arms: figures in, rows out; every formula is in `paced_rl.metrics`."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from paced_rl.metrics.diversity import pass_at_k_slope
from paced_rl.metrics.learning_curves import first_crossing, monotone, relative_saving, value_at
from paced_rl.metrics.seeds_and_prompts import (
    Resamples,
    interval_over_seeds,
    mean_over_seeds,
    percentile_interval,
    resample,
)
from paced_rl.seeds import derive_generator
from paced_rl.studies.panels import HEADLINE, Panel, StudyResults, panel

LEVELS = (0.5, 0.75, 0.9)
"""Accuracies whose cost is compared unless the study names some: shares of the baseline's way up."""

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


def levels_of(results: StudyResults) -> tuple[float, ...]:
    """The accuracies whose cost is compared."""
    if results.plan.report.accuracies:
        return results.plan.report.accuracies
    alone = panel(results, [baseline_of(results)])
    if alone is None:
        return ()
    curve = mean_over_seeds(alone.figures()["accuracy"])[0]
    start, best = float(curve[0]), float(monotone(curve)[-1])
    return tuple(round(start + share * (best - start), 3) for share in LEVELS) if best > start else ()


def _resampled(results: StudyResults, ratios: dict[str, Any], *labels: str) -> Resamples:
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
        drawn = _resampled(results, figures, "curve", arm).figures["accuracy"][:, 0]
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
        drawn = _resampled(results, {"accuracy": own}, "headline", arm).figures["accuracy"][:, 0]
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
    drawn = _resampled(results, {"accuracy": ratios}, "difference", *pair.arms).figures["accuracy"]
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


def costs_to_reach(results: StudyResults) -> pd.DataFrame:
    """One row per arm and accuracy: tokens and rounds until it is reached, the saving against the baseline, the share
    of the oracle's saving, and diversity at that accuracy."""
    baseline, oracle = baseline_of(results), oracle_of(results)
    rows = []
    for arm in results.arms:
        arms = list(dict.fromkeys([arm, baseline]))
        together = panel(results, arms)
        if together is None:
            continue
        with_oracle = (
            panel(results, [*arms, oracle]) if oracle in results.arms and arm not in (oracle, baseline) else None
        )
        for level in levels_of(results):
            row = {"arm": arm, "accuracy": level, "num_seeds": len(together.seeds), **_cost(results, together, level)}
            if with_oracle is not None:
                row |= _share(results, with_oracle, level)
            rows.append(row)
    return pd.DataFrame(rows)


class _Crossings:
    """Where arms cross an accuracy: of the mean over seeds, in every resample, and of each seed alone."""

    def __init__(self, results: StudyResults, panel: Panel, level: float) -> None:
        self.panel, figures = panel, panel.figures()
        self.drawn = _resampled(results, figures, "cost", *panel.arms)
        self.means = {name: mean_over_seeds(ratios) for name, ratios in figures.items()}
        by_seed = np.array([ratio.above.sum(axis=-1) / ratio.below.sum(axis=-1) for ratio in figures["accuracy"]])
        self.position = first_crossing(self.means["accuracy"], level)  # [A]
        self.positions = first_crossing(self.drawn.figures["accuracy"], level)  # [B, A]
        self.positions_by_seed = first_crossing(by_seed, level)  # [S, A]
        self.tokens = np.einsum("bs,ase->bae", self.drawn.seed_shares, panel.tokens)

    def saving(self, arm: int, against: int) -> tuple[float, Float[np.ndarray, "B"], Float[np.ndarray, "S"]]:
        """Of an arm against another: of the mean over seeds, in every resample, in each seed."""
        mean, by_seed = self.panel.tokens.mean(axis=1), self.panel.tokens.transpose(1, 0, 2)

        def saving(tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
            cost = value_at(tokens, positions)
            return relative_saving(cost[..., arm], cost[..., against], tokens[..., against, -1])

        return (
            float(saving(mean, self.position)),
            saving(self.tokens, self.positions),
            saving(by_seed, self.positions_by_seed),
        )


def _cost(results: StudyResults, together: Panel, level: float) -> dict[str, Any]:
    """Of the panel's first arm; its second is the baseline, unless it is the first."""
    crossings = _Crossings(results, together, level)
    tokens = float(value_at(together.tokens.mean(axis=1), crossings.position)[0])
    drawn = value_at(crossings.tokens, crossings.positions)[:, 0]
    interval = percentile_interval(tokens, drawn)
    rounds = np.broadcast_to(together.rounds.astype(np.float64), together.tokens.mean(axis=1).shape)
    row = {
        "tokens": tokens,
        "tokens_low": interval.low,
        "tokens_high": interval.high,
        "rounds": float(value_at(rounds, crossings.position)[0]),
        "share_never": float(np.isinf(drawn).mean()),
        "num_seeds_reached": int(np.isfinite(crossings.positions_by_seed[:, 0]).sum()),
        **{name: _at(crossings, name, 0) for name in ("distinct", "pass_at_k")},
        "k": together.max_k,
    }
    if len(together.arms) == 1:
        return row
    saving, savings, by_seed = crossings.saving(0, 1)
    interval = percentile_interval(saving, savings)
    row |= {
        "saving": saving,
        "saving_low": interval.low,
        "saving_high": interval.high,
        "is_baseline_censored": bool(np.isinf(crossings.position[1])),
        "saving_by_seed": by_seed.tolist(),
    }
    for name in ("distinct", "pass_at_k"):
        difference = _at(crossings, name, 0) - _at(crossings, name, 1)
        at = [_values(crossings.drawn.figures[name][:, arm], crossings.positions[:, arm]) for arm in (0, 1)]
        interval = percentile_interval(difference, at[0] - at[1])
        row |= {f"{name}_difference": difference, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row


def _share(results: StudyResults, three: Panel, level: float) -> dict[str, Any]:
    """Which part of the oracle's saving the panel's first arm makes too; arms are arm, baseline, oracle."""
    crossings = _Crossings(results, three, level)
    own, oracle = crossings.saving(0, 1), crossings.saving(2, 1)

    def share(own: np.ndarray, oracle: np.ndarray) -> np.ndarray:
        # Where the oracle saves nothing there is nothing to have a share of.
        return np.where(oracle > 0, own / np.where(oracle > 0, oracle, 1.0), np.nan)

    estimate = float(share(np.asarray(own[0]), np.asarray(oracle[0])))
    interval = percentile_interval(estimate, share(own[1], oracle[1]))
    return {"oracle_share": estimate, "oracle_share_low": interval.low, "oracle_share_high": interval.high}


def _at(crossings: _Crossings, name: str, arm: int) -> float:
    return float(_values(crossings.means[name][arm], crossings.position[arm]))


def _values(curves: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """At the crossing; NaN where there is none."""
    values = value_at(curves, np.asarray(positions))
    return np.where(np.isinf(positions), np.nan, values)


def pass_curves(results: StudyResults) -> pd.DataFrame:
    """One row per arm and k: pass@k of the chosen checkpoint with its interval, and the slope in log k."""
    rows = []
    for arm in results.arms:
        if (alone := panel(results, [arm])) is None:
            continue
        ratios = alone.pass_curves()
        estimates = mean_over_seeds(ratios)[0]
        drawn = _resampled(results, {"pass": ratios}, "pass", arm).figures["pass"][:, 0]
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
