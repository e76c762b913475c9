"""Flow balance against the reference policy: `flowrl`, whose log Z is learned, and `gflowrl`, whose log Z is a mean.

Both aim at π*(y|x) ∝ π_ref(y|x) · exp(β'·r(x,y)), with log-probabilities that are MEANS over a completion's tokens and
rewards that are multiplied by β'. So log Z is in nats per token and no accuracy, unlike the paced one.

| objective | loss of a completion | log Z | reward |
|---|---|---|---|
| `flowrl` | w · (log Z_φ + mean log π_θ − mean log π_ref − β'·r̂)² | a head's, unbounded | r̂, normalised in its group |
| `gflowrl` | w · (clip(g) + mean log π_θ − mean log π_old)² | the group's mean, inside of g | raw |

Sources: FlowRL, https://arxiv.org/abs/2509.15207; GFlowRL, https://arxiv.org/abs/2607.13394.
"""

from jaxtyping import Float, Int
from torch import Tensor

from paced_rl.objectives.groups import group_mean


def flow_balance_residual(
    *,
    log_z: Float[Tensor, "B"],
    policy_mean_log_prob: Float[Tensor, "B"],
    reference_mean_log_prob: Float[Tensor, "B"],
    reward: Float[Tensor, "B"],
    reward_scale: float,
) -> Float[Tensor, "B"]:
    """How far each completion is from balance with the reference policy, in nats per token.

    residual = log Z(x) + mean_t log π_θ − mean_t log π_ref − β'·r

    Zero for every completion of a length n where π_θ ∝ π_ref · exp(n·β'·r). At π_θ = π_ref and with rewards that are
    normalised in their group the best log Z is 0, whatever the prompt: it says nothing of its accuracy.

    Args:
        log_z: of the prompt, repeated for each of its completions.
        policy_mean_log_prob: MEAN over tokens. Carries gradient to the policy.
        reference_mean_log_prob: MEAN over tokens. A constant: its gradient is stopped here.
        reward: normalised under `flowrl`, raw under `gflowrl`. A constant.
        reward_scale: β' > 0, nats per token.

    Returns:
        One residual per completion.
    """
    return log_z + policy_mean_log_prob - reference_mean_log_prob.detach() - reward_scale * reward


def group_flow_log_z(
    *,
    behaviour_mean_log_prob: Float[Tensor, "B"],
    reference_mean_log_prob: Float[Tensor, "B"],
    reward: Float[Tensor, "B"],
    group_index: Int[Tensor, "B"],
    reward_scale: float,
) -> Float[Tensor, "B"]:
    """log Ẑ of `gflowrl`: what the completions of a group ask for on average, under the policy that sampled them.

    log Ẑ = mean over the group of (β'·r + mean_t log π_ref − mean_t log π_old)

    With it the flow gaps of a group sum to 0. It needs π_old and not π_θ, so it is the same for all steps of a round.

    Args:
        behaviour_mean_log_prob: MEAN over tokens.
        reference_mean_log_prob: MEAN over tokens.
        reward: the verifier's raw verdict.
        group_index: completions of one prompt share a number.
        reward_scale: β' > 0.

    Returns:
        Nats per token, the prompt's value repeated for each of its completions; without gradient.
    """
    asked_for = reward_scale * reward + reference_mean_log_prob - behaviour_mean_log_prob
    return group_mean(asked_for.detach(), group_index)


def clipped_flow_residual(
    *,
    log_z: Float[Tensor, "B"],
    policy_mean_log_prob: Float[Tensor, "B"],
    behaviour_mean_log_prob: Float[Tensor, "B"],
    reference_mean_log_prob: Float[Tensor, "B"],
    reward: Float[Tensor, "B"],
    reward_scale: float,
    gap_range: tuple[float, float],
) -> Float[Tensor, "B"]:
    """The residual of `gflowrl`: the flow gap under π_old, clipped, and how far π_θ has moved since.

    g = log Ẑ − (mean_t log π_ref − mean_t log π_old) − β'·r
    residual = clip(g, −ε_low, ε_high) + mean_t log π_θ − mean_t log π_old

    Where nothing is clipped it is `flow_balance_residual` at log Ẑ. A clipped completion is asked to move by the bound
    and no further: up where g is negative, which is where it did better than its group, down where it is positive.

    Args:
        log_z: see `group_flow_log_z`.
        policy_mean_log_prob: MEAN over tokens. Carries gradient to the policy.
        behaviour_mean_log_prob: MEAN over tokens. A constant.
        reference_mean_log_prob: MEAN over tokens. A constant.
        reward: the verifier's raw verdict.
        reward_scale: β' > 0, nats per token.
        gap_range: (ε_low, ε_high), both above 0, nats per token.

    Returns:
        One residual per completion, nats per token.
    """
    behaviour = behaviour_mean_log_prob.detach()
    gap = log_z - (reference_mean_log_prob - behaviour) - reward_scale * reward
    return gap.detach().clamp(-gap_range[0], gap_range[1]) + policy_mean_log_prob - behaviour


def clipped_sequence_weight(
    policy_sequence_log_prob: Float[Tensor, "B"],
    behaviour_sequence_log_prob: Float[Tensor, "B"],
    *,
    low: float,
    high: float,
) -> Float[Tensor, "B"]:
    """w: the importance weight of each completion, π_θ(y|x) / π_old(y|x), cut off on both sides.

    Args:
        policy_sequence_log_prob: SUM over tokens, nats.
        behaviour_sequence_log_prob: SUM over tokens, nats.
        low: smallest weight; 0 leaves this side open.
        high: largest weight, at least 1.

    Returns:
        Weights in [low, high], 1 where the two policies agree; without gradient.
    """
    return (policy_sequence_log_prob - behaviour_sequence_log_prob).detach().exp().clamp(low, high)
