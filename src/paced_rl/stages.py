"""The stages by name. Every node is tagged with its stage, and each stage is a pipeline."""

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
