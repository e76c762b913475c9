"""What each arm of a study needs until it reaches an accuracy, and how diverse it is there."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from paced_rl.metrics.learning_curves import first_crossing, monotone, relative_saving, value_at
from paced_rl.metrics.seeds_and_prompts import mean_over_seeds, percentile_interval
from paced_rl.studies.comparisons import baseline_of, oracle_of, resampled
from paced_rl.studies.panels import Panel, StudyResults, panel

LEVELS = (0.5, 0.75, 0.9)
"""Accuracies whose cost is compared unless the study names some: shares of the baseline's way up."""

_DIVERSITY = ("distinct", "pass_at_k")

_MAX_SHARE_UNREACHED = 0.2
"""Of the resamples: diversity at an accuracy is compared where both arms get there, unless that leaves out more."""


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


def costs_to_reach(results: StudyResults) -> pd.DataFrame:
    """One row per arm and accuracy: tokens and rounds until it is reached, the saving against the baseline, the share
    of the oracle's saving, and diversity at that accuracy."""
    baseline, oracle = baseline_of(results), oracle_of(results)
    rows = []
    for arm in results.arms:
        together = panel(results, list(dict.fromkeys([arm, baseline])))
        if together is None:
            continue
        race, has_oracle = _Race(results, together), oracle in results.arms and arm not in (oracle, baseline)
        with_oracle = panel(results, [arm, baseline, str(oracle)]) if has_oracle else None
        against_oracle = _Race(results, with_oracle) if with_oracle is not None else None
        for level in levels_of(results):
            row = {"arm": arm, "accuracy": level, "num_seeds": len(together.seeds)}
            row |= dict(_cost(race.to(level)))
            if len(together.arms) > 1:
                row |= dict(_comparison(race.to(level)))
            if against_oracle is not None:
                row |= _share(against_oracle.to(level))
            rows.append(row)
    return pd.DataFrame(rows)


class _Race:
    """Learning curves of a few arms, as they are and as they come out in every resample."""

    def __init__(self, results: StudyResults, panel: Panel) -> None:
        self.panel, figures = panel, panel.figures()
        drawn = resampled(results, figures, "race", *panel.arms)
        self.means = {name: mean_over_seeds(ratios) for name, ratios in figures.items()}  # [A, E]
        self.drawn = drawn.figures  # [B, A, E]
        self.by_seed = np.array([ratio.above.sum(axis=-1) / ratio.below.sum(axis=-1) for ratio in figures["accuracy"]])
        self.drawn_tokens = np.einsum("bs,ase->bae", drawn.seed_shares, panel.tokens)

    def to(self, level: float) -> "_Finish":
        """Where the arms reach an accuracy."""
        return _Finish(self, level)


class _Finish:
    """Where the arms of a race reach an accuracy: as positions among its rounds."""

    def __init__(self, race: _Race, level: float) -> None:
        self.race = race
        self.position = first_crossing(race.means["accuracy"], level)  # [A]
        self.drawn = first_crossing(race.drawn["accuracy"], level)  # [B, A]
        self.by_seed = first_crossing(race.by_seed, level)  # [S, A]

    def saving(
        self, arm: int, against: int
    ) -> tuple[Float[np.ndarray, ""], Float[np.ndarray, "B"], Float[np.ndarray, "S"]]:
        """Of an arm against another: of the mean over seeds, in every resample, in each seed."""

        def saving(tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
            cost = value_at(tokens, positions)
            return relative_saving(cost[..., arm], cost[..., against], tokens[..., against, -1])

        tokens = self.race.panel.tokens
        return (
            saving(tokens.mean(axis=1), self.position),
            saving(self.race.drawn_tokens, self.drawn),
            saving(tokens.transpose(1, 0, 2), self.by_seed),
        )

    def diversity(self, name: str, arm: int) -> tuple[float, Float[np.ndarray, "B"]]:
        """A figure where an arm crosses the accuracy, as it is and in every resample; NaN where it does not."""
        race = self.race
        own, drawn = (
            np.where(np.isinf(positions), np.nan, value_at(curves, positions))
            for curves, positions in (
                (race.means[name][arm], self.position[arm]),
                (race.drawn[name][:, arm], self.drawn[:, arm]),
            )
        )
        return float(own), drawn


def _cost(finish: _Finish) -> Iterator[tuple[str, Any]]:
    """Columns about the first arm of a race by itself."""
    together = finish.race.panel
    tokens = float(value_at(together.tokens.mean(axis=1), finish.position)[0])
    drawn = value_at(finish.race.drawn_tokens, finish.drawn)[:, 0]
    interval = percentile_interval(tokens, drawn)
    yield from (("tokens", tokens), ("tokens_low", interval.low), ("tokens_high", interval.high))
    rounds = np.broadcast_to(together.rounds.astype(np.float64), (len(together.arms), len(together.rounds)))
    yield "rounds", float(value_at(rounds, finish.position)[0])
    yield "share_never", float(np.isinf(drawn).mean())
    yield "num_seeds_reached", int(np.isfinite(finish.by_seed[:, 0]).sum())
    for name in _DIVERSITY:
        yield name, finish.diversity(name, 0)[0]
    yield "k", together.max_k


def _comparison(finish: _Finish) -> Iterator[tuple[str, Any]]:
    """Columns about the first arm of a race beside the second, which is the baseline."""
    saving, savings, by_seed = finish.saving(0, 1)
    interval = percentile_interval(float(saving), savings)
    yield from (("saving", interval.mean), ("saving_low", interval.low), ("saving_high", interval.high))
    yield "is_baseline_censored", bool(np.isinf(finish.position[1]))
    yield "saving_by_seed", by_seed.tolist()
    for name in _DIVERSITY:
        (own, drawn), (baseline, drawn_baseline) = (finish.diversity(name, arm) for arm in (0, 1))
        differences = drawn - drawn_baseline
        is_known = np.isfinite(differences)
        # What these are is bounded and hardly depends on whether a resample gets there, unlike a saving.
        if is_known.mean() >= 1 - _MAX_SHARE_UNREACHED:
            differences = differences[is_known]
        interval = percentile_interval(own - baseline, differences)
        yield from ((f"{name}_difference", interval.mean), (f"{name}_low", interval.low))
        yield f"{name}_high", interval.high


def _share(finish: _Finish) -> dict[str, float]:
    """Which part of the oracle's saving the first arm of a race makes too; the arms are arm, baseline, oracle."""
    own, oracle = finish.saving(0, 1), finish.saving(2, 1)

    def share(own: np.ndarray, oracle: np.ndarray) -> np.ndarray:
        # Where the oracle saves nothing there is nothing to have a share of.
        return np.where(oracle > 0, own / np.where(oracle > 0, oracle, 1.0), np.nan)

    interval = percentile_interval(float(share(own[0], oracle[0])), share(own[1], oracle[1]))
    return {"oracle_share": interval.mean, "oracle_share_low": interval.low, "oracle_share_high": interval.high}
