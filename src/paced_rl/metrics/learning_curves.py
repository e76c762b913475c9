"""What a learning curve cost: when an accuracy is first reached, and what that saves against another curve.

E evaluations in order, the first before any training. A measured curve goes up and down by luck, and its first crossing
of a level would be the luckiest evaluation and not the typical one. So crossings are read off the least-squares
non-decreasing fit, which averages such evaluations, joined by straight lines.
"""

import numpy as np
from jaxtyping import Float


def monotone(accuracies: Float[np.ndarray, "*B E"]) -> Float[np.ndarray, "*B E"]:
    """Least-squares non-decreasing fit of each curve (isotonic regression).

    fit_i = max_{j ≤ i} min_{k ≥ i} mean(accuracy_j … accuracy_k)

    The curve itself where it never falls. O(E²) numbers per curve, all curves at once.

    Source: Robertson, Wright, Dykstra, Order Restricted Statistical Inference (1988), theorem 1.4.4.

    Args:
        accuracies: curves; no NaN.
    """
    size = accuracies.shape[-1]
    sums = np.concatenate([np.zeros_like(accuracies[..., :1]), np.cumsum(accuracies, axis=-1)], axis=-1)
    first, last = np.arange(size)[:, np.newaxis], np.arange(size)[np.newaxis, :]
    lengths = np.maximum(last - first + 1, 1)
    means = (sums[..., np.newaxis, 1:] - sums[..., :-1, np.newaxis]) / lengths
    means = np.where(first <= last, means, np.inf)
    # [j, i] → the least mean of the stretches from j that end at i or later.
    least = np.flip(np.minimum.accumulate(np.flip(means, axis=-1), axis=-1), axis=-1)
    return np.where(first <= last, least, -np.inf).max(axis=-2)


def first_crossing(accuracies: Float[np.ndarray, "*B E"], level: float) -> Float[np.ndarray, "*B"]:
    """Where the monotone fit first reaches a level, as a position among the evaluations.

    2.5 is halfway between the third evaluation and the fourth; 0 is at the start; infinite where it never does.

    Args:
        accuracies: curves; no NaN.
        level: accuracy to reach.
    """
    fit = monotone(accuracies)
    is_reached = fit >= level
    after = np.argmax(is_reached, axis=-1)
    before = np.maximum(after - 1, 0)
    high = np.take_along_axis(fit, after[..., np.newaxis], axis=-1)[..., 0]
    low = np.take_along_axis(fit, before[..., np.newaxis], axis=-1)[..., 0]
    step = np.where(high > low, high - low, 1.0)
    position = np.where(after == 0, 0.0, before + np.clip((level - low) / step, 0, 1))
    return np.where(is_reached.any(axis=-1), position, np.inf)


def value_at(values: Float[np.ndarray, "*B E"], positions: Float[np.ndarray, "*B"]) -> Float[np.ndarray, "*B"]:
    """The values of curves at positions among their evaluations, on straight lines; infinite positions give infinity.

    Args:
        values: e.g. tokens sampled up to each evaluation.
        positions: from `first_crossing`.
    """
    last = values.shape[-1] - 1
    inside = np.clip(np.nan_to_num(positions, posinf=0.0), 0, last)
    before = np.floor(inside).astype(np.int64)
    after = np.minimum(before + 1, last)
    low = np.take_along_axis(values, before[..., np.newaxis], axis=-1)[..., 0]
    high = np.take_along_axis(values, after[..., np.newaxis], axis=-1)[..., 0]
    return np.where(np.isinf(positions), np.inf, low + (inside - before) * (high - low))


def relative_saving(
    cost: Float[np.ndarray, "*B"], baseline_cost: Float[np.ndarray, "*B"], baseline_spent: Float[np.ndarray, "*B"]
) -> Float[np.ndarray, "*B"]:
    """What reaching a level costs less than it costs the baseline, as a share of the latter.

    saving = 1 − cost / baseline's cost

    Where the baseline never gets there, all that it spent stands for its cost, so that the saving is at least this.
    Minus infinity where only the baseline gets there, NaN where neither does.

    Args:
        cost: of reaching the level; infinite if it never is.
        baseline_cost: the same of the baseline.
        baseline_spent: what the baseline spent in all.
    """
    is_reached, is_baseline = np.isfinite(cost), np.isfinite(baseline_cost)
    against = np.where(is_baseline, baseline_cost, baseline_spent)
    ratio = np.where(is_reached, cost, 0.0) / np.where(against > 0, against, np.nan)
    return np.where(is_reached, 1 - ratio, np.where(is_baseline, -np.inf, np.nan))
