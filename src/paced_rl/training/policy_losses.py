"""The objectives, behind one seam: what a completion costs, given its log-probabilities and its reward."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float

from paced_rl.objectives.grpo import clipped_policy_gradient_loss
from paced_rl.objectives.log_probs import sequence_log_prob
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
    """Of the completion within its group; read by `grpo`."""
    log_z: Float[torch.Tensor, "B"]
    """Of the completion's prompt, detached; read by `paced`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutputs:
    """What one forward pass cost, per completion; diagnostics carry no gradient."""

    loss: Float[torch.Tensor, "B"]
    residual: Float[torch.Tensor, "B"] | None = None
    clipped_fraction: Float[torch.Tensor, ""] | None = None
    """Share of this pass's completion tokens that are clipped."""


def paced_loss(inputs: LossInputs, parameters: TrainingParameters) -> LossOutputs:
    """Squared trajectory-balance residual, anchored at the behaviour policy (arXiv 2602.12642, eq. 6).

    The log-Z head takes its own step on the same residual, so log Z is a constant here: policy and head share no
    parameter, and the joint gradient is the same.
    """
    residual = trajectory_balance_residual(
        log_z=inputs.log_z,
        policy_sequence_log_prob=sequence_log_prob(inputs.policy_log_probs, inputs.completion_mask),
        behaviour_sequence_log_prob=sequence_log_prob(inputs.behaviour_log_probs, inputs.completion_mask),
        reward=inputs.reward,
        reward_temperature=parameters.reward_temperature,
    )
    return LossOutputs(loss=residual**2, residual=residual.detach())


def grpo_loss(inputs: LossInputs, parameters: TrainingParameters) -> LossOutputs:
    """Clipped importance weight × group-normalised advantage, mean over a completion's tokens (arXiv 2402.03300)."""
    loss, clipped_fraction = clipped_policy_gradient_loss(
        inputs.policy_log_probs,
        inputs.behaviour_log_probs,
        inputs.advantage,
        inputs.completion_mask,
        clip_ratio=parameters.clip_ratio,
    )
    return LossOutputs(loss=loss, clipped_fraction=clipped_fraction.detach())


POLICY_LOSSES: dict[str, Callable[[LossInputs, TrainingParameters], LossOutputs]] = {
    "paced": paced_loss,
    "grpo": grpo_loss,
}
"""By the name that `training.objective` takes."""
