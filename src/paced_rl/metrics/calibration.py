"""How far estimated accuracies can be trusted: on prompts drawn uniformly, never on those an estimate selected.

Every function takes one estimate and one group of completions per prompt, leaves out prompts without a scored
completion, and is NaN where none is left.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

NUM_BINS = 10
"""Of equal width over [0, 1]."""
BAND_PROBABILITY = 0.95

# β · (sigmoid/β) in float32 may miss [0, 1] by a last digit.
_ROUNDING = 1e-6
# An estimate this near to 0 or 1 is taken as 0 or 1: SciPy's binomial overflows for probabilities near 1e-307.
_NEGLIGIBLE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Prompts whose estimates fall into one interval, and what they turned out to be."""

    lower_edge: float
    """Included."""
    upper_edge: float
    """Not included, but for the last bin's 1."""
    num_prompts: int
    num_completions: int
    """Scored completions of these prompts; 0 where the bin is empty, and the fields below are NaN."""
    mean_estimate: float
    """Over completions, so that it is what `observed_accuracy` would be if every estimate were right."""
    observed_accuracy: float
    """Share of the completions that are correct."""
    band_low: float
    """Lower end of where `observed_accuracy` falls with 95 % if every estimate is right."""
    band_high: float
    """Upper end."""


def brier_score(
    estimates: Float[np.ndarray, "P"], num_correct: Int[np.ndarray, "P"], num_scored: Int[np.ndarray, "P"]
) -> float:
    """Mean over completions of (estimate − reward)²: 0 is perfect foresight, 0.25 is what a constant 0.5 scores.

    Args:
        estimates: accuracies in [0, 1].
        num_correct: completions with reward 1.
        num_scored: completions with a reward.

    Returns:
        The score, in [0, 1].

    Raises:
        ValueError: see `_checked`.
    """
    p, c, n = _checked(estimates, num_correct, num_scored)
    return _ratio(float(np.sum(c * (1 - p) ** 2 + (n - c) * p**2)), int(n.sum()))


def reliability_bins(
    estimates: Float[np.ndarray, "P"], num_correct: Int[np.ndarray, "P"], num_scored: Int[np.ndarray, "P"]
) -> tuple[ReliabilityBin, ...]:
    """The ten bars of a reliability diagram, each with the band it should stay in.

    The band is the central 95 % of Binomial(completions of the bin, mean estimate), in exact quantiles. The estimates
    within a bin differ a little, which only makes the true spread smaller: the band errs on the wide side.

    Args:
        estimates: accuracies in [0, 1].
        num_correct: completions with reward 1.
        num_scored: completions with a reward.

    Returns:
        `NUM_BINS` bins in ascending order, empty ones included.

    Raises:
        ValueError: see `_checked`.
    """
    p, c, n = _checked(estimates, num_correct, num_scored)
    # Not linspace, whose 0.30000000000000004 would put an estimate of 0.3 into the bin below.
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    bin_of_prompt = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, NUM_BINS - 1)
    in_bin = [bin_of_prompt == index for index in range(NUM_BINS)]
    totals = np.array([n[inside].sum() for inside in in_bin])
    means = [_ratio(float((n * p)[inside].sum()), int(total)) for inside, total in zip(in_bin, totals, strict=True)]
    tail = (1 - BAND_PROBABILITY) / 2
    # All at once, since each call of SciPy takes longer than its numbers.
    quantiles = np.asarray(stats.binom.ppf([[tail], [1 - tail]], totals, means), dtype=np.float64)
    bins = []
    for index, inside in enumerate(in_bin):
        total = int(totals[index])
        mean_estimate = means[index]
        band = quantiles[:, index] / total if total else np.full(2, np.nan)
        bins.append(
            ReliabilityBin(
                lower_edge=float(edges[index]),
                upper_edge=float(edges[index + 1]),
                num_prompts=int(inside.sum()),
                num_completions=total,
                mean_estimate=mean_estimate,
                observed_accuracy=_ratio(float(c[inside].sum()), total),
                band_low=float(band[0]),
                band_high=float(band[1]),
            )
        )
    return tuple(bins)


def expected_calibration_error(
    estimates: Float[np.ndarray, "P"], num_correct: Int[np.ndarray, "P"], num_scored: Int[np.ndarray, "P"]
) -> float:
    """Mean over completions of their bin's |observed accuracy − mean estimate|.

    Never 0 on a finite sample, even where every estimate is right: read it beside the bins' bands.

    Source: Guo et al., https://arxiv.org/abs/1706.04599, equation 3.

    Args:
        estimates: accuracies in [0, 1].
        num_correct: completions with reward 1.
        num_scored: completions with a reward.

    Returns:
        The error, in [0, 1].

    Raises:
        ValueError: see `_checked`.
    """
    filled = [b for b in reliability_bins(estimates, num_correct, num_scored) if b.num_completions]
    gaps = sum(b.num_completions * abs(b.observed_accuracy - b.mean_estimate) for b in filled)
    return _ratio(gaps, sum(b.num_completions for b in filled))


def mean_absolute_error(
    estimates: Float[np.ndarray, "P"], num_correct: Int[np.ndarray, "P"], num_scored: Int[np.ndarray, "P"]
) -> float:
    """Mean over prompts of |observed accuracy − estimate|; read it beside `binomial_floor`.

    Args:
        estimates: accuracies in [0, 1].
        num_correct: completions with reward 1.
        num_scored: completions with a reward.

    Returns:
        The error, in [0, 1].

    Raises:
        ValueError: see `_checked`.
    """
    p, c, n = _checked(estimates, num_correct, num_scored)
    return _ratio(float(np.abs(c / n - p).sum()), p.size)


def binomial_floor(estimates: Float[np.ndarray, "P"], num_scored: Int[np.ndarray, "P"]) -> float:
    """The `mean_absolute_error` that luck alone would cause if every estimate were right.

    floor = mean over prompts of E|X/n − p̂|,   X ~ Binomial(n, p̂), summed exactly over X = 0 … n

    About 0.14 for p̂ = 0.5 and n = 8, and 0 for p̂ = 0 or 1. Estimates that hug 0 and 1 have a low floor whether right or
    wrong, so that an error far above it says they are too sure.

    Args:
        estimates: accuracies in [0, 1].
        num_scored: completions with a reward.

    Returns:
        The floor, in [0, 1].

    Raises:
        ValueError: see `_checked`.
    """
    p, _, n = _checked(estimates, np.zeros_like(num_scored), num_scored)
    total = 0.0
    for size in np.unique(n):
        p_of_size = p[n == size]
        outcomes = np.arange(size + 1)[:, np.newaxis]
        total += float(np.sum(stats.binom.pmf(outcomes, size, p_of_size) * np.abs(outcomes / size - p_of_size)))
    return _ratio(total, p.size)


def spearman_rank_correlation(
    estimates: Float[np.ndarray, "P"], num_correct: Int[np.ndarray, "P"], num_scored: Int[np.ndarray, "P"]
) -> float:
    """How well the estimates order the prompts by observed accuracy; ties share their mean rank.

    NaN where there is no order to compare: all estimates alike (an untrained head), all observed accuracies alike, or
    fewer than two prompts.

    Args:
        estimates: accuracies in [0, 1].
        num_correct: completions with reward 1.
        num_scored: completions with a reward.

    Returns:
        The correlation of the ranks, in [−1, 1], or NaN.

    Raises:
        ValueError: see `_checked`.
    """
    p, c, n = _checked(estimates, num_correct, num_scored)
    observed = c / n
    if p.size == 0 or np.all(p == p[0]) or np.all(observed == observed[0]):
        return float("nan")
    return float(np.corrcoef(stats.rankdata(p), stats.rankdata(observed))[0, 1])


def _checked(
    estimates: Float[np.ndarray, "P"], num_correct: Int[np.ndarray, "P"], num_scored: Int[np.ndarray, "P"]
) -> tuple[Float[np.ndarray, "Q"], Int[np.ndarray, "Q"], Int[np.ndarray, "Q"]]:
    """The same three arrays, of the prompts that have a scored completion.

    Raises:
        ValueError: the arrays differ in shape, an estimate is outside [0, 1], or a count is outside 0 … num_scored.
    """
    p, c, n = np.asarray(estimates, np.float64), np.asarray(num_correct), np.asarray(num_scored)
    if p.ndim != 1 or not p.shape == c.shape == n.shape:
        raise ValueError(
            f"calibration: estimates {p.shape}, num_correct {c.shape} and num_scored {n.shape} must be one-dimensional "
            "and of one length: one entry per prompt"
        )
    outside = ~((p >= -_ROUNDING) & (p <= 1 + _ROUNDING))
    if outside.any():
        raise ValueError(
            f"calibration: estimate {p[outside][0]} at position {int(np.argmax(outside))}, must be in [0, 1]. An "
            "estimate is an accuracy, reward_temperature · log_z, not log_z itself"
        )
    outside = (c < 0) | (c > n)
    if outside.any():
        raise ValueError(
            f"calibration: num_correct = {c[outside][0]} of num_scored = {n[outside][0]} at position "
            f"{int(np.argmax(outside))}, must be in 0 … num_scored"
        )
    p = np.where(p < _NEGLIGIBLE, 0.0, np.where(p > 1 - _NEGLIGIBLE, 1.0, p))
    is_scored = n > 0
    return p[is_scored], c[is_scored], n[is_scored]


def _ratio(numerator: float, denominator: int) -> float:
    """numerator / denominator, NaN where there is nothing to average."""
    return numerator / denominator if denominator else float("nan")
