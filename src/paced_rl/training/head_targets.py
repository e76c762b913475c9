"""What the completions of a round ask of the log-Z head, by the objective's own residual."""

import numpy as np
import torch
from jaxtyping import Float

from paced_rl.objectives.flow_balance import clipped_sequence_weight, flow_balance_residual
from paced_rl.parameters import TrainingParameters
from paced_rl.training.examples import TrainingExamples
from paced_rl.training.head_training import HeadRows
from paced_rl.training.row_terms import mean_log_probs


def head_rows(
    examples: TrainingExamples,
    *,
    weights: Float[np.ndarray, "N"],
    normalised_reward: Float[np.ndarray, "N"],
    policy_sequence: Float[np.ndarray, "N"],
    behaviour_sequence: Float[np.ndarray, "N"],
    parameters: TrainingParameters,
) -> HeadRows:
    """The log Z at which the residual of each completion is 0.

    Under `flowrl` that is mean log π_ref − mean log π_θ + β'·r̂, weighed by the clipped importance weight as its loss
    is; under all others, of which only `paced` reads it back, log π_old − log π_θ + r/β.

    Args:
        examples: the round's batch.
        weights: of each row in the head's loss.
        normalised_reward: r̂, read under `flowrl`.
        policy_sequence: log π_θ of each completion, the SUM over its tokens, nats.
        behaviour_sequence: log π_old likewise.
        parameters: of the training.
    """
    if parameters.is_log_z_accuracy:
        targets = behaviour_sequence - policy_sequence + examples.rewards / parameters.reward_temperature
        return HeadRows(embeddings=examples.embeddings, targets=targets, weights=weights)
    if examples.reference_log_probs is None:
        raise ValueError("objective flowrl without reference log-probabilities: score the batch under that policy too")
    num_tokens = np.array([len(completion) for completion in examples.completions])
    residual = flow_balance_residual(
        log_z=torch.zeros(len(num_tokens), dtype=torch.float64),
        policy_mean_log_prob=torch.from_numpy(policy_sequence / num_tokens),
        reference_mean_log_prob=torch.from_numpy(mean_log_probs(examples.reference_log_probs)),
        reward=torch.from_numpy(normalised_reward),
        reward_scale=parameters.reward_scale,
    )
    low, high = parameters.clip_range
    importance = clipped_sequence_weight(
        torch.from_numpy(policy_sequence), torch.from_numpy(behaviour_sequence), low=1 - low, high=1 + high
    )
    return HeadRows(embeddings=examples.embeddings, targets=-residual.numpy(), weights=weights * importance.numpy())
