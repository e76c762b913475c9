"""Which prompts this round takes."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from paced_rl.datasets.parquet_table import TableReader
from paced_rl.parameters import SchedulingParameters, TrainingParameters
from paced_rl.pipelines.columns import accuracies_of_head, embeddings_by_split
from paced_rl.pipelines.scheduling.history import outcomes_of
from paced_rl.types import Checkpoint, Split


def estimate_accuracies(
    log_z_head: Checkpoint,
    prompt_embeddings: TableReader,
    previous_outcome_history: pd.DataFrame,
    scheduling: SchedulingParameters,
    training: TrainingParameters,
    round_number: int,
    seed: int,
) -> pd.DataFrame:
    """log Z of every train and audit prompt, one pass over the stored embeddings, and its accuracy by the estimator."""
    from paced_rl.objectives.estimate import estimate_in_batches
    from paced_rl.scheduling import estimate_by
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
    estimates = estimate_by(
        scheduling.estimator,
        accuracies_of_head(log_z, training),
        outcomes=outcomes_of(
            previous_outcome_history,
            prompt_ids,
            round_number=round_number,
            num_past_rounds=scheduling.outcome_past_rounds,
            reward_temperature=training.reward_temperature if training.is_log_z_accuracy else None,
        ),
        target_accuracy=scheduling.target_accuracy,
        half_life=scheduling.outcome_half_life,
        experiment_seed=seed,
        round_number=round_number,
    )
    return pd.DataFrame(
        {"prompt_id": prompt_ids, "split": splits, "log_z": log_z, "estimated_accuracy": estimates},
    )


def schedule_prompts(
    accuracy_estimates: pd.DataFrame,
    previous_outcome_history: pd.DataFrame,
    scheduling: SchedulingParameters,
    training: TrainingParameters,
    round_number: int,
    seed: int,
    measured_accuracies: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The round's prompts in the order in which they are rolled out, each with the reason why it is there.

    Only `oracle` looks at measured accuracies, and only its pipeline has them.
    """
    from paced_rl.scheduling import SelectorSettings, build_schedule, estimated_accuracy

    train = accuracy_estimates[accuracy_estimates["split"] == Split.TRAIN].reset_index(drop=True)
    # The estimates of `beta_posterior` contain the outcomes, so there the prior is what they started from: the head.
    is_posterior = scheduling.estimator == "beta_posterior"
    estimates = train["estimated_accuracy"].to_numpy()
    schedule = build_schedule(
        estimates,
        round_number=round_number,
        experiment_seed=seed,
        selector=scheduling.selector,
        target_accuracy=scheduling.target_accuracy,
        num_prompts=scheduling.num_prompts,
        candidate_pool_size=scheduling.candidate_pool_size,
        audit_fraction=scheduling.audit_fraction,
        warm_up_rounds=scheduling.warm_up_rounds,
        settings=SelectorSettings(
            softening=scheduling.softening,
            outcome_half_life=scheduling.outcome_half_life,
            retest_share=scheduling.retest_share,
            retest_after=scheduling.retest_after,
            max_oversampling=scheduling.max_oversampling,
        ),
        outcomes=outcomes_of(
            previous_outcome_history,
            train["prompt_id"].to_list(),
            round_number=round_number,
            num_past_rounds=scheduling.outcome_past_rounds,
            reward_temperature=training.reward_temperature if is_posterior else None,
        ),
        prior_estimates=estimated_accuracy(train["log_z"].to_numpy(), training.reward_temperature)
        if is_posterior
        else estimates,
        measured_accuracies=None if measured_accuracies is None else _aligned(measured_accuracies, train["prompt_id"]),
    )
    scheduled = train.loc[schedule.indices, ["prompt_id", "log_z", "estimated_accuracy"]].reset_index(drop=True)
    return scheduled.assign(rank=range(len(scheduled)), reason=[str(reason) for reason in schedule.reasons])


def _aligned(measured_accuracies: pd.DataFrame, prompt_ids: pd.Series) -> Float[np.ndarray, " num_prompts_total"]:
    """Measured accuracy of each prompt; NaN where nothing was measured, or every verifier failed."""
    scored = measured_accuracies[measured_accuracies["num_scored"] > 0].set_index("prompt_id")
    accuracies = (scored["num_correct"] / scored["num_scored"]).reindex(prompt_ids)
    return accuracies.to_numpy(dtype=np.float64)
