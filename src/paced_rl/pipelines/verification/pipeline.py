"""Wiring of verification."""

from kedro.pipeline import Pipeline, node, pipeline

from paced_rl.pipelines.verification.nodes import record_outcomes, verify_rollouts


def create_pipeline() -> Pipeline:
    """Rollouts → verdicts → outcomes per prompt."""
    return pipeline(
        [
            node(verify_rollouts, ["rollouts", "prompts", "params:verification"], "verdicts", name="verify_rollouts"),
            node(
                record_outcomes,
                [
                    "schedule",
                    "verdicts",
                    "previous_outcome_history@round",
                    "params:reporting",
                    "params:training",
                    "params:scheduling",
                    "params:round",
                ],
                "outcome_history",
                name="record_outcomes",
            ),
        ],
        tags="verification",
    )
