"""Between the table of outcomes and the arrays of `paced_rl.scheduling`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from paced_rl.scheduling import Outcomes, estimated_accuracy


def outcomes_of(
    outcome_history: pd.DataFrame,
    prompt_ids: Sequence[str],
    *,
    round_number: int,
    num_past_rounds: int,
    reward_temperature: float | None,
) -> Outcomes:
    """The scored groups of the last `num_past_rounds` rounds, aligned with `prompt_ids`.

    Args:
        outcome_history: as the round before left it.
        prompt_ids: of the estimates the outcomes go with.
        round_number: of the round that is planned.
        num_past_rounds: how far to look back; 0 gives no outcome.
        reward_temperature: β, with which the priors are the head's estimates, β·log Z; None takes the estimates as
            recorded, which are those of the estimator.

    Raises:
        ValueError: an outcome of a prompt that has no estimate.
    """
    age = round_number - outcome_history["scheduled_round"]
    past = outcome_history[(outcome_history["num_scored"] > 0) & (age > 0) & (age <= num_past_rounds)]
    indices = pd.Index(prompt_ids).get_indexer(pd.Index(past["prompt_id"]))
    if (indices < 0).any():
        unknown = past.loc[indices < 0, "prompt_id"].unique().tolist()
        raise ValueError(
            f"outcome_history names {len(unknown)} prompts without an estimate, first {unknown[:5]}: the prompts have "
            "changed since; give the new ones an experiment of their own"
        )
    recorded = past["estimated_accuracy"].to_numpy(dtype=np.float64)
    log_z = past["log_z"].to_numpy(dtype=np.float64)
    return Outcomes(
        prompt_indices=indices.astype(np.int64),
        ages=(round_number - past["scheduled_round"]).to_numpy(dtype=np.int64),
        num_correct=past["num_correct"].to_numpy(dtype=np.int64),
        num_scored=past["num_scored"].to_numpy(dtype=np.int64),
        reasons=past["reason"].to_numpy(dtype=np.str_),
        prior_estimates=recorded if reward_temperature is None else estimated_accuracy(log_z, reward_temperature),
    )
