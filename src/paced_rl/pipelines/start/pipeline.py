"""Wiring of round 0. Its outputs are what round 1 reads as `previous_…`, which makes the edge to round 1 real."""

from kedro.pipeline import Pipeline, node, pipeline

from paced_rl.pipelines.evaluation.nodes import evaluate_start
from paced_rl.pipelines.reporting.nodes import start_learning_curve
from paced_rl.pipelines.start.nodes import start_log_z_head, start_optimizer_state, start_policy, start_tables


def create_pipeline() -> Pipeline:
    """Start state and round-0 evaluation."""
    return pipeline(
        [
            node(start_policy, "reference_policy", "previous_policy@start", name="start_policy"),
            node(
                start_log_z_head,
                ["prompt_embeddings", "params:training", "params:seed"],
                "previous_log_z_head@start",
                name="start_log_z_head",
            ),
            node(start_optimizer_state, None, "previous_optimizer_state@start", name="start_optimizer_state"),
            node(
                start_tables,
                None,
                ["previous_replay_buffer@start", "previous_outcome_history@start"],
                name="start_tables",
            ),
            node(
                evaluate_start,
                [
                    "previous_policy@start",
                    "prompts",
                    "params:evaluation",
                    "params:rollout",
                    "params:verification",
                    "params:policy",
                    "params:seed",
                ],
                "start_evaluation",
                name="evaluate_start",
            ),
            node(
                start_learning_curve,
                ["start_evaluation", "params:seed"],
                "previous_learning_curve@start",
                name="start_learning_curve",
            ),
        ],
        tags="start",
    )
