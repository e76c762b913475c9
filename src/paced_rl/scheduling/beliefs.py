"""Beta distributions over the accuracy of each prompt: what is believed of it, and how firmly."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from paced_rl.scheduling.outcomes import Outcomes, forgotten_counts

EDGE = 1e-3
"""Prior means are kept this far from 0 and 1: a Beta needs two positive parameters, and no head can be that sure."""
STRENGTHS = np.geomspace(0.5, 500.0, 145)
"""Prior strengths the fit chooses among, in steps of 5 %, far below its standard error. A prior of 0.5 completions says
nothing beside one group; one of 500 is not moved by any group, so that more makes no difference."""
UNKNOWN_STRENGTH = 2.0
"""Prior strength where there is no audit outcome to fit it on: that of a uniform prior."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Beliefs:
    """One Beta(right, wrong) per prompt over its accuracy p."""

    right: Float[np.ndarray, " num_prompts"]
    """First parameter, above 0: pseudo-completions that were right, those of the prior included."""
    wrong: Float[np.ndarray, " num_prompts"]
    """Second parameter, above 0."""

    def take(self, indices: Int[np.ndarray, " num_taken"]) -> "Beliefs":
        """The beliefs of some prompts, in that order."""
        return Beliefs(right=self.right[indices], wrong=self.wrong[indices])


def mean_accuracy(beliefs: Beliefs) -> Float[np.ndarray, " num_prompts"]:
    """m = E[p] = right/(right + wrong)."""
    return beliefs.right / (beliefs.right + beliefs.wrong)


def expected_reward_variance(beliefs: Beliefs) -> Float[np.ndarray, " num_prompts"]:
    """E[p(1 − p)] = m(1 − m) − Var[p] = right·wrong / ((right + wrong)(right + wrong + 1)), in (0, 1/4).

    The variance of one reward of the prompt, less what is only doubt about p: of two prompts with mean 0.5 the one that
    is known to be at 0.5 is worth more.
    """
    total = beliefs.right + beliefs.wrong
    return beliefs.right * beliefs.wrong / (total * (total + 1.0))


def posterior_beliefs(
    prior_estimates: Float[np.ndarray, " num_prompts"], outcomes: Outcomes, *, prior_strength: float, half_life: float
) -> Beliefs:
    """The Beta posterior of each prompt: prior Beta(κ·p̂, κ·(1 − p̂)), updated by its own outcomes with forgetting.

        right = κ·p̂ + Σ 2^(−age/half_life)·num_correct,   wrong = κ·(1 − p̂) + Σ 2^(−age/half_life)·num_wrong

    Without outcomes it is the prior, so a prompt that has not been seen for long returns to what its estimate says.

    Source: conjugate update of the Beta-binomial model; with p̂ = 1/2 and κ = 2 the per-prompt posterior of MoPPS,
    https://arxiv.org/abs/2507.04632. Differs from it: every outcome is discounted by the rounds since it was measured,
    that of the last round by one; no running table is kept.

    Args:
        prior_estimates: p̂, mean of each prompt's prior, in [0, 1]; kept `EDGE` away from the ends.
        outcomes: of earlier rounds.
        prior_strength: κ, how many completions the prior is worth, above 0.
        half_life: rounds after which an outcome counts half.

    Raises:
        ValueError: `prior_strength` is not above 0, an estimate is outside [0, 1], or see `forgotten_counts`.
    """
    if not prior_strength > 0:
        raise ValueError(f"prior_strength = {prior_strength}: it must be above 0, completions that the prior is worth")
    means = _prior_means(prior_estimates)
    right, wrong = forgotten_counts(outcomes, num_prompts_total=len(means), half_life=half_life)
    return Beliefs(right=prior_strength * means + right, wrong=prior_strength * (1.0 - means) + wrong)


def fit_prior_strength(outcomes: Outcomes) -> float:
    """κ: how many completions an estimate has been worth, by maximum likelihood on the audit slices.

        num_correct ~ BetaBinomial(num_scored, κ·p̂, κ·(1 − p̂)),   p̂ as it was when the group was scheduled

    Large when the outcomes scatter about the estimates as coin tosses would, small when the estimates are off. Only
    audit groups count: selected ones are those whose estimates err towards the target. `UNKNOWN_STRENGTH` when there
    are none.

    Returns:
        The member of `STRENGTHS` with the largest likelihood; the smaller one of several.

    Raises:
        ValueError: an estimate is outside [0, 1].
    """
    if not outcomes.is_audit.any():
        return UNKNOWN_STRENGTH
    return likeliest_strength(strength_log_likelihoods(outcomes))


def strength_log_likelihoods(outcomes: Outcomes) -> Float[np.ndarray, " num_strengths"]:
    """Log-likelihood of the audit groups under each member of `STRENGTHS`, zeros without any.

    A sum over groups, none of which depends on the round it is looked at from: a sliding window adds what enters and
    takes off what leaves.

    Raises:
        ValueError: an estimate is outside [0, 1].
    """
    is_audit = outcomes.is_audit
    means = _prior_means(outcomes.prior_estimates[is_audit])
    correct, scored = outcomes.num_correct[is_audit], outcomes.num_scored[is_audit]
    groups = beta_binomial_log_likelihood(
        correct, scored, right=STRENGTHS[:, None] * means, wrong=STRENGTHS[:, None] * (1.0 - means)
    )
    return np.asarray(groups.sum(axis=1))


def likeliest_strength(log_likelihoods: Float[np.ndarray, " num_strengths"]) -> float:
    """The member of `STRENGTHS` with the largest likelihood; the smaller one of several."""
    return float(STRENGTHS[np.argmax(log_likelihoods)])


def beta_binomial_log_likelihood(
    num_correct: Int[np.ndarray, " G"],
    num_scored: Int[np.ndarray, " G"],
    *,
    right: Float[np.ndarray, "*S G"],
    wrong: Float[np.ndarray, "*S G"],
) -> Float[np.ndarray, "*S G"]:
    """log of the Beta-binomial probability without its binomial coefficient, which no parameter changes.

        Σ_{j<k} log(right + j) + Σ_{j<n−k} log(wrong + j) − Σ_{j<n} log(right + wrong + j)

    Zero when nothing was scored. Rising factorials instead of log-gamma functions, which NumPy lacks.
    """
    steps = np.arange(int(num_scored.max(initial=0)))

    def log_rising(start: Float[np.ndarray, "*S G"], counts: Int[np.ndarray, " G"]) -> Float[np.ndarray, "*S G"]:
        terms = np.log(start[..., None] + steps)
        return np.where(steps < counts[:, None], terms, 0.0).sum(axis=-1)

    return (
        log_rising(right, num_correct)
        + log_rising(wrong, num_scored - num_correct)
        - log_rising(right + wrong, num_scored)
    )


def _prior_means(estimates: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    means = np.asarray(estimates, dtype=np.float64)
    # Written so that NaN counts as outside.
    if not ((means >= 0) & (means <= 1)).all():
        raise ValueError(
            f"prior estimates must lie in [0, 1], got {means[~((means >= 0) & (means <= 1))][:5].tolist()}: the head "
            "that made them has diverged; lower training.log_z_learning_rate"
        )
    return np.clip(means, EDGE, 1.0 - EDGE)
