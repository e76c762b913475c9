"""Wiring of data preparation; its tables belong to an experiment, not to a round."""

from kedro.pipeline import Pipeline, node, pipeline

from paced_rl.pipelines.data_preparation.nodes import embed_all_prompts, open_reference_policy, prepare_prompts


def create_pipeline() -> Pipeline:
    """Reference policy and prompt source → prompts → prompt embeddings."""
    return pipeline(
        [
            node(open_reference_policy, "params:policy", "reference_policy", name="open_reference_policy"),
            node(
                prepare_prompts,
                ["reference_policy", "params:data_preparation", "params:policy", "params:seed"],
                "prompts",
                name="prepare_prompts",
            ),
            node(
                embed_all_prompts,
                ["reference_policy", "prompts", "params:data_preparation", "params:policy"],
                "prompt_embeddings",
                name="embed_all_prompts",
            ),
        ],
        tags="data_preparation",
    )
