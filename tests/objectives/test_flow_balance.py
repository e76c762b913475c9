"""FlowRL and GFlowRL: by hand, against slow loops, at the exact optimum, and in relation to the paced objective."""

import math

import pytest
import torch
from toy_language_model import (
    BEHAVIOUR,
    COMPLETION_MASK,
    EXACT_SAMPLE,
    REWARDS,
    draw_parameters,
    toy_sequence_log_prob,
    toy_token_log_probs,
)

from paced_rl.objectives.flow_balance import (
    clipped_flow_residual,
    clipped_sequence_weight,
    flow_balance_residual,
    group_flow_log_z,
)
from paced_rl.objectives.log_probs import mean_token_log_prob
from paced_rl.objectives.policy_gradient import group_advantage
from paced_rl.objectives.trajectory_balance import trajectory_balance_residual

SCALE = 1.5
OPEN = (math.inf, math.inf)


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_batch(seed: int, size: int = 12) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    names = ("policy_mean_log_prob", "behaviour_mean_log_prob", "reference_mean_log_prob")
    batch = {name: -2 * torch.rand(size, generator=draw, dtype=torch.float64) for name in names}
    return {**batch, "reward": torch.randint(2, (size,), generator=draw).double()}


def random_groups(seed: int, size: int = 12) -> torch.Tensor:
    return torch.randint(3, (size,), generator=torch.Generator().manual_seed(seed)) * 5 - 2


def group_log_z(batch: dict[str, torch.Tensor], groups: torch.Tensor) -> torch.Tensor:
    kept = {name: value for name, value in batch.items() if name != "policy_mean_log_prob"}
    return group_flow_log_z(**kept, group_index=groups, reward_scale=SCALE)


# The definitions.


def test_flowrl_by_hand() -> None:
    """Rewards 1, 0, 0 have mean 1/3 and sample standard deviation √(1/3): r̂ = 2/√3 for the first."""
    normalised = group_advantage(doubles(1, 0, 0), torch.zeros(3, dtype=torch.long), epsilon=0.0)
    assert normalised.tolist() == pytest.approx([2 / math.sqrt(3), -1 / math.sqrt(3), -1 / math.sqrt(3)])
    residual = flow_balance_residual(
        log_z=doubles(0.5, 0.5, 0.5),
        policy_mean_log_prob=doubles(-1.0, -2.0, -0.5),
        reference_mean_log_prob=doubles(-1.5, -1.75, -0.5),
        reward=normalised,
        reward_scale=15,
    )
    assert residual.tolist() == pytest.approx([1.0 - 30 / math.sqrt(3), 0.25 + 15 / math.sqrt(3), 0.5 + 15 / 3**0.5])
    # π_θ/π_old = e^0.1, e^-1 and e^2, of which 1 ± 0.2 keeps the first alone.
    weight = clipped_sequence_weight(doubles(-4.9, -6.0, -1.0), doubles(-5.0, -5.0, -3.0), low=0.8, high=1.2)
    assert weight.tolist() == pytest.approx([math.exp(0.1), 0.8, 1.2])


def test_gflowrl_by_hand() -> None:
    """Two completions, one right. log Ẑ = ((1.5 + 0.2) + (0 − 0.1))/2 = 0.8; gaps 0.8 − 0.2 − 1.5 and 0.8 + 0.1."""
    batch = {
        "behaviour_mean_log_prob": doubles(-1.2, -0.9),
        "reference_mean_log_prob": doubles(-1.0, -1.0),
        "reward": doubles(1, 0),
    }
    log_z = group_flow_log_z(**batch, group_index=torch.zeros(2, dtype=torch.long), reward_scale=SCALE)
    assert log_z.tolist() == pytest.approx([0.8, 0.8])
    policy = doubles(-1.15, -1.0)
    rest = {**batch, "log_z": log_z, "policy_mean_log_prob": policy, "reward_scale": SCALE}
    assert clipped_flow_residual(**rest, gap_range=OPEN).tolist() == pytest.approx([-0.9 + 0.05, 0.9 - 0.1])
    assert clipped_flow_residual(**rest, gap_range=(0.2, 0.28)).tolist() == pytest.approx([-0.2 + 0.05, 0.28 - 0.1])


@pytest.mark.parametrize("seed", range(3))
def test_both_equal_a_loop(seed: int) -> None:
    batch, groups = random_batch(seed), random_groups(seed + 50)
    rows = [{name: float(value[i]) for name, value in batch.items()} for i in range(12)]
    asked = [SCALE * row["reward"] + row["reference_mean_log_prob"] - row["behaviour_mean_log_prob"] for row in rows]
    expected_log_z, expected_residual = [], []
    for i, row in enumerate(rows):
        members = [j for j in range(12) if groups[j] == groups[i]]
        expected_log_z.append(sum(asked[j] for j in members) / len(members))
        gap = expected_log_z[i] - asked[i]
        moved = row["policy_mean_log_prob"] - row["behaviour_mean_log_prob"]
        expected_residual.append(min(max(gap, -0.3), 0.5) + moved)

    log_z = group_log_z(batch, groups)
    assert log_z.tolist() == pytest.approx(expected_log_z, abs=1e-12)
    residual = clipped_flow_residual(**batch, log_z=log_z, reward_scale=SCALE, gap_range=(0.3, 0.5))
    assert residual.tolist() == pytest.approx(expected_residual, abs=1e-12)


def test_gradients() -> None:
    batch = random_batch(7)
    policy = batch.pop("policy_mean_log_prob").requires_grad_()
    log_z = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(8)).requires_grad_()
    behaviour = batch.pop("behaviour_mean_log_prob")

    def flow(log_z: torch.Tensor, policy: torch.Tensor) -> torch.Tensor:
        return flow_balance_residual(log_z=log_z, policy_mean_log_prob=policy, **batch, reward_scale=SCALE) ** 2

    assert torch.autograd.gradcheck(flow, (log_z, policy))
    gap_range = (0.1, 0.1)
    residual = clipped_flow_residual(
        **batch,
        log_z=log_z.detach(),
        policy_mean_log_prob=policy,
        behaviour_mean_log_prob=behaviour,
        reward_scale=SCALE,
        gap_range=gap_range,
    )
    (gradient,) = torch.autograd.grad(residual.sum(), policy)
    assert torch.equal(gradient, torch.ones_like(gradient))  # a clipped gap bounds the residual, not its gradient


def test_only_policy_and_log_z_carry_gradient() -> None:
    batch = {name: value.requires_grad_(name != "reward") for name, value in random_batch(9).items()}
    log_z = group_log_z(batch, random_groups(10))
    assert not log_z.requires_grad
    residual = clipped_flow_residual(**batch, log_z=log_z, reward_scale=SCALE, gap_range=OPEN)
    residual.sum().backward()
    assert batch["policy_mean_log_prob"].grad is not None
    assert batch["behaviour_mean_log_prob"].grad is batch["reference_mean_log_prob"].grad is None
    weight = clipped_sequence_weight(batch["policy_mean_log_prob"], doubles(0.0).expand(12), low=0.0, high=2.0)
    assert not weight.requires_grad


def test_weights_neither_overflow_nor_vanish_below_their_bounds() -> None:
    weight = clipped_sequence_weight(doubles(900.0, -900.0), doubles(-900.0, 900.0), low=0.8, high=1.2)
    assert weight.tolist() == [1.2, 0.8]


# The optimum. Of completions of one length n, the target is π ∝ π_ref · exp(n·β'·r), exactly.


def long_ones() -> torch.Tensor:
    """The completions of two tokens; the end at once is the seventh."""
    return torch.arange(1, 7)


def optimum_on_long_ones(reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean log-probabilities under π_ref, under π ∝ π_ref · exp(2·β'·r)) of the six completions of two tokens."""
    of_reference = toy_sequence_log_prob(reference)[long_ones()]
    weight = of_reference + 2 * SCALE * REWARDS[long_ones()]
    return of_reference / 2, (weight - weight.logsumexp(0)) / 2


def test_both_residuals_are_zero_at_the_target() -> None:
    reference, target = optimum_on_long_ones(draw_parameters(3))
    rewards, groups = REWARDS[long_ones()], torch.zeros(6, dtype=torch.long)
    batch = {"behaviour_mean_log_prob": target, "reference_mean_log_prob": reference, "reward": rewards}
    log_z = group_flow_log_z(**batch, group_index=groups, reward_scale=SCALE)
    exact = (toy_sequence_log_prob(draw_parameters(3))[long_ones()] + 2 * SCALE * rewards).logsumexp(0) / 2
    assert log_z.tolist() == pytest.approx([float(exact)] * 6, abs=1e-12)

    clipped = clipped_flow_residual(
        **batch, log_z=log_z, policy_mean_log_prob=target, reward_scale=SCALE, gap_range=(0.01, 0.01)
    )
    balance = flow_balance_residual(
        log_z=log_z,
        policy_mean_log_prob=target,
        reference_mean_log_prob=reference,
        reward=rewards,
        reward_scale=SCALE,
    )
    assert clipped.abs().max() < 1e-12  # the clip does nothing there
    assert balance.abs().max() < 1e-12


def test_the_log_z_of_flowrl_says_nothing_of_the_accuracy() -> None:
    """At π_θ = π_ref the best log Z is the mean of −β'·r̂ … which is 0 for a prompt of any accuracy but 0 and 1."""
    own = mean_token_log_prob(toy_token_log_probs(BEHAVIOUR)[EXACT_SAMPLE], COMPLETION_MASK[EXACT_SAMPLE])
    for num_right in (1, 4, 15):
        rewards = (torch.arange(16) < num_right).double()
        normalised = group_advantage(rewards, torch.zeros(16, dtype=torch.long), epsilon=1e-4)
        asked = -flow_balance_residual(
            log_z=torch.zeros(16, dtype=torch.float64),
            policy_mean_log_prob=own,
            reference_mean_log_prob=own,
            reward=normalised,
            reward_scale=15,
        )
        assert float(asked.mean()) == pytest.approx(0.0, abs=1e-12)
        assert asked.abs().max() > 1


# Relations.


def test_of_one_token_and_anchored_at_the_behaviour_policy_it_is_the_paced_residual() -> None:
    batch, log_z = random_batch(20), random_batch(21)["policy_mean_log_prob"]
    ours = flow_balance_residual(
        log_z=log_z,
        policy_mean_log_prob=batch["policy_mean_log_prob"],
        reference_mean_log_prob=batch["behaviour_mean_log_prob"],
        reward=batch["reward"],
        reward_scale=1 / 0.05,
    )
    paced = trajectory_balance_residual(
        log_z=log_z,
        policy_sequence_log_prob=batch["policy_mean_log_prob"],
        behaviour_sequence_log_prob=batch["behaviour_mean_log_prob"],
        reward=batch["reward"],
        reward_temperature=0.05,
    )
    torch.testing.assert_close(ours, paced)


def test_without_a_clip_gflowrl_is_flow_balance_at_the_groups_log_z() -> None:
    batch, groups = random_batch(22), random_groups(23)
    log_z = group_log_z(batch, groups)
    open_gap = clipped_flow_residual(**batch, log_z=log_z, reward_scale=SCALE, gap_range=OPEN)
    del batch["behaviour_mean_log_prob"]
    torch.testing.assert_close(open_gap, flow_balance_residual(**batch, log_z=log_z, reward_scale=SCALE))


def test_gaps_of_a_group_sum_to_zero_and_do_not_see_shifted_rewards() -> None:
    batch, groups = random_batch(24), random_groups(25)
    batch["policy_mean_log_prob"] = batch["behaviour_mean_log_prob"]  # the residual is then the gap
    gaps = clipped_flow_residual(**batch, log_z=group_log_z(batch, groups), reward_scale=SCALE, gap_range=OPEN)
    for group in groups.unique():
        assert float(gaps[groups == group].sum()) == pytest.approx(0.0, abs=1e-12)
    shifted = {**batch, "reward": batch["reward"] + 3}
    again = clipped_flow_residual(**shifted, log_z=group_log_z(shifted, groups), reward_scale=SCALE, gap_range=OPEN)
    torch.testing.assert_close(again, gaps)


def test_permutation_changes_nothing() -> None:
    batch, groups = random_batch(26), random_groups(27)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(28))
    shuffled = {name: value[order] for name, value in batch.items()}
    torch.testing.assert_close(group_log_z(shuffled, groups[order]), group_log_z(batch, groups)[order])
