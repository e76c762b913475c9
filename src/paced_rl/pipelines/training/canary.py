"""Whether the engine that sampled a round ran the policy that the round is about to train."""

from typing import Any

import numpy as np
import pandas as pd

from paced_rl.metrics.sampler_gap import sampler_gap
from paced_rl.parameters import PolicyParameters, RolloutParameters, TrainingParameters
from paced_rl.types import Origin

LARGEST_GAPS = {"float32": 0.001, "bfloat16": 0.05}
"""Mean gaps that rounding explains, with room: measured were 4e-7 in float32 and 0.005 in bfloat16 on the starter
(docs/experiments.md). An engine that missed one round's update was 0.04 off, so in bfloat16 it may take several."""


class LogProbGapError(ValueError):
    """Sampler and trainer disagree on the log-probabilities of the same tokens."""


def gaps_of_rollouts(training_batch: pd.DataFrame, trainer_log_probs: list[np.ndarray]) -> dict[str, list[float]]:
    """Columns of `behaviour_log_probs`: the gap of every row, replayed ones included.

    Args:
        training_batch: with the sampler's own figures.
        trainer_log_probs: of the same tokens, under the distribution that they were drawn from.
    """
    rows = [
        sampler_gap([theirs], [ours])
        for ours, theirs in zip(trainer_log_probs, training_batch["sampler_log_probs"], strict=True)
    ]
    return {
        "mean_log_prob_gap": [row.mean_log_prob_gap for row in rows],
        "max_log_prob_gap": [row.max_log_prob_gap for row in rows],
        "sampler_kl": [row.sampler_kl for row in rows],
    }


def gap_of_round(training_batch: pd.DataFrame, rows: Any) -> dict[str, float]:
    """The gap over all tokens of the round's own rollouts; replayed rows were sampled from other policies.

    Args:
        rows: from `gaps_of_rollouts`, or the table that holds its columns.
    """
    is_fresh = (training_batch["origin"] == Origin.FRESH).to_numpy()
    num_tokens = training_batch["completion_token_ids"].map(len).to_numpy()[is_fresh]
    mean, largest, kl = (
        np.asarray(rows[name], dtype=np.float64)[is_fresh]
        for name in ("mean_log_prob_gap", "max_log_prob_gap", "sampler_kl")
    )
    return {
        "mean_log_prob_gap": float(np.average(mean, weights=num_tokens)),
        "max_log_prob_gap": float(largest.max()),
        "sampler_kl": float(np.average(kl, weights=num_tokens)),
    }


def check_sampler(
    gap: dict[str, float], *, training: TrainingParameters, rollout: RolloutParameters, policy: PolicyParameters
) -> None:
    """Stops the round when the gap is too large, and ends the engine, so that nothing samples from it again.

    Raises:
        LogProbGapError: with the figures.
    """
    largest = training.max_log_prob_gap or LARGEST_GAPS[policy.dtype]
    # Not `>`: a gap that is no number is no agreement.
    if gap["mean_log_prob_gap"] <= largest:
        return
    from paced_rl.generation import close_generators

    close_generators()
    raise LogProbGapError(
        f"the engine is not running the policy it should: sampler ({rollout.backend}) and trainer differ by "
        f"{gap['mean_log_prob_gap']:.4g} nats per token on average, above training.max_log_prob_gap = "
        f"{largest} (largest {gap['max_log_prob_gap']:.4g}, KL {gap['sampler_kl']:.4g} per token). "
        "Nothing was trained, and the state before this round is untouched; the engine was ended: sample again with "
        "--from-nodes=sample_rollouts --runner-params=force=True"
    )
