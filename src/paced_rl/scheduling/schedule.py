"""The prompts of one round, in order, each with the reason why it is there."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from paced_rl.scheduling.selectors import nearest, require_finite, uniform_positions
from paced_rl.seeds import derive_generator
from paced_rl.types import ScheduleReason

Selector = Literal["nearest", "uniform"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Schedule:
    """What one round rolls out. The position in the arrays is the rank: 0 is rolled out first."""

    indices: Int[np.ndarray, " num_prompts"]
    """Indices into the estimates the schedule was built from; all different."""
    reasons: Shaped[np.ndarray, " num_prompts"]
    """Text, one of the values of `ScheduleReason` each; the audit slice comes last."""


def build_schedule(
    estimates: Float[np.ndarray, " num_prompts_total"],
    *,
    round_number: int,
    experiment_seed: int,
    selector: Selector,
    target_accuracy: float,
    num_prompts: int,
    candidate_pool_size: int,
    audit_fraction: float,
    warm_up_rounds: int,
) -> Schedule:
    """The prompts of a round: a uniform audit slice, and the selector's choice among the others.

    The audit slice is drawn first, from a stream of its own that never sees the estimates, so it is exactly uniform
    whatever is selected, and every prompt is in it once per ⌈N / slice⌉ rounds. Nothing depends on earlier rounds.

    - `nearest`: the candidates nearest to the target. Candidates are a uniform draw of the round's own, less the audit
      slice. The first `warm_up_rounds` rounds draw as `uniform` does.
    - `uniform`: the next prompts of an epoch-aware stream. A prompt that the audit slice already holds is replaced by
      one drawn uniformly from the rest, so the round keeps its size. The candidate pool plays no part, because a
      uniform draw from a uniform draw is a uniform draw. The stream is the warm-up's, so that two experiments with
      one seed and different selectors begin with the same prompts.

    Differs: the paper has neither audit slice nor warm-up; audit_fraction = 0 and warm_up_rounds = 0 give its rule.

    Args:
        estimates: [num_prompts_total], estimated accuracy of each train prompt.
        round_number: counted from 1.
        experiment_seed: the one seed a user sets.
        selector: `nearest` or `uniform`.
        target_accuracy: τ of `nearest`.
        num_prompts: size of the round, audit slice included.
        candidate_pool_size: prompts `nearest` chooses among; 0, or a number above all prompts, means all.
        audit_fraction: share of the round in the audit slice; num_prompts · audit_fraction is rounded, halves to even.
        warm_up_rounds: rounds in which `nearest` draws uniformly.

    Returns:
        Selected or warm-up prompts by rank, then the audit slice.

    Raises:
        ValueError: a number is out of range, a pool or the prompts are fewer than the round needs, or an estimate is
            not finite.
    """
    _check_sizes(len(estimates), num_prompts=num_prompts, candidate_pool_size=candidate_pool_size)
    if round_number < 1 or not 0 <= audit_fraction <= 1:
        raise ValueError(
            f"round_number = {round_number} and audit_fraction = {audit_fraction}: "
            "rounds are counted from 1, and the fraction must lie in [0, 1]"
        )
    if selector not in ("nearest", "uniform"):
        raise ValueError(f"scheduling.selector = {selector!r}: it must be 'nearest' or 'uniform'")
    require_finite(estimates)

    num_audit = round(num_prompts * audit_fraction)
    num_others = num_prompts - num_audit
    audit = uniform_positions(
        len(estimates),
        experiment_seed=experiment_seed,
        stream="audit",
        start=(round_number - 1) * num_audit,
        count=num_audit,
    )
    reason = ScheduleReason.SELECTED
    if selector == "nearest" and round_number > warm_up_rounds:
        pool = _candidates(len(estimates), audit, candidate_pool_size, round_number, experiment_seed)
        others = pool[nearest(estimates[pool], target_accuracy=target_accuracy, num_prompts=num_others)]
    else:
        others = _uniform_besides(audit, len(estimates), num_others, round_number, experiment_seed)
        if selector == "nearest":
            reason = ScheduleReason.WARM_UP
    return Schedule(
        indices=np.concatenate([others, audit]),
        reasons=np.array([reason.value] * num_others + [ScheduleReason.AUDIT.value] * num_audit),
    )


def _check_sizes(num_prompts_total: int, *, num_prompts: int, candidate_pool_size: int) -> None:
    if not 1 <= num_prompts <= num_prompts_total:
        raise ValueError(
            f"scheduling.num_prompts = {num_prompts}, and there are {num_prompts_total} train prompts: "
            "it must lie between 1 and that number"
        )
    # A pool that holds the whole round is large enough whichever of its prompts the audit slice takes away.
    if candidate_pool_size < 0 or 0 < candidate_pool_size < num_prompts:
        raise ValueError(
            f"scheduling.candidate_pool_size = {candidate_pool_size} is below scheduling.num_prompts = {num_prompts}: "
            "make it at least that large, or 0 to select among all prompts"
        )


def _candidates(
    num_prompts_total: int,
    audit: Int[np.ndarray, " num_audit"],
    candidate_pool_size: int,
    round_number: int,
    experiment_seed: int,
) -> Int[np.ndarray, " num_candidates"]:
    """The round's uniform candidates without the audit slice, in ascending order, so that ties go by lower index."""
    is_candidate = np.ones(num_prompts_total, dtype=bool)
    if 0 < candidate_pool_size < num_prompts_total:
        generator = derive_generator(experiment_seed, "candidates", round_number)
        pool = generator.choice(num_prompts_total, size=candidate_pool_size, replace=False, shuffle=False)
        is_candidate[:] = False
        is_candidate[pool] = True
    is_candidate[audit] = False
    return np.flatnonzero(is_candidate)


def _uniform_besides(
    audit: Int[np.ndarray, " num_audit"],
    num_prompts_total: int,
    count: int,
    round_number: int,
    experiment_seed: int,
) -> Int[np.ndarray, " count"]:
    """The round's part of the epoch-aware stream, prompts of the audit slice replaced by others drawn uniformly."""
    drawn = uniform_positions(
        num_prompts_total,
        experiment_seed=experiment_seed,
        stream="uniform",
        start=(round_number - 1) * count,
        count=count,
    )
    is_repeat = np.isin(drawn, audit)
    if is_repeat.any():
        is_left = np.ones(num_prompts_total, dtype=bool)
        is_left[audit] = False
        is_left[drawn] = False
        generator = derive_generator(experiment_seed, "substitutes", round_number)
        drawn = drawn.copy()
        drawn[is_repeat] = generator.choice(np.flatnonzero(is_left), size=int(is_repeat.sum()), replace=False)
    return drawn
