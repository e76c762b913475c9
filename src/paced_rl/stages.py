"""The stages by name, each a tag of its nodes and a pipeline, and the pipelines that run a whole round."""

STAGES = (
    "starter_policy",
    "data_preparation",
    "start",
    "scheduling",
    "rollout",
    "verification",
    "training",
    "evaluation",
    "reporting",
)
"""In the order in which they run."""

START_STAGES = ("data_preparation", "start")
"""What an experiment does once, before its first round."""

ROUND_PIPELINE = "paced_round"
ORACLE_PIPELINE = "oracle_round"


def round_pipeline(selector: str) -> str:
    """Name of the pipeline that runs a round with this selector."""
    return ORACLE_PIPELINE if selector == "oracle" else ROUND_PIPELINE
