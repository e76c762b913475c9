"""The objectives, behind one seam: what a completion costs, given its log-probabilities and its reward."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float

from paced_rl.objectives.log_probs import sequence_log_prob
from paced_rl.objectives.policy_gradient import clipped_policy_gradient_loss, reinforce_loss
from paced_rl.objectives.trajectory_balance import trajectory_balance_residual
from paced_rl.parameters import TrainingParameters


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInputs:
    """B completions of one forward pass. Only `policy_log_probs` carries gradient."""

    policy_log_probs: Float[torch.Tensor, "B T"]
    behaviour_log_probs: Float[torch.Tensor, "B T"]
    completion_mask: Bool[torch.Tensor, "B T"]
    reward: Float[torch.Tensor, "B"]
    advantage: Float[torch.Tensor, "B"]
    """Of the completion within its group; read by the policy gradients."""
    log_z: Float[torch.Tensor, "B"]
    """Of the completion's prompt, detached: the head's under `paced`, the group's best one under `vargrad`."""
    length_normaliser: float | None = None
    """Tokens that a completion's sum is divided by; None is its own number. Read by the clipped objectives."""
    token_weight: Float[torch.Tensor, "B T"] | None = None
    """Of each token's term, None for 1; read by the policy gradients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutputs:
    """What one forward pass cost, per completion; diagnostics carry no gradient."""

    loss: Float[torch.Tensor, "B"]
    residual: Float[torch.Tensor, "B"] | None = None
    clipped_fraction: Float[torch.Tensor, ""] | None = None
    """Share of this pass's completion tokens that are clipped."""


def balance_loss(inputs: LossInputs, parameters: TrainingParameters) -> LossOutputs:
    """Squared trajectory-balance residual, anchored at the behaviour policy (arXiv 2602.12642, eq. 6).

    `paced` and `vargrad` (arXiv 2503.18929) differ in where log Z is from. It is a constant here for both: the head
    takes its own step on the same residual and shares no parameter with the policy, so the joint gradient is the same,
    and around the group's mean the gradient with respect to that mean is zero.
    """
    residual = trajectory_balance_residual(
        log_z=inputs.log_z,
        policy_sequence_log_prob=sequence_log_prob(inputs.policy_log_probs, inputs.completion_mask),
        behaviour_sequence_log_prob=sequence_log_prob(inputs.behaviour_log_probs, inputs.completion_mask),
        reward=inputs.reward,
        reward_temperature=parameters.reward_temperature,
    )
    return LossOutputs(loss=residual**2, residual=residual.detach())


def clipped_loss(inputs: LossInputs, parameters: TrainingParameters) -> LossOutputs:
    """Clipped importance weight × advantage: `grpo` (arXiv 2402.03300), `dr_grpo` (2503.20783), `dapo` (2503.14476).

    They differ in the advantage, in what the sum over tokens is divided by, and in the clip range.
    """
    loss, clipped_fraction = clipped_policy_gradient_loss(
        inputs.policy_log_probs,
        inputs.behaviour_log_probs,
        inputs.advantage,
        inputs.completion_mask,
        clip_range=parameters.clip_range,
        length_normaliser=inputs.length_normaliser,
        token_weight=inputs.token_weight,
    )
    return LossOutputs(loss=loss, clipped_fraction=clipped_fraction.detach())


def leave_one_out_loss(inputs: LossInputs, parameters: TrainingParameters) -> LossOutputs:
    """REINFORCE against the mean of the siblings (arXiv 2402.14740)."""
    loss = reinforce_loss(
        inputs.policy_log_probs, inputs.advantage, inputs.completion_mask, token_weight=inputs.token_weight
    )
    return LossOutputs(loss=loss)


POLICY_LOSSES: dict[str, Callable[[LossInputs, TrainingParameters], LossOutputs]] = {
    "paced": balance_loss,
    "vargrad": balance_loss,
    "grpo": clipped_loss,
    "dr_grpo": clipped_loss,
    "dapo": clipped_loss,
    "rloo": leave_one_out_loss,
}
"""By the name that `training.objective` takes."""
