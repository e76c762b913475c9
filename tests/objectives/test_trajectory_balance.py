"""The paced objective against a language model whose partition function is a sum of seven terms."""

import pytest
import torch
from toy_language_model import (
    BEHAVIOUR,
    EXACT_SAMPLE,
    REWARD_TEMPERATURE,
    REWARDS,
    draw_parameters,
    exact_log_z,
    optimal_parameters,
    toy_sequence_log_prob,
)

from paced_rl.objectives.divergence import sampled_kl
from paced_rl.objectives.trajectory_balance import (
    best_log_z,
    estimated_accuracy,
    trajectory_balance_loss,
    trajectory_balance_residual,
)


def _residual(parameters, log_z, behaviour=BEHAVIOUR, sample=EXACT_SAMPLE):
    """Residuals of sampled completions of one prompt under the toy model."""
    return trajectory_balance_residual(
        log_z=log_z.expand(len(sample)),
        policy_sequence_log_prob=toy_sequence_log_prob(parameters)[sample],
        behaviour_sequence_log_prob=toy_sequence_log_prob(behaviour)[sample],
        reward=REWARDS[sample],
        reward_temperature=REWARD_TEMPERATURE,
    )


def _best_log_z(parameters, sample=EXACT_SAMPLE):
    return best_log_z(
        policy_sequence_log_prob=toy_sequence_log_prob(parameters)[sample],
        behaviour_sequence_log_prob=toy_sequence_log_prob(BEHAVIOUR)[sample],
        reward=REWARDS[sample],
        group_index=torch.zeros(len(sample), dtype=torch.long),
        reward_temperature=REWARD_TEMPERATURE,
    )[0]


def _random_batch(seed, num_completions=12):
    generator = torch.Generator().manual_seed(seed)
    return {
        "log_z": torch.rand(num_completions, generator=generator, dtype=torch.float64) * 20,
        "policy_sequence_log_prob": -10 * torch.rand(num_completions, generator=generator, dtype=torch.float64),
        "behaviour_sequence_log_prob": -10 * torch.rand(num_completions, generator=generator, dtype=torch.float64),
        "reward": torch.randint(2, (num_completions,), generator=generator).double(),
    }


def _random_groups(seed, num_completions=12):
    return torch.randint(4, (num_completions,), generator=torch.Generator().manual_seed(seed)) * 7 - 3


# The definition.


def test_residual_by_hand():
    residual = trajectory_balance_residual(
        log_z=torch.tensor([10.0, 10.0]),
        policy_sequence_log_prob=torch.tensor([-3.0, -4.0]),
        behaviour_sequence_log_prob=torch.tensor([-2.5, -4.5]),
        reward=torch.tensor([1.0, 0.0]),
        reward_temperature=0.05,
    )
    torch.testing.assert_close(residual, torch.tensor([10 - 3 + 2.5 - 20, 10 - 4 + 4.5]))


def test_loss_by_hand():
    residual = torch.tensor([1.0, -2.0, 3.0])
    assert trajectory_balance_loss(residual).item() == pytest.approx(14 / 3)
    assert trajectory_balance_loss(residual, torch.tensor([1.0, 6.0, 0.0])).item() == pytest.approx(25 / 7)
    assert trajectory_balance_loss(residual, torch.zeros(3)).item() == 0


def test_residual_and_loss_equal_a_loop():
    batch, weight = _random_batch(0), torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    residual = trajectory_balance_residual(**batch, reward_temperature=0.3)
    total = total_weight = 0.0
    for i in range(12):
        expected = (
            batch["log_z"][i].item()
            + batch["policy_sequence_log_prob"][i].item()
            - batch["behaviour_sequence_log_prob"][i].item()
            - batch["reward"][i].item() / 0.3
        )
        assert residual[i].item() == pytest.approx(expected, abs=1e-12)
        total += weight[i].item() * expected**2
        total_weight += weight[i].item()
    assert trajectory_balance_loss(residual, weight).item() == pytest.approx(total / total_weight, abs=1e-10)


def test_best_log_z_equals_a_loop():
    batch, groups = _random_batch(2), _random_groups(3)
    del batch["log_z"]
    result = best_log_z(**batch, group_index=groups, reward_temperature=0.3)
    for i in range(12):
        members = [j for j in range(12) if groups[j] == groups[i]]
        expected = sum(
            batch["behaviour_sequence_log_prob"][j].item()
            - batch["policy_sequence_log_prob"][j].item()
            + batch["reward"][j].item() / 0.3
            for j in members
        ) / len(members)
        assert result[i].item() == pytest.approx(expected, abs=1e-12)


def test_gradients():
    batch = _random_batch(4)
    log_z, policy = batch["log_z"].requires_grad_(), batch["policy_sequence_log_prob"].requires_grad_()
    weight = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def loss(log_z, policy):
        inputs = {**batch, "log_z": log_z, "policy_sequence_log_prob": policy}
        return trajectory_balance_loss(trajectory_balance_residual(**inputs, reward_temperature=0.3), weight)

    assert torch.autograd.gradcheck(loss, (log_z, policy))


def test_behaviour_policy_weight_and_best_log_z_carry_no_gradient():
    batch = {name: value.requires_grad_() for name, value in _random_batch(6).items()}
    weight = torch.ones(12, dtype=torch.float64, requires_grad=True)
    trajectory_balance_loss(trajectory_balance_residual(**batch, reward_temperature=0.3), weight).backward()
    assert batch["behaviour_sequence_log_prob"].grad is None
    assert weight.grad is None
    del batch["log_z"]
    assert not best_log_z(**batch, group_index=_random_groups(7), reward_temperature=0.3).requires_grad


# The theory, on the toy model.


@pytest.mark.parametrize("seed", range(5))
def test_residual_and_gradient_are_zero_at_the_optimum(seed):
    behaviour = draw_parameters(seed)
    parameters = optimal_parameters(behaviour).requires_grad_()
    log_z = exact_log_z(behaviour).requires_grad_()
    residual = _residual(parameters, log_z, behaviour, sample=torch.arange(7))
    torch.testing.assert_close(residual, torch.zeros(7, dtype=torch.float64), atol=1e-12, rtol=0)
    gradients = torch.autograd.grad(trajectory_balance_loss(residual), (parameters, log_z))
    for gradient in gradients:
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_is_log_z_less_divergence(seed):
    """p_old = β · log Z* − β · KL(π_old ‖ π_θ), for any policy."""
    parameters = draw_parameters(seed)
    behaviour_log_prob, policy_log_prob = toy_sequence_log_prob(BEHAVIOUR), toy_sequence_log_prob(parameters)
    probability = behaviour_log_prob.exp()
    accuracy = (probability * REWARDS).sum()
    divergence = (probability * (behaviour_log_prob - policy_log_prob)).sum()
    estimate = estimated_accuracy(_best_log_z(parameters), REWARD_TEMPERATURE)
    assert accuracy.item() == pytest.approx((estimate - REWARD_TEMPERATURE * divergence).item(), abs=1e-10)
    sampled = sampled_kl(
        policy_sequence_log_prob=policy_log_prob[EXACT_SAMPLE],
        behaviour_sequence_log_prob=behaviour_log_prob[EXACT_SAMPLE],
    )
    assert sampled.item() == pytest.approx(divergence.item(), abs=1e-12)


def test_best_log_z_is_the_accuracy_where_the_policies_agree_and_log_z_at_the_optimum():
    estimate = estimated_accuracy(_best_log_z(BEHAVIOUR), REWARD_TEMPERATURE)
    assert estimate.item() == pytest.approx(REWARDS[EXACT_SAMPLE].mean().item(), abs=1e-14)
    assert estimate.item() == pytest.approx(4 / 16, abs=1e-14)
    at_optimum = _best_log_z(optimal_parameters(BEHAVIOUR))
    assert at_optimum.item() == pytest.approx(exact_log_z(BEHAVIOUR).item(), abs=1e-12)


def test_policy_gradient_at_the_behaviour_policy_is_reinforce_with_a_baseline():
    """∇loss = mean of (2/β) · (p̂ − r) · ∇log π, whatever p̂; so a group that is all right still has a gradient."""
    accuracy_estimate = 0.37
    log_z = torch.tensor(accuracy_estimate / REWARD_TEMPERATURE, dtype=torch.float64)
    for sample in (EXACT_SAMPLE, torch.tensor([1, 3, 6, 1])):
        parameters = BEHAVIOUR.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            trajectory_balance_loss(_residual(parameters, log_z, sample=sample)), parameters
        )
        expected = torch.zeros_like(parameters)
        for completion in sample:
            (score,) = torch.autograd.grad(toy_sequence_log_prob(parameters)[completion], parameters)
            expected += 2 / REWARD_TEMPERATURE * (accuracy_estimate - REWARDS[completion]) * score / len(sample)
        torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=1e-12)
        assert gradient.abs().max() > 1


def test_optimiser_recovers_log_z_and_the_target_policy():
    """From π_old and log Z = 0, with samples of π_old alone, it finds the log Z of the summation, and π*."""
    parameters = BEHAVIOUR.clone().requires_grad_()
    log_z = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [parameters, log_z], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=0
    )

    def closure():
        optimiser.zero_grad()
        loss = trajectory_balance_loss(_residual(parameters, log_z))
        loss.backward()
        return loss

    optimiser.step(closure)
    assert log_z.item() == pytest.approx(exact_log_z(BEHAVIOUR).item(), abs=1e-6)
    optimum = toy_sequence_log_prob(optimal_parameters(BEHAVIOUR))
    torch.testing.assert_close(toy_sequence_log_prob(parameters.detach()), optimum, atol=1e-5, rtol=0)


def test_learned_log_z_of_a_fixed_policy_is_the_group_mean():
    parameters = draw_parameters(11)
    sample = torch.tensor([0, 3, 3, 6, 5])
    log_z = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([log_z], lr=0.25)
    for _ in range(60):
        optimiser.zero_grad()
        trajectory_balance_loss(_residual(parameters, log_z, sample=sample)).backward()
        optimiser.step()
    assert log_z.item() == pytest.approx(_best_log_z(parameters, sample).item(), abs=1e-10)


# Relations.


def test_permutation_and_batch_split_change_nothing():
    batch, groups = _random_batch(8), _random_groups(9)
    residual = trajectory_balance_residual(**batch, reward_temperature=0.3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(10))
    shuffled = {name: value[order] for name, value in batch.items()}
    assert torch.equal(trajectory_balance_residual(**shuffled, reward_temperature=0.3), residual[order])
    parts = [{name: value[s] for name, value in batch.items()} for s in (slice(0, 5), slice(5, 12))]
    split = [trajectory_balance_residual(**part, reward_temperature=0.3) for part in parts]
    assert torch.equal(torch.cat(split), residual)
    accumulated = (5 * trajectory_balance_loss(split[0]) + 7 * trajectory_balance_loss(split[1])) / 12
    torch.testing.assert_close(accumulated, trajectory_balance_loss(residual))
    del batch["log_z"], shuffled["log_z"]
    whole = best_log_z(**batch, group_index=groups, reward_temperature=0.3)
    again = best_log_z(**shuffled, group_index=groups[order], reward_temperature=0.3)
    torch.testing.assert_close(again, whole[order], atol=1e-12, rtol=0)


def test_names_of_groups_do_not_matter():
    batch, groups = _random_batch(11), _random_groups(12)
    del batch["log_z"]
    first = best_log_z(**batch, group_index=groups, reward_temperature=0.3)
    assert torch.equal(
        best_log_z(**batch, group_index=1000 - 5 * groups, reward_temperature=0.3).sort()[0], first.sort()[0]
    )


def test_equal_weights_are_no_weights():
    residual = trajectory_balance_residual(**_random_batch(13), reward_temperature=0.3)
    weighted = trajectory_balance_loss(residual, torch.full((12,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(weighted, trajectory_balance_loss(residual))


@pytest.mark.parametrize("shift", [-0.5, 0.25, 3.0])
def test_shifting_the_reward_shifts_log_z(shift):
    batch, groups = _random_batch(14), _random_groups(15)
    del batch["log_z"]
    before = best_log_z(**batch, group_index=groups, reward_temperature=0.3)
    shifted = {**batch, "reward": batch["reward"] + shift}
    after = best_log_z(**shifted, group_index=groups, reward_temperature=0.3)
    torch.testing.assert_close(after, before + shift / 0.3)
    residual = trajectory_balance_residual(log_z=before, **batch, reward_temperature=0.3)
    torch.testing.assert_close(trajectory_balance_residual(log_z=after, **shifted, reward_temperature=0.3), residual)


def test_vargrad_is_paced_at_the_best_constant_log_z():
    """With log Z at the group's best, value and gradient are those of the group's variance of the balance."""
    sample = torch.tensor([0, 1, 1, 3, 5, 6, 2, 0])
    first, second = draw_parameters(16).requires_grad_(), draw_parameters(16).requires_grad_()
    paced = trajectory_balance_loss(_residual(first, _best_log_z(first, sample), sample=sample))
    paced.backward()
    balance = (
        toy_sequence_log_prob(BEHAVIOUR)[sample]
        - toy_sequence_log_prob(second)[sample]
        + REWARDS[sample] / REWARD_TEMPERATURE
    )
    vargrad = balance.var(correction=0)
    vargrad.backward()
    torch.testing.assert_close(paced, vargrad)
    torch.testing.assert_close(first.grad, second.grad, atol=1e-12, rtol=1e-12)
