"""Group-relative policy optimisation: the baseline the paced objective is compared with.

Source: "DeepSeekMath", Shao et al., https://arxiv.org/abs/2402.03300, equation 3 and section 4.1.2.
Differs: no KL penalty to a reference policy.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paced_rl.objectives.groups import group_mean, group_minimum, group_size


def group_advantage(reward: Float[Tensor, "B"], group_index: Int[Tensor, "B"], *, epsilon: float) -> Float[Tensor, "B"]:
    """How much better than its siblings each completion is.

    advantage = (r − mean of the group) / (standard deviation of the group + ε)

    The paper does not say which standard deviation. This is the SAMPLE one (divided by G − 1), as in the widespread
    implementations (TRL, verl), so that results compare; the population one is the same times √(G/(G−1)), 1.07 at
    G = 8. Exactly 0 in a group whose rewards are all equal, and in a group of one.

    Args:
        reward: the verifier's raw verdict.
        group_index: completions of one prompt share a number.
        epsilon: added to the standard deviation, in units of the reward.

    Returns:
        One advantage per completion; without gradient.
    """
    constant = reward.detach()
    # Counted from the group's minimum, equal rewards are exact zeros; their rounded mean could differ from them by a
    # last digit, which a small ε would blow up.
    above_minimum = constant - group_minimum(constant, group_index)
    centred = above_minimum - group_mean(above_minimum, group_index)
    num_members = group_size(group_index)
    variance = group_mean(centred.square(), group_index) * num_members / (num_members - 1).clamp(min=1)
    return centred / (variance.sqrt() + epsilon)


def clipped_policy_gradient_loss(
    policy_log_probs: Float[Tensor, "B T"],
    behaviour_log_probs: Float[Tensor, "B T"],
    advantage: Float[Tensor, "B"],
    completion_mask: Bool[Tensor, "B T"],
    *,
    clip_ratio: float,
) -> tuple[Float[Tensor, "B"], Float[Tensor, ""]]:
    """The clipped surrogate, averaged over the tokens of each completion.

    loss = −(1/|y|) · Σ_t min(w_t · A, clip(w_t, 1 − ε, 1 + ε) · A),   w_t = π_θ(y_t|…) / π_old(y_t|…)

    Zero, with zero gradient, where the advantage is 0. A token gives no gradient once its weight has left 1 ± ε in the
    direction its advantage pushes it.

    Args:
        policy_log_probs: nats; anything under the mask changes neither value nor gradient. Carries gradient.
        behaviour_log_probs: nats. A constant: its gradient is stopped here.
        advantage: one per completion, see `group_advantage`. A constant.
        completion_mask: True on completion tokens.
        clip_ratio: ε > 0.

    Returns:
        The loss of each completion, whose mean over the batch is the objective (0 without tokens), and the share of
        the batch's completion tokens that are clipped so that they give no gradient.
    """
    log_weight = torch.where(completion_mask, policy_log_probs - behaviour_log_probs.detach(), 0.0)
    importance_weight = log_weight.exp()
    token_advantage = advantage.detach().unsqueeze(-1)
    unclipped = importance_weight * token_advantage
    clipped = importance_weight.clamp(1 - clip_ratio, 1 + clip_ratio) * token_advantage
    surrogate = torch.where(completion_mask, torch.minimum(unclipped, clipped), 0.0)
    num_tokens = completion_mask.sum(-1)
    loss_per_sequence = -surrogate.sum(-1) / num_tokens.clamp(min=1)
    is_clipped = clipped < unclipped  # never under the mask, where the weight is 1
    clipped_fraction = is_clipped.sum() / num_tokens.sum().clamp(min=1)
    return loss_per_sequence, clipped_fraction
