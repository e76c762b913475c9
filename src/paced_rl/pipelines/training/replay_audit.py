"""The audit of replay: every completion that could be replayed in this round, and what it is worth."""

import numpy as np
import pandas as pd

from paced_rl.parameters import RolloutParameters, TrainingParameters
from paced_rl.schemas import REPLAY_AUDIT
from paced_rl.types import Origin


def audit_replay(
    training_batch: pd.DataFrame,
    previous_replay_buffer: pd.DataFrame,
    training: TrainingParameters,
    rollout: RolloutParameters,
    round_number: int,
) -> pd.DataFrame:
    """Age, reuse, luck in the priority and effect on log Z of the buffer that this round read, in its order."""
    from paced_rl.scheduling import expected_priority, log_z_shift

    replayed_ids = training_batch.loc[training_batch["origin"] == Origin.REPLAYED, "rollout_id"]
    rows = previous_replay_buffer.reset_index(drop=True)
    is_replayed = rows["rollout_id"].isin(replayed_ids).to_numpy()
    luck = expected_priority(rows["estimated_accuracy"].to_numpy(dtype=np.float64), rollout.group_size)
    replayed = rows[is_replayed]
    shift = np.full(len(rows), np.nan)
    shift[is_replayed] = log_z_shift(
        replayed["observed_accuracy"].to_numpy(dtype=np.float64),
        (replayed["prompt_id"] + ":" + replayed["sampled_round"].astype(str)).to_numpy(),
        group_size=rollout.group_size,
        reward_temperature=training.reward_temperature,
    )
    return rows.assign(
        state=np.where(is_replayed, "replayed", "waiting"),
        age=round_number - rows["sampled_round"],
        expected_priority=luck,
        excess_priority=rows["priority"].to_numpy(dtype=np.float64) - luck,
        log_z_shift=shift,
    )[REPLAY_AUDIT.names]
