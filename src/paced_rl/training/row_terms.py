"""What a completion's loss takes from beyond its own forward pass: its siblings, its minibatch, its sampler.

Each is settled before a minibatch is cut into micro-batches, so that gradients accumulate to those of one big batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn.utils.rnn import pad_sequence

from paced_rl.objectives.flow_balance import group_flow_log_z
from paced_rl.objectives.policy_gradient import centred_reward, group_advantage, leave_one_out_advantage
from paced_rl.objectives.sampler_correction import truncated_sequence_weight, truncated_token_weight
from paced_rl.parameters import TrainingParameters
from paced_rl.training.batches import split_minibatches
from paced_rl.training.examples import TrainingExamples

ADVANTAGE_EPSILON = 1e-4
"""Added to a group's standard deviation, in units of the reward; TRL's value, so that `grpo` compares with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerWeights:
    """Truncated weights π_old/π_sampler; K is the tokens of the longest completion at level `token`, else 1."""

    values: Float[np.ndarray, "N K"]
    """1 on replayed rows and beyond a completion's end."""
    is_capped: Bool[np.ndarray, "N K"]
    is_counted: Bool[np.ndarray, "N K"]
    """True on fresh rows, up to the completion's end."""

    def metrics(self, rows: np.ndarray) -> dict[str, float | None]:
        """Mean weight and share of capped weights over the fresh ones of these rows; None where there are none."""
        counted = self.is_counted[rows]
        return {
            "mean_importance_correction": float(self.values[rows][counted].mean()) if counted.any() else None,
            "capped_correction_fraction": float(self.is_capped[rows][counted].mean()) if counted.any() else None,
        }


def sampler_weights(examples: TrainingExamples, parameters: TrainingParameters) -> SamplerWeights | None:
    """Weights of the whole batch; None with `importance_correction: off`.

    Replayed rows keep 1: their sampler ran another policy, and the losses that take them ask for no weight.
    """
    if parameters.importance_correction == "off":
        return None
    fresh = torch.tensor(examples.is_fresh)[:, None]
    behaviour, sampler = (
        pad_sequence([torch.tensor(values, dtype=torch.float64) for values in rows], batch_first=True)
        for rows in (examples.behaviour_log_probs, examples.sampler_log_probs)
    )
    num_tokens = torch.tensor([len(completion) for completion in examples.completions])
    counted = (torch.arange(behaviour.shape[1]) < num_tokens[:, None]) & fresh
    if parameters.importance_correction == "token":
        values, is_capped = truncated_token_weight(behaviour, sampler, counted, cap=parameters.importance_cap)
    else:
        values, is_capped = truncated_sequence_weight(behaviour, sampler, counted, cap=parameters.importance_cap)
        values, is_capped, counted = values[:, None], is_capped[:, None], fresh
    return SamplerWeights(values=values.numpy(), is_capped=is_capped.numpy(), is_counted=counted.numpy())


def advantages(examples: TrainingExamples, objective: str) -> Float[np.ndarray, "N"]:
    """Advantage of each fresh row under a policy gradient, the normalised reward under `flowrl`; else 0, unread.

    `dapo` leaves truncated completions out (its overlong filter): an advantage of 0 gives neither loss nor gradient.
    They still count in the mean of their group.
    """
    advantage = np.zeros(len(examples.prompts))
    fresh = np.flatnonzero(examples.is_fresh)
    rewards, groups = torch.from_numpy(examples.rewards[fresh]), torch.from_numpy(examples.group_index[fresh])
    if objective in ("grpo", "dapo", "flowrl"):
        advantage[fresh] = group_advantage(rewards, groups, epsilon=ADVANTAGE_EPSILON).numpy()
    elif objective == "dr_grpo":
        advantage[fresh] = centred_reward(rewards, groups).numpy()
    elif objective == "rloo":
        advantage[fresh] = leave_one_out_advantage(rewards, groups).numpy()
    if objective == "dapo":
        advantage[examples.is_truncated] = 0.0
    return advantage


def kl_weights(examples: TrainingExamples, parameters: TrainingParameters) -> Float[np.ndarray, "N"] | None:
    """Weight of each row's penalty, 0 where `dapo` leaves the row out; None without a penalty."""
    if parameters.kl_coefficient == 0:
        return None
    is_filtered = examples.is_truncated & (parameters.objective == "dapo")
    return np.where(is_filtered, 0.0, parameters.kl_coefficient)


def mean_log_probs(log_probs: list[np.ndarray]) -> Float[np.ndarray, "N"]:
    """Mean over the tokens of each completion, nats."""
    return np.array([float(values.mean(dtype=np.float64)) for values in log_probs])


def flow_log_z(examples: TrainingExamples, parameters: TrainingParameters) -> Float[np.ndarray, "N"] | None:
    """log Ẑ of each row's group under `gflowrl`, the same for all steps of a round; None under the others."""
    if parameters.objective != "gflowrl" or examples.reference_log_probs is None:
        return None
    log_z = group_flow_log_z(
        behaviour_mean_log_prob=torch.from_numpy(mean_log_probs(examples.behaviour_log_probs)),
        reference_mean_log_prob=torch.from_numpy(mean_log_probs(examples.reference_log_probs)),
        reward=torch.tensor(examples.rewards),  # a copy: columns of a table are read-only
        group_index=torch.tensor(examples.group_index),
        reward_scale=parameters.reward_scale,
    )
    return np.asarray(log_z)


def length_normaliser(
    examples: TrainingExamples, rows: np.ndarray, *, objective: str, max_new_tokens: int
) -> float | None:
    """Tokens that the sum over a completion is divided by; None is its own number.

    Args:
        rows: of the whole minibatch. Under `dapo` the mean of the rows' losses is then one mean over all tokens that
            are not filtered out, however long their completions.
        max_new_tokens: what a completion may have; the constant of `dr_grpo`.
    """
    if objective == "dr_grpo":
        return float(max_new_tokens)
    if objective == "dapo":
        num_tokens = sum(len(examples.completions[row]) for row in rows if not examples.is_truncated[row])
        return max(num_tokens, 1) / len(rows)
    return None


def minibatches(
    examples: TrainingExamples, parameters: TrainingParameters, *, seed: int, epoch: int
) -> list[np.ndarray]:
    """Rows of each optimiser step of one pass; `vargrad` keeps groups whole, whose mean its residual is taken from."""
    if parameters.objective != "vargrad":
        return split_minibatches(len(examples.prompts), parameters.num_minibatches, seed=seed, epoch=epoch)
    groups = np.unique(examples.group_index)
    parts = split_minibatches(len(groups), parameters.num_minibatches, seed=seed, epoch=epoch)
    return [np.flatnonzero(np.isin(examples.group_index, groups[part])) for part in parts]
