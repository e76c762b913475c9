"""The rows that a round is trained on."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from paced_rl.training.head_training import HeadRows


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingExamples:
    """The rows of a round's batch, N completions over P prompts."""

    prompt_ids: list[str]
    """[N] for messages."""
    prompts: list[np.ndarray]
    """[N] prompt token ids."""
    completions: list[np.ndarray]
    """[N] completion token ids."""
    behaviour_log_probs: list[np.ndarray]
    """[N] log π_old per completion token, nats."""
    sampler_log_probs: list[np.ndarray]
    """[N] the sampler's own figures for the same, at the time it sampled."""
    rewards: Float[np.ndarray, "N"]
    group_index: Int[np.ndarray, "N"]
    """Rows of one prompt's fresh group share a number."""
    is_fresh: Bool[np.ndarray, "N"]
    """False on replayed rows."""
    is_truncated: Bool[np.ndarray, "N"]
    """True where the sampler ran into the limit of tokens; `dapo` leaves these out."""
    head_weights: Float[np.ndarray, "N"]
    """Weight of a row in the head's loss; 0 on replayed rows, which would pull log Z up, unless they are asked for."""
    embeddings: Float[np.ndarray, "N E"]
    """Prompt embedding of each row."""
    reference_log_probs: list[np.ndarray] | None = None
    """[N] log π_ref per completion token, nats; None where the objective needs none."""
    past: HeadRows | None = None
    """Groups of earlier rounds, for the head alone."""
