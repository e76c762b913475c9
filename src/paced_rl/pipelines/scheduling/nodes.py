"""Which prompts this round takes."""

import pandas as pd

from paced_rl.datasets.parquet_table import TableReader
from paced_rl.parameters import SchedulingParameters, TrainingParameters
from paced_rl.pipelines.columns import embeddings_by_split
from paced_rl.types import Checkpoint, Split


def estimate_accuracies(
    log_z_head: Checkpoint, prompt_embeddings: TableReader, training: TrainingParameters
) -> pd.DataFrame:
    """log Z and estimated accuracy of every train and audit prompt: one pass over the stored embeddings."""
    from paced_rl.objectives.estimate import estimate_in_batches
    from paced_rl.scheduling.estimates import estimated_accuracy
    from paced_rl.training.head_state import load_head

    prompt_ids: list[str] = []
    splits: list[str] = []

    def batches():  # type: ignore[no-untyped-def]
        for ids, split, matrix in embeddings_by_split(prompt_embeddings, (Split.TRAIN, Split.AUDIT)):
            prompt_ids.extend(ids)
            splits.extend(split)
            yield ids, matrix

    head = load_head(log_z_head, reward_temperature=training.reward_temperature)
    log_z = estimate_in_batches(head, batches())
    return pd.DataFrame(
        {
            "prompt_id": prompt_ids,
            "split": splits,
            "log_z": log_z,
            "estimated_accuracy": estimated_accuracy(log_z, training.reward_temperature),
        }
    )


def schedule_prompts(
    accuracy_estimates: pd.DataFrame, scheduling: SchedulingParameters, round_number: int, seed: int
) -> pd.DataFrame:
    """The round's prompts in the order in which they are rolled out, each with the reason why it is there."""
    from paced_rl.scheduling import build_schedule

    train = accuracy_estimates[accuracy_estimates["split"] == Split.TRAIN].reset_index(drop=True)
    schedule = build_schedule(
        train["estimated_accuracy"].to_numpy(),
        round_number=round_number,
        experiment_seed=seed,
        selector=scheduling.selector,
        target_accuracy=scheduling.target_accuracy,
        num_prompts=scheduling.num_prompts,
        candidate_pool_size=scheduling.candidate_pool_size,
        audit_fraction=scheduling.audit_fraction,
        warm_up_rounds=scheduling.warm_up_rounds,
    )
    scheduled = train.loc[schedule.indices, ["prompt_id", "log_z", "estimated_accuracy"]].reset_index(drop=True)
    return scheduled.assign(rank=range(len(scheduled)), reason=[str(reason) for reason in schedule.reasons])
