"""Every pipeline by name. Explicit, since a pipeline composed here is no folder that Kedro could find."""

from kedro.pipeline import Pipeline

from paced_rl.pipelines.data_preparation import pipeline as data_preparation
from paced_rl.pipelines.evaluation import pipeline as evaluation
from paced_rl.pipelines.reporting import pipeline as reporting
from paced_rl.pipelines.rollout import pipeline as rollout
from paced_rl.pipelines.scheduling import pipeline as scheduling
from paced_rl.pipelines.start import pipeline as start
from paced_rl.pipelines.starter_policy import pipeline as starter_policy
from paced_rl.pipelines.training import pipeline as training
from paced_rl.pipelines.verification import pipeline as verification


def register_pipelines() -> dict[str, Pipeline]:
    """`paced_round` is all stages of one round; each stage can be run alone; `starter_policy` remakes the start."""
    stages = {
        "data_preparation": data_preparation.create_pipeline(),
        "start": start.create_pipeline(),
        "scheduling": scheduling.create_pipeline(),
        "rollout": rollout.create_pipeline(),
        "verification": verification.create_pipeline(),
        "training": training.create_pipeline(),
        "evaluation": evaluation.create_pipeline(),
        "reporting": reporting.create_pipeline(),
    }
    paced_round = sum(stages.values(), Pipeline([]))
    return {
        **stages,
        "starter_policy": starter_policy.create_pipeline(),
        "paced_round": paced_round,
        "__default__": paced_round,
    }
