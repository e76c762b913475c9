"""Wiring of evaluation."""

from kedro.pipeline import Pipeline, node, pipeline

from paced_rl.pipelines.evaluation.nodes import evaluate_policy


def create_pipeline() -> Pipeline:
    """Next policy and held-out prompts → evaluation."""
    return pipeline(
        [
            node(
                evaluate_policy,
                [
                    "policy",
                    "log_z_head",
                    "prompts",
                    "prompt_embeddings",
                    "params:evaluation",
                    "params:rollout",
                    "params:verification",
                    "params:training",
                    "params:policy",
                    "params:round",
                    "params:seed",
                ],
                "evaluation",
                name="evaluate_policy",
            )
        ],
        tags="evaluation",
    )
