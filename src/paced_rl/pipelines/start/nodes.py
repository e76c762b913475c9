"""Round 0: the state that the first round takes over, and what the policy can do before any RL."""

import pandas as pd

from paced_rl.datasets.parquet_table import TableReader
from paced_rl.parameters import TrainingParameters
from paced_rl.pipelines.columns import empty_table, train_embedding_sample
from paced_rl.schemas import OUTCOME_HISTORY, REPLAY_BUFFER
from paced_rl.seeds import derive_seed
from paced_rl.types import Checkpoint, CheckpointFiles


def start_policy(reference_policy: Checkpoint) -> Checkpoint:
    """Policy version 0: the reference policy itself, where it lies; nothing is copied."""
    return reference_policy


def start_log_z_head(prompt_embeddings: TableReader, training: TrainingParameters, seed: int) -> CheckpointFiles:
    """A head whose every estimate is `initial_accuracy` (unbounded: log Z = 0), standardised over train prompts."""
    from paced_rl.training.head_state import head_files, new_head

    head = new_head(
        train_embedding_sample(prompt_embeddings),
        hidden_size=training.log_z_hidden_size,
        reward_temperature=training.reward_temperature,
        initial_accuracy=training.initial_accuracy,
        seed=derive_seed(seed, "log_z_head"),
        is_bounded=training.is_log_z_accuracy,
    )
    return head_files(head, policy_version=0)


def start_optimizer_state() -> CheckpointFiles:
    """No optimiser has stepped yet."""
    return CheckpointFiles(files={}, metadata={"policy_version": 0, "optimizer_step": 0})


def start_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """An empty replay buffer and an empty history of outcomes."""
    return empty_table(REPLAY_BUFFER), empty_table(OUTCOME_HISTORY)
