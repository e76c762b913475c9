"""Beta posteriors and the strength of their prior, against SciPy, integrals and simulated outcomes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling_examples import outcomes_from
from scipy import stats
from scipy.special import comb

from paced_rl.scheduling import (
    Beliefs,
    expected_reward_variance,
    fit_prior_strength,
    mean_accuracy,
    no_outcomes,
    posterior_beliefs,
)
from paced_rl.scheduling.beliefs import EDGE, STRENGTHS, UNKNOWN_STRENGTH, beta_binomial_log_likelihood
from paced_rl.seeds import derive_generator

PARAMETERS = st.floats(0.01, 200)


@settings(deadline=None)
@given(PARAMETERS, PARAMETERS)
def test_moments_are_those_of_the_beta_distribution(right: float, wrong: float) -> None:
    beliefs = Beliefs(right=np.array([right]), wrong=np.array([wrong]))
    mean, variance = stats.beta(right, wrong).stats(moments="mv")
    assert mean_accuracy(beliefs)[0] == pytest.approx(float(mean), rel=1e-12)
    expected = float(mean * (1 - mean) - variance)
    assert expected_reward_variance(beliefs)[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_expected_reward_variance_by_integration() -> None:
    grid = (np.arange(200_000) + 0.5) / 200_000
    density = stats.beta(3.5, 1.7).pdf(grid)
    expected = (density * grid * (1 - grid)).sum() / density.sum()
    beliefs = Beliefs(right=np.array([3.5]), wrong=np.array([1.7]))
    assert expected_reward_variance(beliefs)[0] == pytest.approx(expected, rel=1e-8)


def test_posterior_by_hand() -> None:
    outcomes = outcomes_from([(0, 10, 6, 8, "selected", 0.9), (0, 20, 0, 8, "audit", 0.9)])
    beliefs = posterior_beliefs(np.array([0.25, 0.25]), outcomes, prior_strength=4.0, half_life=10.0)
    assert beliefs.right.tolist() == [1.0 + 3.0 + 0.0, 1.0]
    assert beliefs.wrong.tolist() == [3.0 + 1.0 + 2.0, 3.0]


def test_posterior_of_a_uniform_prior_is_bayes_rule_on_a_grid() -> None:
    """Without forgetting: the density is proportional to p^k (1 − p)^(n − k)."""
    grid = (np.arange(100_000) + 0.5) / 100_000
    likelihood = grid**5 * (1 - grid) ** 3
    beliefs = posterior_beliefs(
        np.array([0.5]), outcomes_from([(0, 1, 5, 8, "audit", 0.5)]), prior_strength=2.0, half_life=1e12
    )
    assert mean_accuracy(beliefs)[0] == pytest.approx((grid * likelihood).sum() / likelihood.sum(), rel=1e-8)


def test_certain_estimates_are_kept_from_the_ends() -> None:
    beliefs = posterior_beliefs(np.array([0.0, 1.0]), no_outcomes(), prior_strength=10.0, half_life=10.0)
    np.testing.assert_allclose(mean_accuracy(beliefs), [EDGE, 1 - EDGE])


@pytest.mark.parametrize(
    ("estimate", "strength", "message"), [(1.5, 1.0, "1.5"), (np.nan, 1.0, "nan"), (0.5, 0.0, "0.0")]
)
def test_impossible_priors_are_refused(estimate: float, strength: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posterior_beliefs(np.array([estimate]), no_outcomes(), prior_strength=strength, half_life=10.0)


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), PARAMETERS, PARAMETERS)
def test_likelihood_is_scipys_beta_binomial(correct: int, wrong_count: int, right: float, wrong: float) -> None:
    scored = correct + wrong_count
    found = beta_binomial_log_likelihood(
        np.array([correct, 0]), np.array([scored, 0]), right=np.array([right, 1.0]), wrong=np.array([wrong, 1.0])
    )
    expected = stats.betabinom(scored, right, wrong).logpmf(correct) - np.log(comb(scored, correct))
    assert found[0] == pytest.approx(float(expected), rel=1e-8, abs=1e-8)
    assert found[1] == 0.0


def audit_groups(
    strength: float, *, reason: str = "audit", size: int = 3000
) -> list[tuple[int, int, int, int, str, float]]:
    """Groups of 8 whose true accuracies scatter about the estimates as Beta(κ·p̂, κ·(1 − p̂))."""
    generator = derive_generator(7, "groups", reason)
    estimates = generator.uniform(0.1, 0.9, size)
    correct = generator.binomial(8, generator.beta(strength * estimates, strength * (1 - estimates)))
    return [(0, 1, int(k), 8, reason, float(p)) for k, p in zip(correct, estimates, strict=True)]


@pytest.mark.parametrize("strength", [1.0, 6.0, 40.0])
def test_fit_recovers_the_strength(strength: float) -> None:
    assert fit_prior_strength(outcomes_from(audit_groups(strength))) == pytest.approx(strength, rel=0.2)


def test_fit_is_the_maximum_of_scipys_likelihood() -> None:
    rows = audit_groups(6.0, size=200)
    likelihoods = [
        sum(stats.betabinom(n, s * p, s * (1 - p)).logpmf(k) for _, _, k, n, _, p in rows) for s in STRENGTHS[::12]
    ]
    fitted = fit_prior_strength(outcomes_from(rows))
    assert abs(np.log(fitted / STRENGTHS[::12][int(np.argmax(likelihoods))])) <= np.log(STRENGTHS[12] / STRENGTHS[0])


def test_only_audit_groups_are_fitted_on() -> None:
    audit = audit_groups(40.0)
    misleading = audit_groups(0.6, reason="selected") + audit_groups(0.6, reason="warm_up")
    assert fit_prior_strength(outcomes_from(audit + misleading)) == fit_prior_strength(outcomes_from(audit))
    assert fit_prior_strength(outcomes_from(misleading)) == fit_prior_strength(no_outcomes()) == UNKNOWN_STRENGTH


def test_exact_estimates_are_trusted_and_opposite_ones_are_not() -> None:
    exact = [(0, 1, k, 8, "audit", k / 8) for k in range(9)] * 20
    opposite = [(0, 1, k, 8, "audit", 1 - k / 8) for k in (0, 1, 7, 8)] * 20
    assert fit_prior_strength(outcomes_from(exact)) == STRENGTHS[-1]
    assert fit_prior_strength(outcomes_from(opposite)) < 1.0
