"""Policy gradients whose baseline is the group's own mean reward: three clipped objectives and one that is not.

The clipped ones are one function, `clipped_policy_gradient_loss`, at these settings:

| objective | advantage | a completion's sum is divided by | clip range | source |
|---|---|---|---|---|
| `grpo` | `group_advantage` | its own number of tokens | ε, ε | arXiv 2402.03300, equation 3 |
| `dr_grpo` | `centred_reward` | a constant, the tokens a completion may have | ε, ε | arXiv 2503.20783 |
| `dapo` | `group_advantage` | the mean number of tokens in the batch | ε, ε_high | arXiv 2503.14476 |

`rloo` is `reinforce_loss` with `leave_one_out_advantage`.

Differs: no KL penalty to a reference policy anywhere. Of DAPO neither dynamic sampling nor the soft overlong penalty.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paced_rl.objectives.groups import group_mean, group_minimum, group_size


def centred_reward(reward: Float[Tensor, "B"], group_index: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """The advantage of Dr. GRPO: advantage = r − mean of the group.

    Without the division by a standard deviation, which weighs the questions that are nearly solved or nearly hopeless
    up. Exactly 0 in a group whose rewards are all equal, and in a group of one.

    Args:
        reward: the verifier's raw verdict.
        group_index: completions of one prompt share a number.

    Returns:
        One advantage per completion, in units of the reward; without gradient.
    """
    constant = reward.detach()
    # Counted from the group's minimum, equal rewards are exact zeros; their rounded mean could differ from them by a
    # last digit, which a small ε would blow up.
    above_minimum = constant - group_minimum(constant, group_index)
    return above_minimum - group_mean(above_minimum, group_index)


def group_advantage(reward: Float[Tensor, "B"], group_index: Int[Tensor, "B"], *, epsilon: float) -> Float[Tensor, "B"]:
    """How much better than its siblings each completion is, in standard deviations of its group.

    advantage = (r − mean of the group) / (standard deviation of the group + ε)

    The paper (https://arxiv.org/abs/2402.03300, section 4.1.2) does not say which standard deviation. This is the
    SAMPLE one (divided by G − 1), as in the widespread implementations (TRL, verl), so that results compare; the
    population one is the same times √(G/(G−1)), 1.07 at G = 8. Exactly 0 in a group whose rewards are all equal, and in
    a group of one.

    Args:
        reward: the verifier's raw verdict.
        group_index: completions of one prompt share a number.
        epsilon: added to the standard deviation, in units of the reward.

    Returns:
        One advantage per completion; without gradient.
    """
    centred = centred_reward(reward, group_index)
    num_members = group_size(group_index)
    variance = group_mean(centred.square(), group_index) * num_members / (num_members - 1).clamp(min=1)
    return centred / (variance.sqrt() + epsilon)


def leave_one_out_advantage(reward: Float[Tensor, "B"], group_index: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """The advantage of RLOO: how much better than the mean of its siblings, itself left out, each completion is.

    advantage = r − Σ of the other rewards / (G − 1) = (r − mean of the group) · G / (G − 1)

    Unbiased, since the baseline does not depend on the completion it is subtracted from.

    Source: "Back to Basics", Ahmadian et al., https://arxiv.org/abs/2402.14740.

    Args:
        reward: the verifier's raw verdict.
        group_index: completions of one prompt share a number.

    Returns:
        One advantage per completion, in units of the reward; 0 in a group of one. Without gradient.
    """
    num_members = group_size(group_index)
    return centred_reward(reward, group_index) * num_members / (num_members - 1).clamp(min=1)


def clipped_policy_gradient_loss(
    policy_log_probs: Float[Tensor, "B T"],
    behaviour_log_probs: Float[Tensor, "B T"],
    advantage: Float[Tensor, "B"],
    completion_mask: Bool[Tensor, "B T"],
    *,
    clip_range: tuple[float, float],
    length_normaliser: float | None = None,
    token_weight: Float[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B"], Float[Tensor, ""]]:
    """The clipped surrogate of each completion.

    loss = −(1/n) · Σ_t c_t · min(w_t · A, clip(w_t, 1 − ε_low, 1 + ε_high) · A),   w_t = π_θ(y_t|…) / π_old(y_t|…)

    Zero, with zero gradient, where the advantage is 0. A token gives no gradient once its weight w has left the clip
    range in the direction its advantage pushes it.

    Args:
        policy_log_probs: nats; anything under the mask changes neither value nor gradient. Carries gradient.
        behaviour_log_probs: nats. A constant: its gradient is stopped here.
        advantage: one per completion. A constant.
        completion_mask: True on completion tokens.
        clip_range: (ε_low, ε_high), both above 0.
        length_normaliser: n, tokens; None takes the completion's own number. The mean number of tokens per completion
            makes the mean of the losses a mean over all tokens.
        token_weight: c_t, a constant; None is 1.

    Returns:
        The loss of each completion, whose mean over the batch is the objective (0 without tokens), and the share of
        the batch's completion tokens that are clipped so that they give no gradient.
    """
    log_weight = torch.where(completion_mask, policy_log_probs - behaviour_log_probs.detach(), 0.0)
    importance_weight = log_weight.exp()
    token_advantage = advantage.detach().unsqueeze(-1)
    unclipped = importance_weight * token_advantage
    clipped = importance_weight.clamp(1 - clip_range[0], 1 + clip_range[1]) * token_advantage
    surrogate = torch.minimum(unclipped, clipped)
    if token_weight is not None:
        surrogate = surrogate * token_weight.detach()
    surrogate = torch.where(completion_mask, surrogate, 0.0)
    num_tokens = completion_mask.sum(-1)
    divisor = num_tokens.clamp(min=1) if length_normaliser is None else length_normaliser
    is_clipped = clipped < unclipped  # never under the mask, where the weight is 1
    clipped_fraction = is_clipped.sum() / num_tokens.sum().clamp(min=1)
    return -surrogate.sum(-1) / divisor, clipped_fraction


def reinforce_loss(
    policy_log_probs: Float[Tensor, "B T"],
    advantage: Float[Tensor, "B"],
    completion_mask: Bool[Tensor, "B T"],
    *,
    token_weight: Float[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B"]:
    """REINFORCE over whole completions: loss = −A · Σ_t c_t · log π_θ(y_t|…).

    On-policy: without an importance weight, the second optimiser step of a round is already slightly off. Its gradient
    at π_θ = π_old is that of `clipped_policy_gradient_loss` at a length normaliser of 1; its value means nothing.

    Source: "Back to Basics", Ahmadian et al., https://arxiv.org/abs/2402.14740.

    Args:
        policy_log_probs: nats; anything under the mask changes neither value nor gradient. Carries gradient.
        advantage: one per completion, see `leave_one_out_advantage`. A constant.
        completion_mask: True on completion tokens.
        token_weight: c_t, a constant; None is 1.

    Returns:
        The loss of each completion.
    """
    weighted = policy_log_probs if token_weight is None else policy_log_probs * token_weight.detach()
    return -advantage.detach() * torch.where(completion_mask, weighted, 0.0).sum(-1)
