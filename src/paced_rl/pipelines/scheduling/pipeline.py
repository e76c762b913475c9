"""Wiring of prompt selection."""

from kedro.pipeline import Pipeline, node, pipeline

from paced_rl.pipelines.scheduling.nodes import estimate_accuracies, schedule_prompts


def create_pipeline() -> Pipeline:
    """log Z and earlier outcomes of every prompt → the round's schedule."""
    return pipeline(
        [
            node(
                estimate_accuracies,
                [
                    "previous_log_z_head@round",
                    "prompt_embeddings",
                    "previous_outcome_history@round",
                    "params:scheduling",
                    "params:training",
                    "params:round",
                    "params:seed",
                ],
                "accuracy_estimates",
                name="estimate_accuracies",
            ),
            node(
                schedule_prompts,
                [
                    "accuracy_estimates",
                    "previous_outcome_history@round",
                    "params:scheduling",
                    "params:training",
                    "params:round",
                    "params:seed",
                ],
                "schedule",
                name="schedule_prompts",
            ),
        ],
        tags="scheduling",
    )
