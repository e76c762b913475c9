"""What became of each rollout."""

import pandas as pd

from paced_rl.parameters import (
    ReportingParameters,
    SchedulingParameters,
    TrainingParameters,
    VerificationParameters,
)
from paced_rl.pipelines.columns import arguments_of
from paced_rl.schemas import OUTCOME_HISTORY, VERDICTS
from paced_rl.timing import record
from paced_rl.types import FinishReason


def verify_rollouts(
    rollouts: pd.DataFrame, prompts: pd.DataFrame, verification: VerificationParameters
) -> pd.DataFrame:
    """One verdict per rollout, in the same order; a verifier that fails is a row too."""
    return judge_completions(rollouts, prompts, verification, stage="verification")


def judge_completions(
    rollouts: pd.DataFrame, prompts: pd.DataFrame, verification: VerificationParameters, *, stage: str
) -> pd.DataFrame:
    """`verify_rollouts`, with its seconds counted to that stage."""
    from paced_rl.verifiers import verify_completions

    arguments = arguments_of(prompts[prompts["prompt_id"].isin(rollouts["prompt_id"])])
    items = [
        (*arguments[prompt_id], completion, finish_reason == FinishReason.LENGTH)
        for prompt_id, completion, finish_reason in zip(
            rollouts["prompt_id"], rollouts["completion"], rollouts["finish_reason"], strict=True
        )
    ]
    verdicts, seconds = verify_completions(
        items, timeout_seconds=verification.timeout_seconds, memory_bytes=verification.memory_bytes
    )
    for name, spent in seconds.items():
        record(stage, f"verifier:{name}", spent)
    return pd.DataFrame(
        {
            "rollout_id": rollouts["rollout_id"].to_list(),
            "prompt_id": rollouts["prompt_id"].to_list(),
            "verifier": [name for name, *_ in items],
            "status": [str(verdict.status) for verdict in verdicts],
            "reward": [verdict.reward for verdict in verdicts],
            "extracted_answer": [verdict.extracted_answer for verdict in verdicts],
        },
        columns=VERDICTS.names,
    )


def record_outcomes(
    schedule: pd.DataFrame,
    verdicts: pd.DataFrame,
    previous_outcome_history: pd.DataFrame,
    reporting: ReportingParameters,
    training: TrainingParameters,
    scheduling: SchedulingParameters,
    round_number: int,
) -> pd.DataFrame:
    """What was predicted of each scheduled prompt and what came out, for this round and the last ones."""
    groups = verdicts.groupby("prompt_id")["reward"].agg(["count", "sum"])
    now = pd.DataFrame(
        {
            "scheduled_round": round_number,
            "prompt_id": schedule["prompt_id"],
            "reason": schedule["reason"],
            "log_z": schedule["log_z"],
            "estimated_accuracy": schedule["estimated_accuracy"],
            "num_scored": groups["count"].reindex(schedule["prompt_id"]).to_numpy(),
            "num_correct": groups["sum"].reindex(schedule["prompt_id"]).to_numpy().astype(int),
        },
        columns=OUTCOME_HISTORY.names,
    )
    earlier = previous_outcome_history[OUTCOME_HISTORY.names]
    # The next round reads what this one keeps, so it finds all that the head, selectors and estimators look back at.
    num_rounds = max(reporting.calibration_window, training.log_z_past_rounds, scheduling.outcome_past_rounds)
    earlier = earlier[earlier["scheduled_round"] > round_number - num_rounds]
    return pd.concat([earlier, now], ignore_index=True) if len(earlier) else now
