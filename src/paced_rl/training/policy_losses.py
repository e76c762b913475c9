"""The objectives, behind one seam: what a completion costs, given its log-probabilities and its reward."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float

from paced_rl.objectives.divergence import reference_kl_k3
from paced_rl.objectives.flow_balance import clipped_flow_residual, clipped_sequence_weight, flow_balance_residual
from paced_rl.objectives.log_probs import mean_token_log_prob, sequence_log_prob
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
    """Of the completion within its group; read by the policy gradients and by `flowrl`."""
    log_z: Float[torch.Tensor, "B"]
    """Of the completion's prompt, detached: the head's under `paced` and `flowrl`, the group's own under `vargrad` and
    `gflowrl`."""
    length_normaliser: float | None = None
    """Tokens that a completion's sum is divided by; None is its own number. Read by the clipped objectives."""
    token_weight: Float[torch.Tensor, "B T"] | None = None
    """Of each token's term, None for 1; read by the policy gradients."""
    reference_log_probs: Float[torch.Tensor, "B T"] | None = None
    kl_weight: Float[torch.Tensor, "B"] | None = None
    """Of the penalty KL(π_θ ‖ π_ref) beside a policy gradient; None for no penalty."""


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


def flow_loss(inputs: LossInputs, parameters: TrainingParameters) -> LossOutputs:
    """Squared balance residual per token, anchored at the reference policy, times the clipped importance weight.

    `flowrl` (arXiv 2509.15207) takes the head's log Z and rewards normalised in their group, `gflowrl` (arXiv
    2607.13394) the group's mean as log Z, raw rewards, and a flow gap under π_old that is clipped.
    """
    mask = inputs.completion_mask
    policy, behaviour = inputs.policy_log_probs, inputs.behaviour_log_probs
    low, high = parameters.clip_range
    balance = {
        "log_z": inputs.log_z,
        "policy_mean_log_prob": mean_token_log_prob(policy, mask),
        "reference_mean_log_prob": mean_token_log_prob(_reference(inputs), mask),
    }
    if parameters.objective == "flowrl":
        residual = flow_balance_residual(**balance, reward=inputs.advantage, reward_scale=parameters.reward_scale)
    else:
        residual = clipped_flow_residual(
            **balance,
            behaviour_mean_log_prob=mean_token_log_prob(behaviour, mask),
            reward=inputs.reward,
            reward_scale=parameters.reward_scale,
            gap_range=(parameters.flow_gap_clip, parameters.flow_gap_clip_high),
        )
    weight = clipped_sequence_weight(
        sequence_log_prob(policy, mask),
        sequence_log_prob(behaviour, mask),
        low=1 - low if parameters.objective == "flowrl" else 0.0,
        high=1 + high,
    )
    return LossOutputs(loss=weight * residual**2, residual=residual.detach())


def _reference(inputs: LossInputs) -> Float[torch.Tensor, "B T"]:
    if inputs.reference_log_probs is None:
        raise ValueError("this objective reads log-probabilities under the reference policy, and the batch has none")
    return inputs.reference_log_probs


def _penalty(inputs: LossInputs) -> Float[torch.Tensor, "B"] | None:
    """Weighed KL(π_θ ‖ π_ref) of each completion, the SUM over its tokens; None without a penalty."""
    if inputs.kl_weight is None:
        return None
    divergence = reference_kl_k3(
        inputs.policy_log_probs, _reference(inputs), inputs.completion_mask, token_weight=inputs.token_weight
    )
    return inputs.kl_weight * divergence


def clipped_loss(inputs: LossInputs, parameters: TrainingParameters) -> LossOutputs:
    """Clipped importance weight × advantage: `grpo` (arXiv 2402.03300), `dr_grpo` (2503.20783), `dapo` (2503.14476).

    They differ in the advantage, in what the sum over tokens is divided by, and in the clip range. A penalty is divided
    by the same.
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
    penalty = _penalty(inputs)
    if penalty is not None:
        own = inputs.completion_mask.sum(-1).clamp(min=1)
        loss = loss + penalty / (own if inputs.length_normaliser is None else inputs.length_normaliser)
    return LossOutputs(loss=loss, clipped_fraction=clipped_fraction.detach())


def leave_one_out_loss(inputs: LossInputs, parameters: TrainingParameters) -> LossOutputs:
    """REINFORCE against the mean of the siblings (arXiv 2402.14740)."""
    loss = reinforce_loss(
        inputs.policy_log_probs, inputs.advantage, inputs.completion_mask, token_weight=inputs.token_weight
    )
    penalty = _penalty(inputs)
    return LossOutputs(loss=loss if penalty is None else loss + penalty)


POLICY_LOSSES: dict[str, Callable[[LossInputs, TrainingParameters], LossOutputs]] = {
    "paced": balance_loss,
    "vargrad": balance_loss,
    "flowrl": flow_loss,
    "gflowrl": flow_loss,
    "grpo": clipped_loss,
    "dr_grpo": clipped_loss,
    "dapo": clipped_loss,
    "rloo": leave_one_out_loss,
}
"""By the name that `training.objective` takes."""
