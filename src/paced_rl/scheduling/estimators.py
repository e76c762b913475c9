"""Estimates of accuracy that may stand in for the learned one, to learn whether log Z earns its keep."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from paced_rl.scheduling.beliefs import fit_prior_strength, mean_accuracy, posterior_beliefs
from paced_rl.scheduling.outcomes import Outcomes, last_measured
from paced_rl.seeds import derive_generator

Estimator = Literal["learned", "group_mean", "constant", "random", "beta_posterior"]


def estimate_by(
    estimator: Estimator,
    learned: Float[np.ndarray, " num_prompts_total"],
    *,
    outcomes: Outcomes,
    target_accuracy: float,
    half_life: float,
    experiment_seed: int,
    round_number: int,
) -> Float[np.ndarray, " num_prompts_total"]:
    """The estimated accuracy of every prompt, by the head or by what stands in for it.

    - `learned`: the head's, β·log Z.
    - `group_mean`: see `group_means`; where nothing has been measured at all, the target.
    - `constant`: the target. `nearest` then takes the prompts of lowest index.
    - `random`: uniform in [0, 1), drawn anew each round. `nearest` then draws uniformly.
    - `beta_posterior`: mean of the Beta posterior whose prior mean is the head's estimate.

    Source: the question is that of https://arxiv.org/abs/2607.13394, where a random log Z did as well as a learned one.

    Args:
        estimator: which.
        learned: the head's estimates, in [0, 1].
        outcomes: of earlier rounds, with the head's estimates as priors.
        target_accuracy: τ.
        half_life: of outcomes, rounds.
        experiment_seed: the one seed a user sets.
        round_number: counted from 1.

    Returns:
        float64 in [0, 1].

    Raises:
        ValueError: an unknown estimator, or see `posterior_beliefs`.
    """
    if estimator == "learned":
        return np.asarray(learned, dtype=np.float64)
    if estimator == "group_mean":
        return group_means(outcomes, num_prompts_total=len(learned), unmeasured=target_accuracy)
    if estimator == "constant":
        return np.full(len(learned), float(target_accuracy))
    if estimator == "random":
        return derive_generator(experiment_seed, "random_estimates", round_number).random(len(learned))
    if estimator == "beta_posterior":
        strength = fit_prior_strength(outcomes)
        return mean_accuracy(posterior_beliefs(learned, outcomes, prior_strength=strength, half_life=half_life))
    raise ValueError(
        f"scheduling.estimator = {estimator!r}: "
        "it must be 'learned', 'group_mean', 'constant', 'random' or 'beta_posterior'"
    )


def group_means(
    outcomes: Outcomes, *, num_prompts_total: int, unmeasured: float
) -> Float[np.ndarray, " num_prompts_total"]:
    """Observed accuracy of each prompt's newest group; of a prompt without one, the mean over uniformly drawn groups.

    The mean is over completions of the audit slice and the warm-up, because selected prompts are no sample of all. It
    is over all groups where none was drawn uniformly, and `unmeasured` where there is none at all.
    """
    accuracies, _ = last_measured(outcomes, num_prompts_total)
    counts = outcomes.is_uniform if outcomes.is_uniform.any() else np.ones(len(outcomes), dtype=bool)
    num_scored = outcomes.num_scored[counts].sum()
    overall = float(outcomes.num_correct[counts].sum() / num_scored) if num_scored else unmeasured
    return np.where(np.isnan(accuracies), overall, accuracies)
