"""Wiring of prompt selection."""

from kedro.pipeline import Pipeline, node, pipeline

from paced_rl.pipelines.scheduling.measurement import measure_candidates
from paced_rl.pipelines.scheduling.nodes import estimate_accuracies, schedule_prompts


def create_pipeline(*, is_oracle: bool = False) -> Pipeline:
    """log Z and earlier outcomes of every prompt → the round's schedule; `is_oracle` measures candidates for it."""
    measure = node(
        measure_candidates,
        [
            "accuracy_estimates",
            "prompts",
            "previous_policy@round",
            "params:scheduling",
            "params:rollout",
            "params:verification",
            "params:policy",
            "params:round",
            "params:seed",
        ],
        "measured_accuracies",
        name="measure_candidates",
    )
    return pipeline(
        [
            *([measure] if is_oracle else []),
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
                    *(["measured_accuracies"] if is_oracle else []),
                ],
                "schedule",
                name="schedule_prompts",
            ),
        ],
        tags="scheduling",
    )
