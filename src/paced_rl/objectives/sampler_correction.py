"""Truncated importance weights for a sampler that is not quite the policy it was to be.

A sampler with kernels, batches or a precision of its own gives other log-probabilities than the trainer computes for
the same weights, so that completions are drawn from π_sampler and not from π_old. Weighing them by π_old / π_sampler
makes up for that; cutting the weight off bounds the variance, at the price of a bias.

Source: "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", Yao et al., 2025,
https://fengyao.notion.site/off-policy-rl; verl and TRL offer the same two levels.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def truncated_token_weight(
    behaviour_log_probs: Float[Tensor, "B T"],
    sampler_log_probs: Float[Tensor, "B T"],
    completion_mask: Bool[Tensor, "B T"],
    *,
    cap: float,
) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Of each token: min(π_old(y_t|…) / π_sampler(y_t|…), cap). Steady, and biased, since the prefix is not weighed.

    Args:
        behaviour_log_probs: nats, by the trainer.
        sampler_log_probs: nats, by the sampler, of the same policy.
        completion_mask: True on completion tokens.
        cap: largest weight, at least 1.

    Returns:
        The weights, 1 under the mask, and True where the cap is what they are. Without gradient.
    """
    return _truncated(_log_ratio(behaviour_log_probs, sampler_log_probs, completion_mask), cap)


def truncated_sequence_weight(
    behaviour_log_probs: Float[Tensor, "B T"],
    sampler_log_probs: Float[Tensor, "B T"],
    completion_mask: Bool[Tensor, "B T"],
    *,
    cap: float,
) -> tuple[Float[Tensor, "B"], Bool[Tensor, "B"]]:
    """Of each completion: min(π_old(y|x) / π_sampler(y|x), cap). Unbiased up to the cap; its spread grows with length.

    Args:
        behaviour_log_probs: nats, by the trainer.
        sampler_log_probs: nats, by the sampler, of the same policy.
        completion_mask: True on completion tokens.
        cap: largest weight, at least 1.

    Returns:
        The weights, 1 without tokens, and True where the cap is what they are. Without gradient.
    """
    return _truncated(_log_ratio(behaviour_log_probs, sampler_log_probs, completion_mask).sum(-1), cap)


def _log_ratio(behaviour: Tensor, sampler: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, behaviour - sampler, 0.0).detach()


def _truncated(log_weight: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    return log_weight.clamp(max=math.log(cap)).exp(), log_weight > math.log(cap)
