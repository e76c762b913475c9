"""Wiring of reporting."""

from kedro.pipeline import Pipeline, node, pipeline

from paced_rl.pipelines.reporting.nodes import (
    draw_calibration,
    draw_estimates,
    draw_learning_curve,
    extend_learning_curve,
    summarise_round,
)


def create_pipeline(*, is_oracle: bool = False) -> Pipeline:
    """The round's tables → summary row, learning curve, figures; `is_oracle` counts what measuring cost."""
    return pipeline(
        [
            node(
                summarise_round,
                [
                    "rollouts",
                    "verdicts",
                    "training_batch",
                    "training_metrics",
                    "replay_audit",
                    "outcome_history",
                    "evaluation",
                    "params:evaluation",
                    "params:reporting",
                    "params:round",
                    *(["measured_accuracies"] if is_oracle else []),
                ],
                "round_summary",
                name="summarise_round",
            ),
            node(
                extend_learning_curve,
                ["previous_learning_curve@round", "round_summary", "evaluation", "params:round", "params:seed"],
                "learning_curve",
                name="extend_learning_curve",
            ),
            node(
                draw_calibration,
                ["outcome_history", "params:reporting", "params:round"],
                "calibration_figure",
                name="draw_calibration",
            ),
            node(
                draw_estimates,
                [
                    "accuracy_estimates",
                    "log_z_head",
                    "prompt_embeddings",
                    "schedule",
                    "params:training",
                    "params:reporting",
                    "params:round",
                ],
                "estimates_figure",
                name="draw_estimates",
            ),
            node(draw_learning_curve, "learning_curve", "learning_curve_figure", name="draw_learning_curve"),
        ],
        tags="reporting",
    )
