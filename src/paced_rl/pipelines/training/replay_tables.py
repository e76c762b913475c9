"""Between the replay buffer's table and the bookkeeping of `paced_rl.scheduling.replay`."""

import numpy as np
import pandas as pd

from paced_rl.scheduling.replay import ReplayEntries, content_key


def entries_of(table: pd.DataFrame) -> ReplayEntries:
    """What replay must know of each row; the rest of the row is looked up by position."""
    keys = [content_key(p, t) for p, t in zip(table["prompt_id"], table["completion_token_ids"], strict=True)]
    return ReplayEntries(
        rollout_ids=table["rollout_id"].to_numpy(dtype=np.str_),
        content_keys=np.array(keys, dtype=np.str_),
        priorities=table["priority"].to_numpy(dtype=np.float64),
        sampled_rounds=table["sampled_round"].to_numpy(dtype=np.int64),
        reuse_counts=table["reuse_count"].to_numpy(dtype=np.int64),
    )
