"""Round 0: the state that the first round takes over, and what the policy can do before any RL."""


from paced_rl.parameters import DataPreparationParameters, TrainingParameters
from paced_rl.types import Checkpoint, CheckpointFiles


def start_policy(reference_policy: Checkpoint) -> Checkpoint:
    """Policy version 0: the reference policy itself, where it lies; nothing is copied."""
    return reference_policy


def start_log_z_head(prompt_embeddings: object, training: TrainingParameters, seed: int) -> CheckpointFiles:
    """A head whose every estimate is `initial_accuracy`, with embeddings standardised over the train prompts."""
    from paced_rl.pipelines.head import new_head_files

    return new_head_files(prompt_embeddings, training, seed=seed)


def start_optimizer_state(data_preparation: DataPreparationParameters) -> CheckpointFiles:
    """No optimiser has stepped yet."""
    return CheckpointFiles(files={}, metadata={"policy_version": 0, "optimizer_step": 0})
