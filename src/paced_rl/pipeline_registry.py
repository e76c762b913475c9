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
from paced_rl.stages import ORACLE_PIPELINE, ROUND_PIPELINE


def register_pipelines() -> dict[str, Pipeline]:
    """`paced_round` is all stages of one round; each stage can be run alone; `starter_policy` remakes the start.

    `oracle_round` is `paced_round` with a node that measures candidates for the selector `oracle`.
    """
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
    with_oracle = {
        "scheduling": scheduling.create_pipeline(is_oracle=True),
        "reporting": reporting.create_pipeline(is_oracle=True),
    }
    paced_round = sum(stages.values(), Pipeline([]))
    return {
        **stages,
        "starter_policy": starter_policy.create_pipeline(),
        ROUND_PIPELINE: paced_round,
        ORACLE_PIPELINE: sum((stages | with_oracle).values(), Pipeline([])),
        "__default__": paced_round,
    }
