"""How far the policy has moved: from the behaviour policy, for the record, and from the reference, for the loss.

The estimators of KL(π_old ‖ π_θ) are unbiased over samples of π_old, in nats per completion. Names k1 and k3 as in
J. Schulman, "Approximating KL divergence", 2020, http://joschu.net/blog/kl-approx.html.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def sampled_kl(
    *, policy_sequence_log_prob: Float[Tensor, "B"], behaviour_sequence_log_prob: Float[Tensor, "B"]
) -> Float[Tensor, ""]:
    """KL(π_old ‖ π_θ) by k1 = mean over completions of (log π_old − log π_θ).

    This is the term the accuracy estimate β·log Z neglects, see `trajectory_balance.best_log_z`. A sample can be
    negative.

    Args:
        policy_sequence_log_prob: SUM over tokens, nats.
        behaviour_sequence_log_prob: SUM over tokens, nats; the completions were drawn from this policy.

    Returns:
        Nats per completion.
    """
    return (behaviour_sequence_log_prob - policy_sequence_log_prob).mean()


def sampled_kl_k3(
    policy_log_probs: Float[Tensor, "B T"],
    behaviour_log_probs: Float[Tensor, "B T"],
    completion_mask: Bool[Tensor, "B T"],
) -> Float[Tensor, ""]:
    """KL(π_old ‖ π_θ) by k3 = mean over completions of Σ_t (w_t − 1 − log w_t), w_t = π_θ(y_t|…) / π_old(y_t|…).

    Never negative, and steadier than k1 where the policies are close. Unbiased, because w_t − 1 is 0 on average after
    every prefix; taken over tokens, because the weight of a whole completion overflows.

    Args:
        policy_log_probs: nats; anything under the mask is left out.
        behaviour_log_probs: nats; the completions were drawn from this policy.
        completion_mask: True on completion tokens.

    Returns:
        Nats per completion.
    """
    log_weight = torch.where(completion_mask, policy_log_probs - behaviour_log_probs, 0.0)
    return (log_weight.expm1() - log_weight).sum(-1).mean()


def reference_kl_k3(
    policy_log_probs: Float[Tensor, "B T"],
    reference_log_probs: Float[Tensor, "B T"],
    completion_mask: Bool[Tensor, "B T"],
    *,
    token_weight: Float[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B"]:
    """KL(π_θ ‖ π_ref) of each completion by k3 = Σ_t c_t · (v_t − 1 − log v_t), v_t = π_ref(y_t|…) / π_θ(y_t|…).

    Never negative; zero, with zero gradient, where the policies agree. Its value is unbiased over samples of π_θ, its
    gradient pulls each sampled token towards the reference. The other way round than `sampled_kl_k3`.

    Source: the penalty of GRPO, https://arxiv.org/abs/2402.03300, equation 4.

    Args:
        policy_log_probs: nats; anything under the mask changes neither value nor gradient. Carries gradient.
        reference_log_probs: nats. A constant: its gradient is stopped here.
        completion_mask: True on completion tokens.
        token_weight: c_t, a constant; None is 1.

    Returns:
        Nats per completion: the SUM over its tokens.
    """
    log_weight = torch.where(completion_mask, reference_log_probs.detach() - policy_log_probs, 0.0)
    terms = log_weight.expm1() - log_weight
    return (terms if token_weight is None else terms * token_weight.detach()).sum(-1)
