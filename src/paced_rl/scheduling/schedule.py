"""The prompts of one round, in order, each with the reason why it is there."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int, Shaped

from paced_rl.scheduling.beliefs import fit_prior_strength, posterior_beliefs
from paced_rl.scheduling.draws import audit_slice, candidates, uniform_besides
from paced_rl.scheduling.dynamic_sampling import num_prompts_to_roll_out
from paced_rl.scheduling.outcomes import Outcomes, last_measured, no_outcomes
from paced_rl.scheduling.selectors import (
    nearest,
    oracle,
    pass_rate_variance,
    posterior,
    require_finite,
    softened,
    thompson,
)
from paced_rl.seeds import derive_generator
from paced_rl.types import ScheduleReason

Selector = Literal[
    "nearest",
    "uniform",
    "softened",
    "posterior",
    "posterior_thompson",
    "beta_thompson",
    "pass_rate_variance",
    "dynamic_sampling",
    "oracle",
]
MOPPS_PRIOR_MEAN, MOPPS_PRIOR_STRENGTH = 0.5, 2.0
"""Prior of `beta_thompson`: Beta(1, 1), as in https://arxiv.org/abs/2507.04632."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectorSettings:
    """What single selectors need beyond the target."""

    softening: float
    """Of `softened`: standard deviation of the weight, in units of accuracy."""
    outcome_half_life: float
    """Of `posterior`, both Thompson selectors and `dynamic_sampling`: rounds after which an outcome counts half."""
    retest_share: float
    """Of `pass_rate_variance`: share of the selected places that measure instead."""
    retest_after: int
    """Of `pass_rate_variance`: rounds after which a solved or unsolved prompt is measured again."""
    max_oversampling: float = 3.0
    """Of `dynamic_sampling`: prompts rolled out at most, as a multiple of the round's."""


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
    measured_accuracies: Float[np.ndarray, " num_prompts_total"] | None = None,
) -> Schedule:
    """The prompts of a round: a uniform audit slice, and the selector's choice among the others.

    The audit slice is drawn first, from a stream of its own that never sees the estimates, so it is exactly uniform
    whatever is selected, and every prompt is in it once per ⌈N / slice⌉ rounds. Nothing depends on earlier rounds but
    through the estimates and outcomes.

    - `uniform`: the next prompts of an epoch-aware stream. A prompt that the audit slice already holds is replaced by
      one drawn uniformly from the rest, so the round keeps its size. The candidate pool plays no part, because a
      uniform draw from a uniform draw is a uniform draw. The stream is the warm-up's, so that two experiments with
      one seed and different selectors begin with the same prompts.
    - `dynamic_sampling`: more prompts of that stream, as many as `num_prompts_to_roll_out` says; no warm-up.
    - every other: `paced_rl.scheduling.selectors` has one function of its name, or, where it draws from what is
      believed of each prompt, `thompson`: under a uniform prior in `beta_thompson`, under the estimate as the prior's
      mean in `posterior_thompson`. It chooses among candidates, which are
      a uniform draw of the round's own, less the audit slice. The first `warm_up_rounds` rounds draw as `uniform` does.

    Differs: the paper has neither audit slice nor warm-up; audit_fraction = 0 and warm_up_rounds = 0 give its rule.

    Args:
        estimates: [num_prompts_total], estimated accuracy of each train prompt.
        round_number: counted from 1.
        experiment_seed: the one seed a user sets.
        selector: one of the names of `Selector`.
        target_accuracy: τ.
        num_prompts: size of the round, audit slice included; of `dynamic_sampling` the groups that are to train.
        candidate_pool_size: prompts to select among; 0, or a number above all prompts, means all.
        audit_fraction: share of the round in the audit slice; num_prompts · audit_fraction is rounded, halves to even.
        warm_up_rounds: rounds in which every selector draws uniformly.
        settings: needed by every selector but `nearest` and `uniform`.
        outcomes: of earlier rounds, indices into `estimates`; None for none.
        prior_estimates: prior means of `posterior`, where they are not the estimates: estimates that contain a prompt's
            own outcomes would count these twice.
        measured_accuracies: of `candidates_to_measure`, NaN elsewhere; only `oracle` looks at them.

    Returns:
        Selected or warm-up prompts by rank, then the audit slice.

    Raises:
        ValueError: a number is out of range, a pool or the prompts are fewer than the round needs, an estimate is not
            finite, or settings or measured accuracies are missing.
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

    def uniform_others(count: int) -> Int[np.ndarray, " count"]:
        return uniform_besides(
            audit, len(estimates), count=count, round_number=round_number, experiment_seed=experiment_seed
        )

    outcomes = no_outcomes() if outcomes is None else outcomes
    audit = audit_slice(
        len(estimates),
        num_prompts=num_prompts,
        audit_fraction=audit_fraction,
        round_number=round_number,
        experiment_seed=experiment_seed,
    )
    num_others = num_prompts - len(audit)
    reason = ScheduleReason.SELECTED
    if selector == "uniform":
        others = uniform_others(num_others)
    elif selector == "dynamic_sampling":
        most, wanted = _num_oversampled(len(estimates), num_prompts, _needed(settings, selector), outcomes)
        # All rounds are cut out of the stream by the largest count, so that rounds of different counts do not overlap.
        others = uniform_others(most - len(audit))[: wanted - len(audit)]
    elif round_number <= warm_up_rounds:
        others, reason = uniform_others(num_others), ScheduleReason.WARM_UP
    else:
        pool = candidates(
            len(estimates),
            audit,
            candidate_pool_size=candidate_pool_size,
            round_number=round_number,
            experiment_seed=experiment_seed,
        )
        chosen = choose_among(
            selector,
            pool,
            estimates,
            num_prompts=num_others,
            target_accuracy=target_accuracy,
            settings=settings,
            outcomes=outcomes,
            prior_estimates=estimates if prior_estimates is None else prior_estimates,
            measured_accuracies=measured_accuracies,
            generator=derive_generator(experiment_seed, "selector", round_number),
        )
        others = pool[chosen]
    return Schedule(
        indices=np.concatenate([others, audit]),
        reasons=np.array([reason.value] * len(others) + [ScheduleReason.AUDIT.value] * len(audit)),
    )


def choose_among(
    selector: Selector,
    pool: Int[np.ndarray, " num_candidates"],
    estimates: Float[np.ndarray, " num_prompts_total"],
    *,
    num_prompts: int,
    target_accuracy: float,
    settings: SelectorSettings | None,
    outcomes: Outcomes,
    prior_estimates: Float[np.ndarray, " num_prompts_total"],
    measured_accuracies: Float[np.ndarray, " num_prompts_total"] | None,
    generator: np.random.Generator,
    prior_strength: float | None = None,
) -> Int[np.ndarray, " num_prompts"]:
    """Positions in `pool` that the selector takes: what each of them must know is worked out here.

    See `build_schedule`; `prior_strength` None is fitted to the outcomes.
    """
    if selector == "nearest":
        return nearest(estimates[pool], target_accuracy=target_accuracy, num_prompts=num_prompts)
    if selector == "oracle":
        if measured_accuracies is None:
            raise ValueError("selector 'oracle' needs measured accuracies: run it with the pipeline oracle_round")
        return oracle(
            measured_accuracies[pool], target_accuracy=target_accuracy, num_prompts=num_prompts, generator=generator
        )
    settings = _needed(settings, selector)
    half_life = settings.outcome_half_life
    if selector == "softened":
        return softened(
            estimates[pool],
            target_accuracy=target_accuracy,
            softening=settings.softening,
            num_prompts=num_prompts,
            generator=generator,
        )
    if selector in ("posterior", "posterior_thompson", "beta_thompson"):
        is_learned = selector != "beta_thompson"
        prior = prior_estimates if is_learned else np.full(len(estimates), MOPPS_PRIOR_MEAN)
        strength = MOPPS_PRIOR_STRENGTH
        if is_learned:
            strength = fit_prior_strength(outcomes) if prior_strength is None else prior_strength
        beliefs = posterior_beliefs(prior, outcomes, prior_strength=strength, half_life=half_life).take(pool)
        if selector == "posterior":
            return posterior(beliefs, num_prompts=num_prompts)
        return thompson(beliefs, target_accuracy=target_accuracy, num_prompts=num_prompts, generator=generator)
    accuracies, ages = last_measured(outcomes, len(estimates))
    return pass_rate_variance(
        accuracies[pool],
        ages[pool],
        num_prompts=num_prompts,
        retest_share=settings.retest_share,
        retest_after=settings.retest_after,
        generator=generator,
    )


def _needed(settings: SelectorSettings | None, selector: Selector) -> SelectorSettings:
    if settings is None:
        raise ValueError(f"selector {selector!r} needs settings: give build_schedule its SelectorSettings")
    return settings


def _num_oversampled(
    num_prompts_total: int, num_prompts: int, settings: SelectorSettings, outcomes: Outcomes
) -> tuple[int, int]:
    """Of `dynamic_sampling`: the most prompts that any round rolls out, and those that this one does."""
    wanted = num_prompts_to_roll_out(
        outcomes,
        num_prompts=num_prompts,
        max_oversampling=settings.max_oversampling,
        half_life=settings.outcome_half_life,
    )
    most = min(math.floor(settings.max_oversampling * num_prompts), num_prompts_total)
    return most, min(wanted, most)


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
