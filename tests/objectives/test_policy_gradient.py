"""Advantages within a group, the clipped policy gradient and its special cases, REINFORCE."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_language_model import BEHAVIOUR, COMPLETION_MASK, REWARDS, toy_sequence_log_prob, toy_token_log_probs

from paced_rl.objectives.policy_gradient import (
    centred_reward,
    clipped_policy_gradient_loss,
    group_advantage,
    leave_one_out_advantage,
    reinforce_loss,
)


def _random_batch(seed, num_completions=6, num_tokens=5):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_completions, num_tokens)
    behaviour = -3 * torch.rand(shape, generator=generator, dtype=torch.float64)
    policy = behaviour + 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    advantage = torch.randn(num_completions, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, num_tokens + 1, (num_completions, 1), generator=generator)
    return policy, behaviour, advantage, torch.arange(num_tokens) < lengths


def test_advantage_by_hand():
    """Rewards 1, 0, 0, 0: mean 1/4, sample variance (9/16 + 3/16)/3 = 1/4."""
    reward = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    group_index = torch.tensor([5, 5, 5, 5, -1, -1])
    half = math.sqrt(0.5)
    expected = torch.tensor([1.5, -0.5, -0.5, -0.5, -0.5 / half, 0.5 / half], dtype=torch.float64)
    torch.testing.assert_close(group_advantage(reward, group_index, epsilon=0), expected)


def test_epsilon_is_added_to_the_standard_deviation():
    reward = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    advantage = group_advantage(reward, torch.zeros(4, dtype=torch.long), epsilon=0.25)
    torch.testing.assert_close(advantage, torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3], dtype=torch.float64))


def test_advantage_equals_a_loop():
    generator = torch.Generator().manual_seed(0)
    reward = torch.rand(20, generator=generator, dtype=torch.float64)
    group_index = torch.randint(5, (20,), generator=generator)
    result = group_advantage(reward, group_index, epsilon=1e-3)
    for i in range(20):
        members = [reward[j].item() for j in range(20) if group_index[j] == group_index[i]]
        mean = sum(members) / len(members)
        variance = sum((r - mean) ** 2 for r in members) / (len(members) - 1) if len(members) > 1 else 0.0
        assert result[i].item() == pytest.approx((reward[i].item() - mean) / (math.sqrt(variance) + 1e-3), abs=1e-10)


@given(
    value=st.floats(-1e3, 1e3),
    num_completions=st.integers(1, 12),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_uniform_groups_have_exactly_no_advantage(value, num_completions, dtype):
    reward = torch.full((num_completions,), value, dtype=dtype)
    advantage = group_advantage(reward, torch.zeros(num_completions, dtype=torch.long), epsilon=1e-8)
    assert advantage.tolist() == [0] * num_completions


@given(
    rewards=st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=12),
    shift=st.integers(-3, 3),
    scale=st.integers(1, 5),
)
def test_advantages_sum_to_zero_and_ignore_shift_and_scale(rewards, shift, scale):
    reward = torch.tensor(rewards, dtype=torch.float64)
    group_index = torch.zeros(len(rewards), dtype=torch.long)
    advantage = group_advantage(reward, group_index, epsilon=1e-12)
    assert advantage.sum().item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(group_advantage(scale * reward + shift, group_index, epsilon=1e-12), advantage)


def test_loss_by_hand():
    """Weights 2 (clipped to 1.2 for A > 0) and 0.5 (kept, the minimum); for A < 0 the 2 is kept and the 0.5 clipped."""
    policy = torch.tensor([[math.log(0.8), math.log(0.2)], [math.log(0.8), math.log(0.2)]], dtype=torch.float64)
    behaviour = torch.full((2, 2), math.log(0.4), dtype=torch.float64)
    mask = torch.ones(2, 2, dtype=torch.bool)
    advantage = torch.tensor([3.0, -3.0], dtype=torch.float64)
    loss, clipped_fraction = clipped_policy_gradient_loss(policy, behaviour, advantage, mask, clip_range=(0.2, 0.2))
    torch.testing.assert_close(loss, torch.tensor([-3 * (1.2 + 0.5) / 2, 3 * (2 + 0.8) / 2], dtype=torch.float64))
    assert clipped_fraction.item() == 0.5


def test_loss_equals_a_loop():
    policy, behaviour, advantage, mask = _random_batch(1)
    loss, clipped_fraction = clipped_policy_gradient_loss(policy, behaviour, advantage, mask, clip_range=(0.2, 0.2))
    num_clipped = 0
    for b in range(len(policy)):
        terms = []
        for t in range(policy.shape[1]):
            if mask[b, t]:
                weight, a = math.exp(policy[b, t].item() - behaviour[b, t].item()), advantage[b].item()
                unclipped, clipped = weight * a, min(max(weight, 0.8), 1.2) * a
                terms.append(min(unclipped, clipped))
                num_clipped += clipped < unclipped
        assert loss[b].item() == pytest.approx(-sum(terms) / len(terms), abs=1e-12)
    assert num_clipped > 0
    assert clipped_fraction.item() == pytest.approx(num_clipped / int(mask.sum()), abs=1e-6)


def test_gradient():
    policy, behaviour, advantage, mask = _random_batch(2)
    assert torch.autograd.gradcheck(
        lambda x: clipped_policy_gradient_loss(x, behaviour, advantage, mask, clip_range=(0.2, 0.2))[0],
        policy.requires_grad_(),
    )


def test_clipped_tokens_are_those_without_gradient():
    policy, behaviour, advantage, mask = _random_batch(3)
    loss, clipped_fraction = clipped_policy_gradient_loss(
        policy.requires_grad_(), behaviour, advantage, mask, clip_range=(0.2, 0.2)
    )
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    share = ((gradient == 0) & mask).sum() / mask.sum()
    assert clipped_fraction.item() == share.item() > 0


def test_only_the_policy_carries_gradient():
    policy, behaviour, advantage, mask = _random_batch(4)
    for tensor in (policy, behaviour, advantage):
        tensor.requires_grad_()
    loss, clipped_fraction = clipped_policy_gradient_loss(policy, behaviour, advantage, mask, clip_range=(0.2, 0.2))
    loss.sum().backward()
    assert policy.grad is not None
    assert behaviour.grad is None
    assert advantage.grad is None
    assert not clipped_fraction.requires_grad


def test_what_is_under_the_mask_changes_nothing():
    policy, behaviour, advantage, mask = _random_batch(5)
    assert not mask.all()
    dirty_policy = torch.where(mask, policy, torch.nan).requires_grad_()
    dirty_behaviour = torch.where(mask, behaviour, -torch.inf)
    clean = clipped_policy_gradient_loss(policy.requires_grad_(), behaviour, advantage, mask, clip_range=(0.2, 0.2))
    dirty = clipped_policy_gradient_loss(dirty_policy, dirty_behaviour, advantage, mask, clip_range=(0.2, 0.2))
    assert torch.equal(clean[0], dirty[0])
    assert torch.equal(clean[1], dirty[1])
    clean_gradient = torch.autograd.grad(clean[0].sum(), policy)[0]
    assert torch.equal(torch.autograd.grad(dirty[0].sum(), dirty_policy)[0], clean_gradient)
    assert torch.equal(clean_gradient[~mask], torch.zeros(int((~mask).sum()), dtype=torch.float64))


def test_padding_permutation_and_batch_split_change_nothing():
    batch = _random_batch(6)
    policy, behaviour, advantage, mask = batch
    loss, clipped_fraction = clipped_policy_gradient_loss(*batch, clip_range=(0.2, 0.2))
    padding = torch.zeros(6, 3, dtype=torch.float64)
    padded = clipped_policy_gradient_loss(
        torch.cat([policy, padding], 1),
        torch.cat([behaviour, padding], 1),
        advantage,
        torch.cat([mask, torch.zeros(6, 3, dtype=torch.bool)], 1),
        clip_range=(0.2, 0.2),
    )
    torch.testing.assert_close(padded, (loss, clipped_fraction))
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    shuffled = clipped_policy_gradient_loss(*(tensor[order] for tensor in batch), clip_range=(0.2, 0.2))
    torch.testing.assert_close(shuffled, (loss[order], clipped_fraction))
    parts = [
        clipped_policy_gradient_loss(*(tensor[s] for tensor in batch), clip_range=(0.2, 0.2))[0]
        for s in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(torch.cat(parts), loss)


def test_completion_without_tokens_costs_nothing():
    policy, behaviour, advantage, mask = _random_batch(7)
    loss, clipped_fraction = clipped_policy_gradient_loss(
        policy.requires_grad_(), behaviour, advantage, torch.zeros_like(mask), clip_range=(0.2, 0.2)
    )
    assert loss.tolist() == [0] * 6
    assert clipped_fraction.item() == 0
    assert torch.equal(torch.autograd.grad(loss.sum(), policy)[0], torch.zeros_like(policy))


def test_uniform_groups_give_zero_gradient():
    """Unlike the paced objective's, see test_trajectory_balance."""
    parameters = BEHAVIOUR.clone().requires_grad_()
    sample = torch.tensor([1, 3, 6, 1])
    advantage = group_advantage(REWARDS[sample], torch.zeros(4, dtype=torch.long), epsilon=1e-4)
    log_probs = toy_token_log_probs(parameters)[sample]
    loss, _ = clipped_policy_gradient_loss(
        log_probs, toy_token_log_probs(BEHAVIOUR)[sample], advantage, COMPLETION_MASK[sample], clip_range=(0.2, 0.2)
    )
    (gradient,) = torch.autograd.grad(loss.mean(), parameters)
    assert torch.equal(gradient, torch.zeros_like(parameters))


def test_gradient_at_the_behaviour_policy_is_the_policy_gradient():
    """∇loss = −mean of A · ∇ log π / |y|: weights are 1, and nothing is clipped."""
    parameters = BEHAVIOUR.clone().requires_grad_()
    sample = torch.tensor([1, 2, 4, 6])
    advantage = group_advantage(REWARDS[sample], torch.zeros(4, dtype=torch.long), epsilon=1e-4)
    loss, clipped_fraction = clipped_policy_gradient_loss(
        toy_token_log_probs(parameters)[sample],
        toy_token_log_probs(BEHAVIOUR)[sample],
        advantage,
        COMPLETION_MASK[sample],
        clip_range=(0.2, 0.2),
    )
    (gradient,) = torch.autograd.grad(loss.mean(), parameters)
    surrogate = -(advantage * toy_sequence_log_prob(parameters)[sample] / 2).mean()
    (expected,) = torch.autograd.grad(surrogate, parameters)
    torch.testing.assert_close(gradient, expected)
    assert clipped_fraction.item() == 0


# Other advantages.


def test_other_advantages_by_hand():
    """Rewards 1, 0, 0, 0: the mean is 1/4; the others' mean is 0 for the first and 1/3 for the rest."""
    reward = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    group_index = torch.tensor([2, 2, 2, 2, 0])
    centred = torch.tensor([0.75, -0.25, -0.25, -0.25, 0.0], dtype=torch.float64)
    left_out = torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3, 0.0], dtype=torch.float64)
    torch.testing.assert_close(centred_reward(reward, group_index), centred)
    torch.testing.assert_close(leave_one_out_advantage(reward, group_index), left_out)


@given(rewards=st.lists(st.floats(-5, 5), min_size=2, max_size=9), repeats=st.integers(1, 3))
def test_the_left_out_mean_is_that_of_the_others(rewards, repeats):
    reward = torch.tensor(rewards * repeats, dtype=torch.float64)
    group_index = torch.arange(repeats).repeat_interleave(len(rewards))
    found = leave_one_out_advantage(reward, group_index).tolist()
    expected = [r - (sum(rewards) - r) / (len(rewards) - 1) for r in rewards] * repeats
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("advantage", [centred_reward, leave_one_out_advantage])
def test_equal_rewards_give_exactly_no_advantage(advantage):
    reward = torch.full((7,), 0.1)
    assert advantage(reward.requires_grad_(), torch.zeros(7, dtype=torch.long)).tolist() == [0] * 7
    assert not advantage(reward, torch.zeros(7, dtype=torch.long)).requires_grad


# The special cases of the clipped loss.


def test_without_a_normaliser_it_is_the_mean_over_a_completions_tokens():
    policy, behaviour, advantage, _ = _random_batch(8)
    full = torch.ones_like(policy, dtype=torch.bool)
    by_itself = clipped_policy_gradient_loss(policy, behaviour, advantage, full, clip_range=(0.2, 0.2))
    constant = clipped_policy_gradient_loss(
        policy, behaviour, advantage, full, clip_range=(0.2, 0.2), length_normaliser=5.0
    )
    torch.testing.assert_close(by_itself, constant)  # all have 5 tokens: `grpo`, `dapo` and `dr_grpo` divide alike


def test_dr_grpo_weighs_every_token_alike_whatever_its_completion():
    """Two tokens and one token, weights 1, A = 1: −2/10 and −1/10, where `grpo` has −1 and −1."""
    zeros, mask = torch.zeros(2, 2, dtype=torch.float64), torch.tensor([[True, True], [True, False]])
    ones = torch.ones(2, dtype=torch.float64)
    dr_grpo, _ = clipped_policy_gradient_loss(zeros, zeros, ones, mask, clip_range=(0.2, 0.2), length_normaliser=10.0)
    grpo, _ = clipped_policy_gradient_loss(zeros, zeros, ones, mask, clip_range=(0.2, 0.2))
    assert dr_grpo.tolist() == pytest.approx([-0.2, -0.1])
    assert grpo.tolist() == [-1.0, -1.0]


def test_the_mean_length_makes_the_mean_over_completions_one_over_tokens():
    """The aggregation of `dapo`, and in whatever parts the batch is summed up."""
    policy, behaviour, advantage, mask = _random_batch(9)
    normaliser = float(mask.sum()) / len(mask)
    loss, _ = clipped_policy_gradient_loss(
        policy, behaviour, advantage, mask, clip_range=(0.2, 0.28), length_normaliser=normaliser
    )
    weight = (policy - behaviour).exp()
    surrogate = torch.minimum(weight * advantage[:, None], weight.clamp(0.8, 1.28) * advantage[:, None])
    torch.testing.assert_close(loss.mean(), -surrogate[mask].mean())


def test_the_upper_end_of_the_clip_range_holds_back_gains_alone():
    """Weight 1.25: clipped at 1.2 and not at 1.28 where A > 0; where A < 0 the lower end alone counts."""
    policy, behaviour = torch.full((2, 1), math.log(1.25), dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    advantage, mask = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.ones(2, 1, dtype=torch.bool)
    grpo, grpo_clipped = clipped_policy_gradient_loss(policy, behaviour, advantage, mask, clip_range=(0.2, 0.2))
    dapo, dapo_clipped = clipped_policy_gradient_loss(policy, behaviour, advantage, mask, clip_range=(0.2, 0.28))
    assert grpo.tolist() == pytest.approx([-1.2, 1.25])
    assert dapo.tolist() == pytest.approx([-1.25, 1.25])
    assert (grpo_clipped.item(), dapo_clipped.item()) == (0.5, 0.0)


def test_token_weights_multiply_each_token():
    policy, behaviour, advantage, mask = _random_batch(10)
    weight = torch.where(mask, torch.rand(mask.shape, dtype=torch.float64), torch.nan)
    loss, _ = clipped_policy_gradient_loss(
        policy.requires_grad_(), behaviour, advantage, mask, clip_range=(0.2, 0.2), token_weight=weight
    )
    (gradient,) = torch.autograd.grad(loss.sum(), policy, retain_graph=True)
    (plain,) = torch.autograd.grad(
        clipped_policy_gradient_loss(policy, behaviour, advantage, mask, clip_range=(0.2, 0.2))[0].sum(), policy
    )
    torch.testing.assert_close(gradient, torch.where(mask, plain * weight, 0.0))


# REINFORCE.


def test_reinforce_by_hand():
    policy = torch.tensor([[-1.0, -2.0], [-0.5, torch.nan]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    advantage = torch.tensor([2.0, -4.0], dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.5], [2.0, 1.0]], dtype=torch.float64)
    assert reinforce_loss(policy, advantage, mask).tolist() == [6.0, -2.0]
    assert reinforce_loss(policy, advantage, mask, token_weight=weight).tolist() == [4.0, -4.0]


def test_reinforce_is_the_clipped_loss_of_undivided_sums_where_the_policies_agree():
    policy, _, advantage, mask = _random_batch(11)
    policy = torch.where(mask, policy, 0.0).requires_grad_()
    (reinforce,) = torch.autograd.grad(reinforce_loss(policy, advantage, mask).sum(), policy)
    clipped, _ = clipped_policy_gradient_loss(
        policy, policy.detach(), advantage, mask, clip_range=(0.2, 0.2), length_normaliser=1.0
    )
    torch.testing.assert_close(torch.autograd.grad(clipped.sum(), policy)[0], reinforce)


def test_leave_one_out_gradient_is_that_of_the_expected_reward():
    """Over all pairs of completions of the toy model, drawn independently: unbiased, to rounding."""
    parameters = BEHAVIOUR.clone().requires_grad_()
    log_probs = toy_token_log_probs(parameters)
    probability = toy_sequence_log_prob(parameters).exp()
    num_completions = len(probability)
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(num_completions):
        for j in range(num_completions):
            pair = torch.tensor([i, j])
            advantage = leave_one_out_advantage(REWARDS[pair], torch.zeros(2, dtype=torch.long))
            loss_of_pair = reinforce_loss(log_probs[pair], advantage, COMPLETION_MASK[pair]).mean()
            loss = loss + (probability[i] * probability[j]).detach() * loss_of_pair
    (gradient,) = torch.autograd.grad(loss, parameters, retain_graph=True)
    (expected,) = torch.autograd.grad(-(probability * REWARDS).sum(), parameters)
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=1e-10)
