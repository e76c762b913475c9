"""Estimators of KL(π_old ‖ π_θ), whose expectation the toy model gives exactly."""

import math

import pytest
import torch
from toy_language_model import (
    BEHAVIOUR,
    COMPLETION_MASK,
    EXACT_SAMPLE,
    draw_parameters,
    toy_sequence_log_prob,
    toy_token_log_probs,
)

from paced_rl.objectives.divergence import reference_kl_k3, sampled_kl, sampled_kl_k3


def _k3(parameters, sample):
    return sampled_kl_k3(
        toy_token_log_probs(parameters)[sample], toy_token_log_probs(BEHAVIOUR)[sample], COMPLETION_MASK[sample]
    )


def _k1(parameters, sample):
    return sampled_kl(
        policy_sequence_log_prob=toy_sequence_log_prob(parameters)[sample],
        behaviour_sequence_log_prob=toy_sequence_log_prob(BEHAVIOUR)[sample],
    )


@pytest.mark.parametrize("estimator", [_k1, _k3])
@pytest.mark.parametrize("seed", range(5))
def test_expectation_is_the_divergence(estimator, seed):
    parameters = draw_parameters(seed)
    behaviour, policy = toy_sequence_log_prob(BEHAVIOUR), toy_sequence_log_prob(parameters)
    exact = torch.nn.functional.kl_div(policy, behaviour, reduction="sum", log_target=True)
    assert estimator(parameters, EXACT_SAMPLE).item() == pytest.approx(exact.item(), abs=1e-12)


@pytest.mark.parametrize("estimator", [_k1, _k3])
def test_equal_policies_do_not_diverge(estimator):
    assert estimator(BEHAVIOUR, torch.arange(7)).item() == 0


def test_k3_is_never_negative_where_k1_is():
    parameters = draw_parameters(0)
    each = [(_k1(parameters, torch.tensor([i])).item(), _k3(parameters, torch.tensor([i])).item()) for i in range(7)]
    assert min(k1 for k1, _ in each) < 0
    assert min(k3 for _, k3 in each) >= 0


def test_k3_equals_a_loop_and_ignores_what_is_under_the_mask():
    policy = torch.tensor([[-1.0, -2.0, torch.nan], [-0.5, torch.inf, torch.nan]], dtype=torch.float64)
    behaviour = torch.tensor([[-1.5, -1.0, torch.nan], [-0.25, -torch.inf, -1.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = sum(math.exp(d) - 1 - d for d in (0.5, -1.0, -0.25)) / 2
    assert sampled_kl_k3(policy, behaviour, mask).item() == pytest.approx(expected, abs=1e-14)


def test_k3_keeps_its_digits_where_the_policies_are_close():
    """d²/2 for d = 1e-3 nats; in float32, exp(d) alone is rounded by up to a tenth of that."""
    behaviour = torch.zeros(1, 1)
    k3 = sampled_kl_k3(behaviour - 1e-3, behaviour, torch.ones(1, 1, dtype=torch.bool))
    assert k3.item() == pytest.approx(5e-7, rel=1e-2)


# The penalty, KL(π_θ ‖ π_ref), over samples of π_θ.


@pytest.mark.parametrize("seed", range(3))
def test_the_penalty_is_the_divergence_on_average_over_the_policy(seed):
    """Here π_θ is BEHAVIOUR, whose exact sample is known; π_ref is another policy."""
    reference = draw_parameters(seed)
    policy_log_prob, reference_log_prob = toy_sequence_log_prob(BEHAVIOUR), toy_sequence_log_prob(reference)
    exact = torch.nn.functional.kl_div(reference_log_prob, policy_log_prob, reduction="sum", log_target=True)
    each = reference_kl_k3(
        toy_token_log_probs(BEHAVIOUR)[EXACT_SAMPLE],
        toy_token_log_probs(reference)[EXACT_SAMPLE],
        COMPLETION_MASK[EXACT_SAMPLE],
    )
    assert each.mean().item() == pytest.approx(exact.item(), abs=1e-12)
    assert each.min() >= 0


def test_the_penalty_equals_a_loop_and_its_gradient_is_one_minus_the_ratio():
    policy = torch.tensor([[-1.0, -2.0, torch.nan]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[-1.5, -1.0, torch.nan]], dtype=torch.float64)
    mask, weight = torch.tensor([[True, True, False]]), torch.tensor([[1.0, 3.0, torch.nan]], dtype=torch.float64)
    penalty = reference_kl_k3(policy, reference, mask)
    assert penalty.item() == pytest.approx(sum(math.exp(d) - 1 - d for d in (-0.5, 1.0)), abs=1e-14)
    (gradient,) = torch.autograd.grad(penalty.sum(), policy)
    assert gradient[0].tolist() == pytest.approx([1 - math.exp(-0.5), 1 - math.exp(1.0), 0.0])
    weighed = reference_kl_k3(policy[:, :2], reference[:, :2], mask[:, :2], token_weight=weight[:, :2])
    assert weighed.item() == pytest.approx((math.exp(-0.5) - 0.5) + 3 * (math.exp(1.0) - 2), abs=1e-14)


def test_the_penalty_of_the_reference_itself_is_zero_with_zero_gradient():
    parameters = BEHAVIOUR.clone().requires_grad_()
    penalty = reference_kl_k3(toy_token_log_probs(parameters), toy_token_log_probs(BEHAVIOUR), COMPLETION_MASK)
    (gradient,) = torch.autograd.grad(penalty.sum(), parameters)
    assert penalty.abs().max() == 0
    assert gradient.abs().max() == 0
