"""Groups that are rolled out and not trained on."""

import pandas as pd

from paced_rl.parameters import SchedulingParameters


def without_dropped_groups(
    fresh: pd.DataFrame, schedule: pd.DataFrame, scheduling: SchedulingParameters
) -> pd.DataFrame:
    """The scored rollouts that train: all of them, but under `dynamic_sampling` those of its informative groups.

    Args:
        fresh: rollouts with a reward.
        schedule: of the round; groups are kept by its rank.
        scheduling: selector and number of prompts.
    """
    if scheduling.selector != "dynamic_sampling":
        return fresh
    from paced_rl.scheduling import groups_to_train_on

    by_rank = schedule.sort_values("rank")["prompt_id"]
    groups = fresh.groupby("prompt_id")["reward"].agg(["sum", "count"]).reindex(by_rank, fill_value=0)
    is_kept = groups_to_train_on(
        groups["sum"].to_numpy(dtype=int), groups["count"].to_numpy(dtype=int), num_prompts=scheduling.num_prompts
    )
    return fresh[fresh["prompt_id"].isin(by_rank.to_numpy()[is_kept])].copy()
