"""What every selector would have taken of the prompts that rounds drew uniformly, from what was known before each.

A round's pool is what it rolled out whatever the estimates. Only of these prompts is it known how they would have
gone, so only among them can be chosen afterwards. The choices see outcomes of earlier rounds alone, which makes the
pool's own outcomes a fair judge of them; the two that do look at these, `oracle` and `hindsight`, are told in `choose`.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from paced_rl.scheduling.beliefs import (
    UNKNOWN_STRENGTH,
    likeliest_strength,
    mean_accuracy,
    posterior_beliefs,
    strength_log_likelihoods,
)
from paced_rl.scheduling.estimators import Estimator, estimate_by
from paced_rl.scheduling.outcomes import Outcomes, no_outcomes
from paced_rl.scheduling.schedule import Selector, SelectorSettings, choose_among
from paced_rl.scheduling.selectors import oracle
from paced_rl.seeds import derive_generator

Rule = tuple[str, str]
"""A selector, and the estimator it looks at: empty where it looks at none."""

LogLikelihoods = Float[np.ndarray, " num_strengths"] | None
"""Of a round's audit groups under each prior strength; None where it has none."""

UNIFORM: Rule = ("uniform", "")
ORACLE: Rule = ("oracle", "")
HINDSIGHT: Rule = ("hindsight", "")

PRIORS: tuple[Estimator, ...] = ("learned", "group_mean", "constant", "random")
"""Estimators that may be the mean of a Beta prior; `beta_posterior` is such a posterior, of the learned one."""

_WITHOUT_ESTIMATE = ("beta_thompson", "pass_rate_variance")
_WITHOUT_CHOICE = ("uniform", "dynamic_sampling", "oracle")
"""What they take is not worked out by `choose_among`; `dynamic_sampling` rolls out what `uniform` does."""
RULES: tuple[Rule, ...] = (
    UNIFORM,
    *(
        (selector, estimator)
        for selector in get_args(Selector)
        if selector not in _WITHOUT_CHOICE
        for estimator in (("",) if selector in _WITHOUT_ESTIMATE else get_args(Estimator))
        # A Beta posterior never starts from `beta_posterior`, but from the head: that is its row on `learned`.
        if not (selector.startswith("posterior") and estimator == "beta_posterior")
    ),
    ORACLE,
    HINDSIGHT,
)
"""In the order of the rows of `Choices.shares`."""

NUM_LEFT_OUT = 2
"""Completions of each group that judge the oracle: as few as have a variance, so that it may choose by the rest."""
NUM_SPLITS = 8
"""Random ways to leave them out, averaged over: two completions say little."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PastRound:
    """One round as it was: all groups it rolled out, in any order."""

    round_number: int
    prompts: Int[np.ndarray, " num_groups"]
    """Which prompt, by a number that is the same in all rounds."""
    learned: Float[np.ndarray, " num_groups"]
    """What the head said of it when it was scheduled, in [0, 1]."""
    num_correct: Int[np.ndarray, " num_groups"]
    num_scored: Int[np.ndarray, " num_groups"]
    """Completions with a reward: at least 1, and in the pool more than `NUM_LEFT_OUT`."""
    num_tokens: Int[np.ndarray, " num_groups"]
    """Sampled for the group; nobody chooses by it."""
    reasons: Shaped[np.ndarray, " num_groups"]
    """Text, the values of `ScheduleReason`."""
    is_pool: Bool[np.ndarray, " num_groups"]
    """True where the prompt was drawn uniformly and may be chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """What the choices depend on; fields that are named like parameters mean what those mean."""

    share: float
    """Of a pool that is taken, rounded to whole prompts and at least one; in (0, 1)."""
    target_accuracy: float
    experiment_seed: int
    selectors: SelectorSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choices:
    """Who would have taken what of one pool."""

    shares: Float[np.ndarray, "num_rules num_pool"]
    """Part of the rule's choice that a prompt is: 1/k for k taken ones; each row sums to 1. `uniform` is the whole pool
    evenly, which is what it takes on average; `oracle` the mean over its splits."""
    left_out_differ: Float[np.ndarray, " num_pool"]
    """Of the splits in which `oracle` takes the prompt, the share in which one of the two completions that are left out
    is right and one wrong; 0 where it is never taken."""
    is_known: Bool[np.ndarray, " num_pool"]
    """True where an outcome of the prompt was there to be looked back at."""
    estimates: Mapping[str, Float[np.ndarray, " num_pool"]]
    """Estimator → what it said of the pool's prompts before they were rolled out."""


def replay(rounds: Iterable[PastRound], settings: ReplaySettings) -> Iterator[tuple[PastRound, Choices | None]]:
    """Every round with the choices of all `RULES` among its pool; None where there is no pool.

    Memory holds the rounds that are looked back at, three half-lives, and not the experiment.

    Args:
        rounds: in ascending order of their numbers.
        settings: see `ReplaySettings`.
    """
    window: deque[tuple[PastRound, dict[str, LogLikelihoods]]] = deque()
    num_past_rounds = math.ceil(3 * settings.selectors.outcome_half_life)
    for current in rounds:
        while window and current.round_number - window[0][0].round_number > num_past_rounds:
            window.popleft()
        outcomes = _outcomes_before(current, [past for past, _ in window])
        strengths: dict[str, float] = {
            name: _strength([likelihoods[name] for _, likelihoods in window]) for name in PRIORS
        }
        estimates = _estimates(current, outcomes, strengths, settings)
        yield current, choose(current, outcomes, estimates, strengths, settings) if current.is_pool.any() else None
        if num_past_rounds:
            window.append((current, {name: _log_likelihoods(current, estimates[name]) for name in PRIORS}))


def choose(
    current: PastRound,
    outcomes: Outcomes,
    estimates: dict[str, Float[np.ndarray, " num_groups"]],
    strengths: dict[str, float],
    settings: ReplaySettings,
) -> Choices:
    """What each rule takes of one pool.

    - `oracle` takes the prompts nearest to the target by all completions of a group but two, and is to be judged by
      these two: judged by what it chose by, its luck would pass for knowledge. Of two random ones of n with c right
      ones a hypergeometric number are right, so nobody needs to know which were.
    - `hindsight` takes them by all completions: the most that any choice could have shown, and more than even the truth
      would have.
    """
    pool = np.flatnonzero(current.is_pool)
    correct, scored = current.num_correct[pool], current.num_scored[pool]
    num_taken = max(1, round(settings.share * len(pool)))
    known = _of_this_round(outcomes, len(current.prompts))
    shares = np.zeros((len(RULES), len(pool)))
    shares[RULES.index(UNIFORM)] = 1.0 / len(pool)
    shares[RULES.index(ORACLE)], left_out_differ = _oracle_shares(correct, scored, num_taken, current, settings)
    noise = derive_generator(settings.experiment_seed, "selector", current.round_number)
    start = noise.bit_generator.state
    for row, rule in enumerate(RULES):
        if rule in (UNIFORM, ORACLE):
            continue
        noise.bit_generator.state = start  # for each rule anew, as it would have been the only one
        selector, estimator = rule
        if rule == HINDSIGHT:
            taken = oracle(
                correct / scored, target_accuracy=settings.target_accuracy, num_prompts=num_taken, generator=noise
            )
        else:
            prior = "learned" if estimator in ("", "beta_posterior") else estimator
            taken = choose_among(
                cast(Selector, selector),
                pool,
                estimates[estimator or "learned"],
                num_prompts=num_taken,
                target_accuracy=settings.target_accuracy,
                settings=settings.selectors,
                outcomes=known,
                prior_estimates=estimates[prior],
                measured_accuracies=None,
                generator=noise,
                prior_strength=strengths[prior],
            )
        shares[row, taken] = 1.0 / num_taken
    is_known = np.isin(pool, known.prompt_indices)
    said = {name: np.clip(values[pool], 0.0, 1.0) for name, values in estimates.items()}
    return Choices(shares=shares, left_out_differ=left_out_differ, is_known=is_known, estimates=said)


def _oracle_shares(
    num_correct: Int[np.ndarray, " num_pool"],
    num_scored: Int[np.ndarray, " num_pool"],
    num_taken: int,
    current: PastRound,
    settings: ReplaySettings,
) -> tuple[Float[np.ndarray, " num_pool"], Float[np.ndarray, " num_pool"]]:
    """The oracle's row of `Choices.shares`, and `Choices.left_out_differ`."""
    generator = derive_generator(settings.experiment_seed, "counterfactual_oracle", current.round_number)
    num_times, num_differing = np.zeros(len(num_correct)), np.zeros(len(num_correct))
    for _ in range(NUM_SPLITS):
        left_out = generator.hypergeometric(num_correct, num_scored - num_correct, NUM_LEFT_OUT)
        measured = (num_correct - left_out) / (num_scored - NUM_LEFT_OUT)
        taken = oracle(measured, target_accuracy=settings.target_accuracy, num_prompts=num_taken, generator=generator)
        num_times[taken] += 1
        num_differing[taken] += left_out[taken] == 1
    return num_times / (NUM_SPLITS * num_taken), num_differing / np.maximum(num_times, 1)


def _outcomes_before(current: PastRound, past: list[PastRound]) -> Outcomes:
    """Groups of earlier rounds, aligned with those of this one; all other prompts are one stranger after the last.

    Nobody asks what was measured of prompts that are not there to be chosen, but their outcomes count in averages.
    """
    if not past:
        return no_outcomes()
    prompts = np.concatenate([earlier.prompts for earlier in past])
    order = np.argsort(current.prompts)
    places = order[np.minimum(np.searchsorted(current.prompts, prompts, sorter=order), len(current.prompts) - 1)]
    sizes = [len(earlier.prompts) for earlier in past]
    return Outcomes(
        prompt_indices=np.where(current.prompts[places] == prompts, places, len(current.prompts)),
        ages=np.repeat([current.round_number - earlier.round_number for earlier in past], sizes),
        num_correct=np.concatenate([earlier.num_correct for earlier in past]),
        num_scored=np.concatenate([earlier.num_scored for earlier in past]),
        reasons=np.concatenate([earlier.reasons for earlier in past]),
        prior_estimates=np.zeros(len(prompts)),  # the strengths are fitted apart
    )


def _of_this_round(outcomes: Outcomes, num_groups: int) -> Outcomes:
    """Without the stranger's."""
    is_known = outcomes.prompt_indices < num_groups
    return Outcomes(
        prompt_indices=outcomes.prompt_indices[is_known],
        ages=outcomes.ages[is_known],
        num_correct=outcomes.num_correct[is_known],
        num_scored=outcomes.num_scored[is_known],
        reasons=outcomes.reasons[is_known],
        prior_estimates=outcomes.prior_estimates[is_known],
    )


def _estimates(
    current: PastRound, outcomes: Outcomes, strengths: dict[str, float], settings: ReplaySettings
) -> dict[str, Float[np.ndarray, " num_groups"]]:
    """What each estimator would have said of this round's prompts."""
    half_life, num_groups = settings.selectors.outcome_half_life, len(current.prompts)
    with_stranger = np.append(current.learned, settings.target_accuracy)
    found: dict[str, Float[np.ndarray, " num_groups"]] = {
        name: estimate_by(
            name,
            with_stranger,
            outcomes=outcomes,
            target_accuracy=settings.target_accuracy,
            half_life=half_life,
            experiment_seed=settings.experiment_seed,
            round_number=current.round_number,
        )[:num_groups]
        for name in PRIORS
    }
    known = _of_this_round(outcomes, num_groups)
    beliefs = posterior_beliefs(current.learned, known, prior_strength=strengths["learned"], half_life=half_life)
    return {**found, "beta_posterior": mean_accuracy(beliefs)}


def _log_likelihoods(current: PastRound, estimates: Float[np.ndarray, " num_groups"]) -> LogLikelihoods:
    outcomes = Outcomes(
        prompt_indices=current.prompts,
        ages=np.ones(len(current.prompts), dtype=np.int64),
        num_correct=current.num_correct,
        num_scored=current.num_scored,
        reasons=current.reasons,
        prior_estimates=estimates,
    )
    return strength_log_likelihoods(outcomes) if outcomes.is_audit.any() else None


def _strength(log_likelihoods: list[LogLikelihoods]) -> float:
    """As `fit_prior_strength`, from what each round adds to it."""
    found = [values for values in log_likelihoods if values is not None]
    return likeliest_strength(np.sum(found, axis=0)) if found else UNKNOWN_STRENGTH
