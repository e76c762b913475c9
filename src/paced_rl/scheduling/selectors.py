"""Which prompts to take: by estimate, by belief, by the last measurement, or uniformly by epochs."""

import numpy as np
from jaxtyping import Float, Int

from paced_rl.scheduling.beliefs import Beliefs, expected_reward_variance
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
    return smallest(np.abs(np.asarray(estimates, dtype=np.float64) - target_accuracy), num_prompts)


def smallest(costs: Float[np.ndarray, " num_prompts_total"], num_prompts: int) -> Int[np.ndarray, " num_prompts"]:
    """Indices of the `num_prompts` smallest costs, smallest first; equal ones by lower index, at the boundary too.

    One linear partial selection, then a sort of the selected ones only.

    Raises:
        ValueError: `num_prompts` is negative or above the number of costs.
    """
    _check_count(num_prompts, len(costs))
    if num_prompts == 0:
        return np.empty(0, dtype=np.int64)
    # The partition finds the boundary; which of several prompts at exactly that cost argpartition would keep is
    # unspecified, so they are taken explicitly, by index.
    boundary = np.partition(costs, num_prompts - 1)[num_prompts - 1]
    inside = np.flatnonzero(costs < boundary)
    on_boundary = np.flatnonzero(costs == boundary)[: num_prompts - inside.size]
    selected = np.concatenate([inside, on_boundary])
    return selected[np.lexsort((selected, costs[selected]))]


def _check_count(num_prompts: int, num_prompts_total: int) -> None:
    if not 0 <= num_prompts <= num_prompts_total:
        raise ValueError(
            f"num_prompts = {num_prompts}: it must lie in [0, {num_prompts_total}], the number of estimates"
        )


def softened(
    estimates: Float[np.ndarray, " num_prompts_total"],
    *,
    target_accuracy: float,
    softening: float,
    num_prompts: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, " num_prompts"]:
    """Prompts drawn one after the other without replacement, each with weight exp(−(estimate − τ)²/(2·softening²)).

    By the Gumbel top-k trick: the largest log weight + Gumbel noise. A small softening draws nearly as `nearest`
    chooses, a large one uniformly. It softens the winner's curse: prompts with other estimates are taken too.

    Source: ours; the trick: Kool et al. 2019, https://arxiv.org/abs/1903.06059.

    Args:
        estimates: [num_prompts_total], estimated accuracies.
        target_accuracy: τ.
        softening: standard deviation of the weight, in units of accuracy, above 0.
        num_prompts: how many to take.
        generator: of this round alone.

    Returns:
        Indices into `estimates` in the order of drawing.

    Raises:
        ValueError: an estimate is not finite, `softening` is not above 0, or see `smallest`.
    """
    require_finite(estimates)
    if not softening > 0:
        raise ValueError(f"scheduling.softening = {softening}: it must be above 0; selector nearest is its limit at 0")
    log_weights = -((np.asarray(estimates, dtype=np.float64) - target_accuracy) ** 2) / (2.0 * softening**2)
    return smallest(-(log_weights + generator.gumbel(size=len(estimates))), num_prompts)


def posterior(beliefs: Beliefs, *, num_prompts: int) -> Int[np.ndarray, " num_prompts"]:
    """The prompts with the largest expected p(1 − p) under what is believed of each.

    Source: ours. It generalises through the prior (the estimate), remembers through the counts, and discounts doubt.

    Returns:
        Indices into `beliefs`, largest first; equal ones by lower index.
    """
    return smallest(-expected_reward_variance(beliefs), num_prompts)


def thompson(
    beliefs: Beliefs, *, target_accuracy: float, num_prompts: int, generator: np.random.Generator
) -> Int[np.ndarray, " num_prompts"]:
    """The prompts whose accuracy, drawn once from what is believed of each, is nearest to the target.

    A prompt of which little is known is taken now and then, and remembered: it needs no share of places to explore.

    Source: Thompson sampling of MoPPS, https://arxiv.org/abs/2507.04632, which is `beta_thompson`: its beliefs start
    from a uniform prior. `posterior_thompson` is ours: its beliefs start from the estimates.

    Returns:
        Indices into `beliefs`, nearest draw first.
    """
    draws = generator.beta(beliefs.right, beliefs.wrong)
    return nearest(draws, target_accuracy=target_accuracy, num_prompts=num_prompts)


def pass_rate_variance(
    last_accuracies: Float[np.ndarray, " num_prompts_total"],
    last_ages: Float[np.ndarray, " num_prompts_total"],
    *,
    num_prompts: int,
    retest_share: float,
    retest_after: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, " num_prompts"]:
    """The prompts with the largest p(1 − p) when last measured, and beside them a share of tests.

    Due for a test are prompts that have no measurement, and prompts measured as solved (p = 1) or unsolved (p = 0) at
    least `retest_after` rounds ago. They get `round(num_prompts · retest_share)` places, the longest unmeasured first.
    The other places go by p(1 − p). Where either has too few prompts, the other fills up; solved and unsolved prompts
    that are not due come last. All ties are broken at random, because measured accuracies have few values.

    Source: prioritised replay with re-tests of solved and unsolved problems, https://arxiv.org/abs/2601.02648.
    Differs: written from its one-line description, without its text; the share and the age are ours.

    Args:
        last_accuracies: newest measured p of each prompt, NaN without one; see `last_measured`.
        last_ages: its age in rounds, infinite without one.
        num_prompts: how many to take.
        retest_share: in [0, 1].
        retest_after: rounds, at least 1.
        generator: of this round alone.

    Returns:
        Indices: by p(1 − p) first, then the tests, then what fills up.

    Raises:
        ValueError: `num_prompts` is negative or above the number of prompts.
    """
    _check_count(num_prompts, len(last_accuracies))
    order = generator.permutation(len(last_accuracies))
    accuracies, ages = last_accuracies[order], last_ages[order]
    variances = accuracies * (1.0 - accuracies)
    is_due = np.isnan(accuracies) | ((variances == 0) & (ages >= retest_after))
    num_tests = min(round(num_prompts * retest_share), int(is_due.sum()))
    tests = smallest(np.where(is_due, -ages, np.inf), num_tests)
    is_informative = ~is_due & (variances > 0)
    chosen = smallest(
        np.where(is_informative, -variances, np.inf), min(num_prompts - num_tests, int(is_informative.sum()))
    )
    # What is left, the due ones first.
    costs = np.where(is_due, -ages, -variances + 1.0)
    costs[np.concatenate([chosen, tests])] = np.inf
    spare = smallest(costs, num_prompts - len(chosen) - len(tests))
    return order[np.concatenate([chosen, tests, spare])]


def oracle(
    measured_accuracies: Float[np.ndarray, " num_prompts_total"],
    *,
    target_accuracy: float,
    num_prompts: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, " num_prompts"]:
    """The prompts whose accuracy, measured on completions that are not trained on, is nearest to the target.

    What choosing could save at most, not a rule to train by: measuring costs more than the round. It is as good as the
    number of measured completions; with few it has a winner's curse of its own. Ties are broken at random, because
    measured accuracies have few values.

    Args:
        measured_accuracies: of each prompt, NaN where none could be measured: taken last.
        target_accuracy: τ.
        num_prompts: how many to take.
        generator: of this round alone.

    Returns:
        Indices into `measured_accuracies`, nearest first.

    Raises:
        ValueError: `num_prompts` is negative or above the number of prompts.
    """
    order = generator.permutation(len(measured_accuracies))
    distances = np.abs(measured_accuracies[order] - target_accuracy)
    return order[smallest(np.where(np.isnan(distances), np.inf, distances), num_prompts)]


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
