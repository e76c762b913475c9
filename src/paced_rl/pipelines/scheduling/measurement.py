"""What the selector `oracle` is told: the accuracy of each candidate under the current policy."""

import logging

import pandas as pd

from paced_rl.parameters import PolicyParameters, RolloutParameters, SchedulingParameters, VerificationParameters
from paced_rl.pipelines.columns import empty_table
from paced_rl.pipelines.rollout.nodes import sample_completions
from paced_rl.pipelines.verification.nodes import judge_completions
from paced_rl.schemas import MEASURED_ACCURACIES
from paced_rl.types import Checkpoint, Split

logger = logging.getLogger(__name__)


def measure_candidates(
    accuracy_estimates: pd.DataFrame,
    prompts: pd.DataFrame,
    behaviour_policy: Checkpoint,
    scheduling: SchedulingParameters,
    rollout: RolloutParameters,
    verification: VerificationParameters,
    policy: PolicyParameters,
    round_number: int,
    seed: int,
) -> pd.DataFrame:
    """`oracle_samples` completions of each candidate, judged and counted; nothing else is ever done with them.

    Their seeds are of a stream of their own, so that a chosen prompt is rolled out anew. No rows during the warm-up.
    """
    from paced_rl.scheduling import candidates_to_measure

    train = accuracy_estimates.loc[accuracy_estimates["split"] == Split.TRAIN, "prompt_id"].to_numpy()
    candidates = candidates_to_measure(
        len(train),
        num_prompts=scheduling.num_prompts,
        candidate_pool_size=scheduling.candidate_pool_size,
        audit_fraction=scheduling.audit_fraction,
        warm_up_rounds=scheduling.warm_up_rounds,
        round_number=round_number,
        experiment_seed=seed,
    )
    if not len(candidates):
        return empty_table(MEASURED_ACCURACIES)
    _say_what_it_costs(len(candidates), scheduling, rollout)
    completions = sample_completions(
        train[candidates].tolist(),
        prompts,
        behaviour_policy,
        rollout=rollout,
        policy=policy,
        num_samples=scheduling.oracle_samples,
        stream="oracle",
        round_number=round_number,
        seed=seed,
    )
    verdicts = judge_completions(completions, prompts, verification, stage="scheduling")
    groups = verdicts.groupby("prompt_id", sort=False)["reward"].agg(num_scored="count", num_correct="sum")
    tokens = completions.groupby("prompt_id", sort=False)["num_tokens"].sum().rename("num_tokens")
    return groups.join(tokens).astype(int).reset_index()[MEASURED_ACCURACIES.names]


def _say_what_it_costs(num_candidates: int, scheduling: SchedulingParameters, rollout: RolloutParameters) -> None:
    """Warns where every prompt is measured, which is seldom meant."""
    if scheduling.candidate_pool_size == 0:
        times = num_candidates * scheduling.oracle_samples / (scheduling.num_prompts * rollout.group_size)
        logger.warning(
            "scheduling.candidate_pool_size = 0: the oracle rolls out all %d candidates %d times each, %.0f times as "
            "much as the round itself; scheduling.candidate_pool_size=128 would measure so many",
            num_candidates,
            scheduling.oracle_samples,
            times,
        )
