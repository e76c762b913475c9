"""Wiring of the starter policy."""

from kedro.pipeline import Pipeline, node, pipeline

from paced_rl.pipelines.starter_policy.nodes import make_starter_corpus, train_starter_policy


def create_pipeline() -> Pipeline:
    """Corpus → starter policy, remade from scratch."""
    return pipeline(
        [
            node(
                make_starter_corpus,
                ["params:data_preparation", "params:starter_policy", "params:seed"],
                "starter_corpus",
                name="make_starter_corpus",
            ),
            node(
                train_starter_policy,
                ["starter_corpus", "params:starter_policy", "params:seed"],
                ["starter_policy", "starter_losses"],
                name="train_starter_policy",
            ),
        ],
        tags="starter_policy",
    )
