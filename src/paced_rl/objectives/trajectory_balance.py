"""The paced objective: trajectory balance against the behaviour policy tilted by the reward.

The target is π*(y|x) = π_old(y|x) · exp(r(x,y)/β) / Z(x). Where π_θ = π* and log Z_φ = log Z, every residual is 0.

Source: "Beyond Normalization: Rethinking the Partition Function as a Difficulty Scheduler for RLVR", Kim et al.,
https://arxiv.org/abs/2602.12642.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paced_rl.objectives.groups import group_mean


def trajectory_balance_residual(
    *,
    log_z: Float[Tensor, "B"],
    policy_sequence_log_prob: Float[Tensor, "B"],
    behaviour_sequence_log_prob: Float[Tensor, "B"],
    reward: Float[Tensor, "B"],
    reward_temperature: float,
) -> Float[Tensor, "B"]:
    """How far each completion is from balance, in nats.

    residual = log Z_φ(x) + log π_θ(y|x) − log π_old(y|x) − r(x,y)/β

    Zero for every completion at the optimum. At π_θ = π_old it is (β·log Z_φ − r)/β, so that the gradient of its square
    is (2/β)·(p̂ − r)·∇log π_θ with p̂ = β·log Z_φ: REINFORCE with a learned baseline, times 2/β.

    Args:
        log_z: the prompt's estimate, repeated for each of its completions. Carries gradient to the head; detach it for
            completions that must not train the head.
        policy_sequence_log_prob: SUM over tokens, nats. Carries gradient to the policy.
        behaviour_sequence_log_prob: SUM over tokens, nats. A constant: its gradient is stopped here.
        reward: the verifier's raw verdict, never normalised. A constant.
        reward_temperature: β > 0.

    Returns:
        One residual per completion.
    """
    return log_z + policy_sequence_log_prob - behaviour_sequence_log_prob.detach() - reward / reward_temperature


def trajectory_balance_loss(
    residual: Float[Tensor, "B"], weight: Float[Tensor, "B"] | None = None
) -> Float[Tensor, ""]:
    """Mean of the squared residuals: Σ weight · residual² / Σ weight.

    The denominator is the sum over this call: a caller that accumulates parts of a batch weighs each part by its share
    of the whole batch's weight.

    Args:
        residual: nats, see `trajectory_balance_residual`.
        weight: not negative; a constant, its gradient is stopped here. None weighs all alike.

    Returns:
        The loss, in nats²; 0 where all weights are 0.
    """
    if weight is None:
        return residual.square().mean()
    constant = weight.detach()
    total = constant.sum()
    return (constant * residual.square()).sum() / torch.where(total > 0, total, 1.0)


def best_log_z(
    *,
    policy_sequence_log_prob: Float[Tensor, "B"],
    behaviour_sequence_log_prob: Float[Tensor, "B"],
    reward: Float[Tensor, "B"],
    group_index: Int[Tensor, "B"],
    reward_temperature: float,
) -> Float[Tensor, "B"]:
    """The log Z of each prompt with the smallest loss on these completions, for the policy as it is.

    log Z* = mean over the group of (log π_old − log π_θ + r/β)

    Over all of π_old this is p_old/β + KL(π_old ‖ π_θ), Proposition 4.1 of the paper, which makes β·log Z an accuracy.
    At π_θ = π_old it is the group's observed accuracy over β. Taken as the log Z of every step, in place of a learned
    one, it makes the objective `vargrad` (https://arxiv.org/abs/2503.18929): the mean squared residual is then the
    variance of log π_old − log π_θ + r/β within groups.

    Args:
        policy_sequence_log_prob: SUM over tokens, nats.
        behaviour_sequence_log_prob: SUM over tokens, nats.
        reward: the verifier's raw verdict.
        group_index: completions of one prompt share a number.
        reward_temperature: β > 0.

    Returns:
        The prompt's value, repeated for each of its completions; without gradient.
    """
    balanced = behaviour_sequence_log_prob - policy_sequence_log_prob + reward / reward_temperature
    return group_mean(balanced.detach(), group_index)


def estimated_accuracy(log_z: Float[Tensor, "*shape"], reward_temperature: float) -> Float[Tensor, "*shape"]:
    """The behaviour policy's accuracy according to log Z, its distance from the policy neglected: p̂ = β · log Z.

    Exact is p_old = β·log Z* − β·KL(π_old ‖ π_θ): the estimate is high by β·KL, and exact where the two policies agree.

    Args:
        log_z: nats.
        reward_temperature: β > 0.

    Returns:
        Accuracies; in [0, 1] if log Z is in [0, 1/β], as the bounded head's is.
    """
    return reward_temperature * log_z
