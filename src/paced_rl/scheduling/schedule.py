"""The prompts of one round, in order, each with the reason why it is there."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int, Shaped

from paced_rl.scheduling.beliefs import fit_prior_strength, posterior_beliefs
from paced_rl.scheduling.outcomes import Outcomes, last_measured, no_outcomes
from paced_rl.scheduling.selectors import (
    beta_thompson,
    nearest,
    pass_rate_variance,
    posterior,
    require_finite,
    softened,
    uniform_positions,
)
from paced_rl.seeds import derive_generator
from paced_rl.types import ScheduleReason

Selector = Literal["nearest", "uniform", "softened", "posterior", "beta_thompson", "pass_rate_variance"]
MOPPS_PRIOR_MEAN, MOPPS_PRIOR_STRENGTH = 0.5, 2.0
"""Prior of `beta_thompson`: Beta(1, 1), as in https://arxiv.org/abs/2507.04632."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectorSettings:
    """What single selectors need beyond the target."""

    softening: float
    """Of `softened`: standard deviation of the weight, in units of accuracy."""
    outcome_half_life: float
    """Of `posterior` and `beta_thompson`: rounds after which an outcome counts half."""
    retest_share: float
    """Of `pass_rate_variance`: share of the selected places that measure instead."""
    retest_after: int
    """Of `pass_rate_variance`: rounds after which a solved or unsolved prompt is measured again."""


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
    settings: SelectorSettings | None = None,
    outcomes: Outcomes | None = None,
    prior_estimates: Float[np.ndarray, " num_prompts_total"] | None = None,
) -> Schedule:
    """The prompts of a round: a uniform audit slice, and the selector's choice among the others.

    The audit slice is drawn first, from a stream of its own that never sees the estimates, so it is exactly uniform
    whatever is selected, and every prompt is in it once per ⌈N / slice⌉ rounds. Nothing depends on earlier rounds but
    through the estimates and outcomes.

    - `uniform`: the next prompts of an epoch-aware stream. A prompt that the audit slice already holds is replaced by
      one drawn uniformly from the rest, so the round keeps its size. The candidate pool plays no part, because a
      uniform draw from a uniform draw is a uniform draw. The stream is the warm-up's, so that two experiments with
      one seed and different selectors begin with the same prompts.
    - every other: `paced_rl.scheduling.selectors` has one function of its name. It chooses among candidates, which are
      a uniform draw of the round's own, less the audit slice. The first `warm_up_rounds` rounds draw as `uniform` does.

    Differs: the paper has neither audit slice nor warm-up; audit_fraction = 0 and warm_up_rounds = 0 give its rule.

    Args:
        estimates: [num_prompts_total], estimated accuracy of each train prompt.
        round_number: counted from 1.
        experiment_seed: the one seed a user sets.
        selector: one of the names of `Selector`.
        target_accuracy: τ.
        num_prompts: size of the round, audit slice included.
        candidate_pool_size: prompts to select among; 0, or a number above all prompts, means all.
        audit_fraction: share of the round in the audit slice; num_prompts · audit_fraction is rounded, halves to even.
        warm_up_rounds: rounds in which every selector draws uniformly.
        settings: needed by every selector but `nearest` and `uniform`.
        outcomes: of earlier rounds, indices into `estimates`; None for none.
        prior_estimates: prior means of `posterior`, where they are not the estimates: estimates that contain a prompt's
            own outcomes would count these twice.

    Returns:
        Selected or warm-up prompts by rank, then the audit slice.

    Raises:
        ValueError: a number is out of range, a pool or the prompts are fewer than the round needs, an estimate is not
            finite, or settings are missing.
    """
    _check_sizes(len(estimates), num_prompts=num_prompts, candidate_pool_size=candidate_pool_size)
    if round_number < 1 or not 0 <= audit_fraction <= 1:
        raise ValueError(
            f"round_number = {round_number} and audit_fraction = {audit_fraction}: "
            "rounds are counted from 1, and the fraction must lie in [0, 1]"
        )
    if selector not in get_args(Selector):
        *names, last = (repr(name) for name in get_args(Selector))
        raise ValueError(f"scheduling.selector = {selector!r}: it must be {', '.join(names)} or {last}")
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
    if selector != "uniform" and round_number > warm_up_rounds:
        pool = _candidates(len(estimates), audit, candidate_pool_size, round_number, experiment_seed)
        chosen = _choose(
            selector,
            pool,
            estimates,
            num_prompts=num_others,
            target_accuracy=target_accuracy,
            settings=settings,
            outcomes=no_outcomes() if outcomes is None else outcomes,
            prior_estimates=estimates if prior_estimates is None else prior_estimates,
            generator=derive_generator(experiment_seed, "selector", round_number),
        )
        others = pool[chosen]
    else:
        others = _uniform_besides(audit, len(estimates), num_others, round_number, experiment_seed)
        if selector != "uniform":
            reason = ScheduleReason.WARM_UP
    return Schedule(
        indices=np.concatenate([others, audit]),
        reasons=np.array([reason.value] * num_others + [ScheduleReason.AUDIT.value] * num_audit),
    )


def _choose(
    selector: Selector,
    pool: Int[np.ndarray, " num_candidates"],
    estimates: Float[np.ndarray, " num_prompts_total"],
    *,
    num_prompts: int,
    target_accuracy: float,
    settings: SelectorSettings | None,
    outcomes: Outcomes,
    prior_estimates: Float[np.ndarray, " num_prompts_total"],
    generator: np.random.Generator,
) -> Int[np.ndarray, " num_prompts"]:
    """Positions in `pool` that the selector takes: what each of them must know is worked out here."""
    if selector == "nearest":
        return nearest(estimates[pool], target_accuracy=target_accuracy, num_prompts=num_prompts)
    if settings is None:
        raise ValueError(f"selector {selector!r} needs settings: give build_schedule its SelectorSettings")
    half_life = settings.outcome_half_life
    if selector == "softened":
        return softened(
            estimates[pool],
            target_accuracy=target_accuracy,
            softening=settings.softening,
            num_prompts=num_prompts,
            generator=generator,
        )
    if selector == "posterior":
        strength = fit_prior_strength(outcomes)
        beliefs = posterior_beliefs(prior_estimates, outcomes, prior_strength=strength, half_life=half_life)
        return posterior(beliefs.take(pool), num_prompts=num_prompts)
    if selector == "beta_thompson":
        prior = np.full(len(estimates), MOPPS_PRIOR_MEAN)
        beliefs = posterior_beliefs(prior, outcomes, prior_strength=MOPPS_PRIOR_STRENGTH, half_life=half_life)
        return beta_thompson(
            beliefs.take(pool), target_accuracy=target_accuracy, num_prompts=num_prompts, generator=generator
        )
    accuracies, ages = last_measured(outcomes, len(estimates))
    return pass_rate_variance(
        accuracies[pool],
        ages[pool],
        num_prompts=num_prompts,
        retest_share=settings.retest_share,
        retest_after=settings.retest_after,
        generator=generator,
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
