"""Wiring of rollout generation."""

from kedro.pipeline import Pipeline, node, pipeline

from paced_rl.pipelines.rollout.nodes import sample_rollouts


def create_pipeline() -> Pipeline:
    """Schedule and behaviour policy → rollouts."""
    return pipeline(
        [
            node(
                sample_rollouts,
                [
                    "schedule",
                    "prompts",
                    "previous_policy@round",
                    "params:rollout",
                    "params:policy",
                    "params:round",
                    "params:seed",
                ],
                "rollouts",
                name="sample_rollouts",
            )
        ],
        tags="rollout",
    )
