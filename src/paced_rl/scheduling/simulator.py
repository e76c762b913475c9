"""Selectors and estimators on prompts whose accuracies are known: hundreds of rounds in a second, no model.

A toy for questions about scheduling alone. What it cannot answer is whether a choice of prompts makes a better policy:
how accuracies grow is assumed, and one prompt teaches nothing about another.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from paced_rl.scheduling.dynamic_sampling import groups_to_train_on
from paced_rl.scheduling.estimators import Estimator, estimate_by
from paced_rl.scheduling.outcomes import Outcomes, no_outcomes
from paced_rl.scheduling.schedule import Schedule, Selector, SelectorSettings, build_schedule
from paced_rl.seeds import derive_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedExperiment:
    """One experiment of the toy. Fields that are named like parameters mean what those mean."""

    num_rounds: int
    experiment_seed: int
    selector: Selector
    estimator: Estimator
    target_accuracy: float
    num_prompts: int
    candidate_pool_size: int
    audit_fraction: float
    warm_up_rounds: int
    settings: SelectorSettings
    group_size: int
    """Completions per scheduled prompt; how many are right is binomial."""
    head_error: float
    """Standard deviation of what the head adds to the accuracy of a prompt, the same in every round; the sum is cut to
    [0, 1]. 0 is a perfect head."""
    learning: float
    """Growth of a trained prompt's log odds, times 4p(1 − p): all of it at p = 1/2, none at 0 and 1. 0: none."""
    oracle_samples: int = 8
    """Completions from which `oracle` knows the accuracy of a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimulatedRound:
    """What was scheduled in one round, by rank; under `dynamic_sampling` more than the experiment's `num_prompts`."""

    indices: Int[np.ndarray, " num_prompts"]
    reasons: Shaped[np.ndarray, " num_prompts"]
    """Text, the values of `ScheduleReason`."""
    estimates: Float[np.ndarray, " num_prompts"]
    """What the estimator said of these prompts."""
    learned: Float[np.ndarray, " num_prompts"]
    """What the head said of them."""
    accuracies: Float[np.ndarray, " num_prompts"]
    """What was true of them when they were scheduled."""
    num_correct: Int[np.ndarray, " num_prompts"]
    """Right completions of the group."""
    is_trained: Bool[np.ndarray, " num_prompts"]
    """False for groups that `dynamic_sampling` drops."""


def simulate(accuracies: Float[np.ndarray, " N"], experiment: SimulatedExperiment) -> list[SimulatedRound]:
    """Every round of one experiment, from prompts with these accuracies.

    Args:
        accuracies: of each prompt before the first round, in [0, 1]; left as they are.
        experiment: see `SimulatedExperiment`.

    Raises:
        ValueError: an accuracy outside [0, 1], or a setting that `build_schedule` refuses.
    """
    truth = np.array(accuracies, dtype=np.float64)
    if not ((truth >= 0) & (truth <= 1)).all():
        raise ValueError(f"accuracies must lie in [0, 1], got values from {truth.min()} to {truth.max()}")
    seed = experiment.experiment_seed
    errors = derive_generator(seed, "simulated_head").normal(0.0, experiment.head_error, size=len(truth))
    rounds: list[SimulatedRound] = []
    for round_number in range(1, experiment.num_rounds + 1):
        learned = np.clip(truth + errors, 0.0, 1.0)
        measured = derive_generator(seed, "simulated_oracle", round_number).binomial(experiment.oracle_samples, truth)
        schedule, estimates = _schedule(learned, measured / experiment.oracle_samples, rounds, experiment)
        chosen = truth[schedule.indices]
        num_correct = derive_generator(seed, "simulated_rollouts", round_number).binomial(experiment.group_size, chosen)
        is_trained = np.ones(len(chosen), dtype=bool)
        if experiment.selector == "dynamic_sampling":
            num_scored = np.full(len(chosen), experiment.group_size)
            is_trained = groups_to_train_on(num_correct, num_scored, num_prompts=experiment.num_prompts)
        rounds.append(
            SimulatedRound(
                indices=schedule.indices,
                reasons=schedule.reasons,
                estimates=estimates[schedule.indices],
                learned=learned[schedule.indices],
                accuracies=chosen,
                num_correct=num_correct,
                is_trained=is_trained,
            )
        )
        trained = schedule.indices[is_trained]
        truth[trained] = trained_accuracies(truth[trained], experiment.learning)
    return rounds


def trained_accuracies(accuracies: Float[np.ndarray, " N"], learning: float) -> Float[np.ndarray, " N"]:
    """Accuracies after one round of training on their prompts: log odds grow by learning · 4p(1 − p)."""
    growth = np.exp(learning * 4.0 * accuracies * (1.0 - accuracies))
    return accuracies * growth / (1.0 - accuracies + accuracies * growth)


def _schedule(
    learned: Float[np.ndarray, " N"],
    measured: Float[np.ndarray, " N"],
    earlier: list[SimulatedRound],
    experiment: SimulatedExperiment,
) -> tuple[Schedule, Float[np.ndarray, " N"]]:
    """The next round's schedule and the estimates it was made from, exactly as the stage `scheduling` makes them."""
    round_number = len(earlier) + 1
    outcomes = _outcomes(earlier, experiment)
    estimates = estimate_by(
        experiment.estimator,
        learned,
        outcomes=outcomes,
        target_accuracy=experiment.target_accuracy,
        half_life=experiment.settings.outcome_half_life,
        experiment_seed=experiment.experiment_seed,
        round_number=round_number,
    )
    is_posterior = experiment.estimator == "beta_posterior"
    if not is_posterior:
        recorded = [simulated.estimates for simulated in _remembered(earlier, experiment)]
        outcomes = replace(outcomes, prior_estimates=np.concatenate([np.empty(0), *recorded]))
    schedule = build_schedule(
        estimates,
        round_number=round_number,
        experiment_seed=experiment.experiment_seed,
        selector=experiment.selector,
        target_accuracy=experiment.target_accuracy,
        num_prompts=experiment.num_prompts,
        candidate_pool_size=experiment.candidate_pool_size,
        audit_fraction=experiment.audit_fraction,
        warm_up_rounds=experiment.warm_up_rounds,
        settings=experiment.settings,
        outcomes=outcomes,
        prior_estimates=learned if is_posterior else estimates,
        measured_accuracies=measured,
    )
    return schedule, estimates


def _remembered(earlier: list[SimulatedRound], experiment: SimulatedExperiment) -> list[SimulatedRound]:
    """The rounds that are looked back at: three half-lives, as in the loop."""
    num_rounds = math.ceil(3 * experiment.settings.outcome_half_life)
    return earlier[max(0, len(earlier) - num_rounds) :]


def _outcomes(earlier: list[SimulatedRound], experiment: SimulatedExperiment) -> Outcomes:
    """Their groups, with the head's estimates as priors."""
    past = _remembered(earlier, experiment)
    if not past:
        return no_outcomes()
    ages = np.arange(len(past), 0, -1)
    return Outcomes(
        prompt_indices=np.concatenate([simulated.indices for simulated in past]),
        ages=np.repeat(ages, [len(simulated.indices) for simulated in past]),
        num_correct=np.concatenate([simulated.num_correct for simulated in past]),
        num_scored=np.full(sum(len(simulated.indices) for simulated in past), experiment.group_size),
        reasons=np.concatenate([simulated.reasons for simulated in past]),
        prior_estimates=np.concatenate([simulated.learned for simulated in past]),
    )
