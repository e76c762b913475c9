"""Which prompts to take: nearest to a target accuracy, or uniformly by epochs."""

import numpy as np
from jaxtyping import Float, Int

from paced_rl.seeds import derive_generator


def require_finite(estimates: Float[np.ndarray, " num_prompts_total"]) -> None:
    """Refuse estimates that cannot be ranked.

    Raises:
        ValueError: some estimate is NaN or infinite; says how many and where the first are.
    """
    positions = np.flatnonzero(~np.isfinite(estimates))
    if positions.size:
        raise ValueError(
            f"{positions.size} of {len(estimates)} accuracy estimates are not finite, first at indices "
            f"{positions[:5].tolist()}: the head that made them has diverged; lower training.log_z_learning_rate"
        )


def nearest(
    estimates: Float[np.ndarray, " num_prompts_total"], *, target_accuracy: float, num_prompts: int
) -> Int[np.ndarray, " num_prompts"]:
    """The prompts whose estimate is nearest to the target: the `num_prompts` smallest |estimate − target|.

    One linear partial selection, then a sort of the selected ones only.

    Source: prompt selection of https://arxiv.org/abs/2602.12642, τ = 0.5.
    Trap: the prompts it returns are those whose estimates err towards the target, so calibration measured on them is
    worse than on uniformly drawn ones.

    Args:
        estimates: [num_prompts_total], estimated accuracies.
        target_accuracy: τ.
        num_prompts: how many to take.

    Returns:
        Indices into `estimates`, nearest first; equal distances by lower index, at the boundary too.

    Raises:
        ValueError: an estimate is not finite, or `num_prompts` is negative or above the number of estimates.
    """
    require_finite(estimates)
    if not 0 <= num_prompts <= len(estimates):
        raise ValueError(f"num_prompts = {num_prompts}: it must lie in [0, {len(estimates)}], the number of estimates")
    if num_prompts == 0:
        return np.empty(0, dtype=np.int64)
    distances = np.abs(np.asarray(estimates, dtype=np.float64) - target_accuracy)
    # The partition finds the boundary distance; which of several prompts at exactly that distance argpartition would
    # keep is unspecified, so they are taken explicitly, by index.
    boundary = np.partition(distances, num_prompts - 1)[num_prompts - 1]
    inside = np.flatnonzero(distances < boundary)
    on_boundary = np.flatnonzero(distances == boundary)[: num_prompts - inside.size]
    selected = np.concatenate([inside, on_boundary])
    return selected[np.lexsort((selected, distances[selected]))]


def uniform_positions(
    num_prompts_total: int, *, experiment_seed: int, stream: str, start: int, count: int
) -> Int[np.ndarray, " count"]:
    """Uniform draws without replacement, epoch after epoch: positions [start, start + count) of an endless sequence.

    The sequence is a concatenation of independent uniform permutations of all prompts, one per epoch, each a function
    of (experiment_seed, stream, epoch) alone: no state is kept, and any call can be recomputed on its own.

    Where a call straddles two epochs, a prompt could be in both halves. So each epoch after the first is reordered at
    its head: with calls of `count` draws at start, start ± count, start ± 2·count …, let `tail` be the prompts that
    the straddling call takes from the end of the previous epoch. Prompts of `tail` are passed over while that call is
    filled, and come immediately after it. Hence
    - no prompt twice in one call;
    - every epoch stays a permutation, so calls that tile the sequence (round r starts at (r − 1)·count) draw every
      prompt exactly once per epoch;
    - each draw stays uniform over all prompts, because the rule treats all prompts alike.
    When `count` changes between calls, each call is still free of repeats, and a few prompts around an epoch's
    boundary may be drawn twice or not at all in that epoch.

    Cost: two or three permutations, whatever `start`, unless `count` is above half of all prompts, where the
    reordering reaches back through earlier epochs.

    Args:
        num_prompts_total: number of prompts, N.
        experiment_seed: the one seed a user sets.
        stream: name of the sequence.
        start: first position, counted from 0.
        count: number of draws, at most N.

    Returns:
        Indices in [0, N), all different.

    Raises:
        ValueError: `count` is above `num_prompts_total`, or a number is negative.
    """
    if start < 0 or count < 0:
        raise ValueError(f"start = {start} and count = {count}: neither may be negative")
    if count > num_prompts_total:
        raise ValueError(
            f"count = {count} is above num_prompts_total = {num_prompts_total}: a draw without replacement holds each "
            "prompt once at most; draw fewer or provide more prompts"
        )
    if count == 0:
        return np.empty(0, dtype=np.int64)

    def permutation(epoch: int) -> Int[np.ndarray, " num_prompts_total"]:
        return derive_generator(experiment_seed, stream, "epoch", epoch).permutation(num_prompts_total)

    def tail_length(epoch: int) -> int:
        """Draws from the end of the epoch before that share a call with the beginning of `epoch`."""
        return (epoch * num_prompts_total - start) % count if epoch > 0 else 0

    first, last = start // num_prompts_total, (start + count - 1) // num_prompts_total
    # Only the first `count` places of an epoch are ever reordered, so the tail of an epoch of 2·count prompts or more
    # is known without looking further back. In a shorter one, go back to an epoch that no call straddles into.
    epoch = first
    while tail_length(epoch) > 0:
        epoch -= 1
        if num_prompts_total >= 2 * count:
            break
    order = permutation(epoch)
    orders = [order]
    while epoch < last:
        epoch += 1
        order = _defer_repeats(permutation(epoch), order[num_prompts_total - tail_length(epoch) :], count)
        orders.append(order)
    sequence = np.concatenate(orders[-(last - first + 1) :])
    return sequence[start - first * num_prompts_total :][:count]


def _defer_repeats(
    order: Int[np.ndarray, " num_prompts_total"], tail: Int[np.ndarray, " tail"], count: int
) -> Int[np.ndarray, " num_prompts_total"]:
    """`order` with its first `count` places rearranged: first count − len(tail) prompts outside `tail`, then the rest.

    Enough prompts outside `tail` exist among those places, because at most len(tail) of them are in it.
    """
    head = order[:count]
    fresh = np.flatnonzero(~np.isin(head, tail))[: count - len(tail)]
    return np.concatenate([head[fresh], np.delete(head, fresh), order[count:]])
