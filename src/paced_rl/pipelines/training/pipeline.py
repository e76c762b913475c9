"""Wiring of training."""

from kedro.pipeline import Pipeline, node, pipeline

from paced_rl.pipelines.training.nodes import (
    assemble_training_batch,
    score_training_batch,
    train_policy,
    update_replay_buffer,
)
from paced_rl.pipelines.training.replay_audit import audit_replay


def create_pipeline() -> Pipeline:
    """Rollouts, verdicts, replay → batch → scored batch → next policy, head, optimiser state, replay and its audit."""
    return pipeline(
        [
            node(
                assemble_training_batch,
                [
                    "rollouts",
                    "verdicts",
                    "schedule",
                    "prompts",
                    "previous_replay_buffer@round",
                    "params:training",
                    "params:scheduling",
                    "params:round",
                ],
                "training_batch",
                name="assemble_training_batch",
            ),
            node(
                score_training_batch,
                [
                    "training_batch",
                    "previous_policy@round",
                    "reference_policy",
                    "params:training",
                    "params:rollout",
                    "params:policy",
                ],
                "behaviour_log_probs",
                name="score_training_batch",
            ),
            node(
                train_policy,
                [
                    "training_batch",
                    "behaviour_log_probs",
                    "previous_outcome_history@round",
                    "prompt_embeddings",
                    "previous_policy@round",
                    "reference_policy",
                    "previous_log_z_head@round",
                    "previous_optimizer_state@round",
                    "params:training",
                    "params:rollout",
                    "params:policy",
                    "params:round",
                    "params:seed",
                ],
                ["policy", "log_z_head", "optimizer_state", "training_metrics"],
                name="train_policy",
            ),
            node(
                update_replay_buffer,
                ["training_batch", "previous_replay_buffer@round", "params:training", "params:round"],
                "replay_buffer",
                name="update_replay_buffer",
            ),
            node(
                audit_replay,
                [
                    "training_batch",
                    "previous_replay_buffer@round",
                    "params:training",
                    "params:rollout",
                    "params:round",
                ],
                "replay_audit",
                name="audit_replay",
            ),
        ],
        tags="training",
    )
