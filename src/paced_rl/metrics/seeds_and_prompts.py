"""Uncertainty of figures over training seeds and test prompts together.

Two sources of luck: which seed an experiment had, and which prompts it was tested on. Every seed brings prompts of its
own, so prompts are nested in seeds. Arms of one seed share their prompts and random numbers, so their differences are
taken within seed and prompt before anything is averaged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from paced_rl.metrics.bootstrap import Interval

_MAX_WEIGHTS = 2**22
"""Weights drawn at once: 32 MiB."""

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A figure that is a sum over prompts divided by another one: of one seed, for A arms and E evaluations.

    A mean over prompts has ones below, or zeros for prompts without a value; distinct answers per solved prompt have
    answers above and whether it was solved below.
    """

    above: Float[np.ndarray, "A E P"]
    below: Float[np.ndarray, "A E P"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resamples:
    """B redraws of seeds and, within each drawn seed, of prompts."""

    figures: Mapping[str, Float[np.ndarray, "B A E"]]
    """Mean over the drawn seeds of each ratio."""
    seed_shares: Float[np.ndarray, "B S"]
    """How often each seed was drawn, as a share: for figures that a seed has as a whole, such as tokens."""


def mean_over_seeds(ratios: Sequence[Ratio]) -> Float[np.ndarray, "A E"]:
    """The figure itself: each seed's ratio, averaged over seeds with equal weight."""
    return np.mean([ratio.above.sum(axis=-1) / _nonzero(ratio.below.sum(axis=-1)) for ratio in ratios], axis=0)


def resample(
    ratios: Mapping[str, Sequence[Ratio]], *, generator: np.random.Generator, num_resamples: int = 2000
) -> Resamples:
    """Bootstrap over seeds and prompts: seeds are drawn with replacement, then prompts within each drawn seed.

    All arms, evaluations and figures see the same draws, so that differences between them are paired. With S seeds the
    spread between seeds comes out too small by (S − 1)/S, and the luck of the prompts is counted a second time beside
    the part of it that already is in that spread: with three seeds such an interval is too narrow where seeds differ
    much, and too wide where prompts do. `interval_over_seeds` has neither fault, but only for plain means.

    Args:
        ratios: name → one ratio per seed; all of equal A and E, and of equal P within a seed.
        generator: where the draws come from; it is advanced.
        num_resamples: B, at least 1.

    Raises:
        ValueError: there are no seeds, or a seed has no prompts.
    """
    seeds = next(iter(ratios.values()))
    sizes = [ratio.above.shape[-1] for ratio in seeds]
    if not sizes or min(sizes) == 0:
        raise ValueError(f"resample: prompts per seed {sizes}, must be at least one seed with at least one prompt each")
    num_seeds = len(sizes)
    drawn = generator.integers(num_seeds, size=(num_resamples, num_seeds))
    shape = (num_resamples, *seeds[0].above.shape[:2])
    figures = {name: np.zeros(shape) for name in ratios}
    for place in range(num_seeds):
        for seed, size in enumerate(sizes):
            rows = np.flatnonzero(drawn[:, place] == seed)
            for chunk in np.array_split(rows, max(1, -(-len(rows) * size // _MAX_WEIGHTS))):
                weights = generator.multinomial(size, np.full(size, 1 / size), size=len(chunk)).astype(np.float64)
                for name, of_seeds in ratios.items():
                    above, below = (_weighted(weights, part) for part in (of_seeds[seed].above, of_seeds[seed].below))
                    figures[name][chunk] += above / _nonzero(below) / num_seeds
    shares = np.stack([(drawn == seed).mean(axis=1) for seed in range(num_seeds)], axis=1)
    return Resamples(figures=figures, seed_shares=shares)


def percentile_interval(estimate: float, resampled: Float[np.ndarray, "B"]) -> Interval:
    """The central 95 % of resampled values around an estimate.

    A resample without a value (NaN) could have been anything: it counts as minus infinity for the lower end and as
    infinity for the upper one. Ends may be infinite.
    """
    tail = (1 - CONFIDENCE) / 2
    is_unknown = np.isnan(resampled)
    # Not interpolated: between a number and infinity there is nothing.
    low = np.quantile(np.where(is_unknown, -np.inf, resampled), tail, method="lower")
    high = np.quantile(np.where(is_unknown, np.inf, resampled), 1 - tail, method="higher")
    return Interval(mean=estimate, low=float(low), high=float(high))


def interval_over_seeds(values: Float[np.ndarray, "S"]) -> Interval:
    """Student's interval for a mean of one number per seed: mean ± t(S − 1) · s / √S.

    The number of a seed already holds the luck of its prompts. Exact for normal numbers, however few; three seeds make
    it wide (t = 4.3), and one seed leaves it without ends (NaN).

    Args:
        values: e.g. the difference of two arms, averaged over the prompts of each seed.
    """
    mean, size = float(np.mean(values)), len(values)
    if size < 2:
        return Interval(mean=mean, low=float("nan"), high=float("nan"))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, size - 1) * np.std(values, ddof=1) / np.sqrt(size))
    return Interval(mean=mean, low=mean - half, high=mean + half)


def _weighted(weights: Float[np.ndarray, "b P"], part: Float[np.ndarray, "A E P"]) -> Float[np.ndarray, "b A E"]:
    arms, evaluations, size = part.shape
    return (weights @ part.reshape(-1, size).T).reshape(len(weights), arms, evaluations)


def _nonzero(below: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.where(below > 0, below, np.nan)
