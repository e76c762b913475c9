"""The parts of a round's summary row; every measure is computed in `paced_rl.metrics`."""

from typing import Any

import numpy as np
import pandas as pd

from paced_rl.metrics.calibration import (
    binomial_floor,
    brier_score,
    expected_calibration_error,
    mean_absolute_error,
    spearman_rank_correlation,
)
from paced_rl.metrics.informativeness import hit_rate, informative_fraction
from paced_rl.metrics.pass_at_k import pass_at_k
from paced_rl.types import Origin, ScheduleReason, Split, VerdictStatus

_STATUS_COLUMNS = {
    VerdictStatus.RIGHT: "num_right",
    VerdictStatus.WRONG: "num_wrong",
    VerdictStatus.UNPARSEABLE: "num_unparseable",
    VerdictStatus.TIMED_OUT: "num_timed_out",
    VerdictStatus.TRUNCATED: "num_truncated",
    VerdictStatus.VERIFIER_ERROR: "num_verifier_errors",
}


def uniform_outcomes(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Outcomes of prompts drawn uniformly: calibration is measured on these, never on the selected ones."""
    return outcomes[(outcomes["reason"] != ScheduleReason.SELECTED) & (outcomes["num_scored"] > 0)]


def last_rounds(outcomes: pd.DataFrame, *, round_number: int, num_rounds: int) -> pd.DataFrame:
    """The outcomes of this round and the ones before it, `num_rounds` in all."""
    return outcomes[outcomes["scheduled_round"] > round_number - num_rounds]


def verdict_part(verdicts: pd.DataFrame) -> dict[str, Any]:
    """Verifier ledger and diversity."""
    right = verdicts[verdicts["status"] == VerdictStatus.RIGHT]
    distinct = right.groupby("prompt_id")["extracted_answer"].nunique()
    return {
        **{column: int((verdicts["status"] == status).sum()) for status, column in _STATUS_COLUMNS.items()},
        "distinct_correct_per_solved_prompt": float(distinct.mean()) if len(distinct) else None,
    }


def _arrays(outcomes: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        outcomes["estimated_accuracy"].to_numpy(dtype=np.float64),
        outcomes["num_correct"].to_numpy(dtype=np.int64),
        outcomes["num_scored"].to_numpy(dtype=np.int64),
    )


def _accuracy(outcomes: pd.DataFrame) -> float | None:
    scored = int(outcomes["num_scored"].sum())
    return float(outcomes["num_correct"].sum() / scored) if scored else None


def outcome_part(outcome_history: pd.DataFrame, *, round_number: int, num_rounds: int) -> dict[str, Any]:
    """Accuracy, informativeness and the error of the estimates; the window's calibration."""
    scored = last_rounds(outcome_history, round_number=round_number, num_rounds=num_rounds)
    scored = scored[scored["num_scored"] > 0]
    now = scored[scored["scheduled_round"] == round_number]
    selected = now[now["reason"] == ScheduleReason.SELECTED]
    audit, window = uniform_outcomes(now), uniform_outcomes(scored)
    observed = (now["num_correct"] / now["num_scored"]).to_numpy(dtype=np.float64)
    return {
        "accuracy": _accuracy(now),
        "accuracy_of_selected": _accuracy(selected),
        "accuracy_of_audit": _accuracy(audit),
        "informative_fraction": informative_fraction(observed),
        "hit_rate": hit_rate(observed),
        "mean_absolute_error_of_selected": mean_absolute_error(*_arrays(selected)),
        "mean_absolute_error_of_audit": mean_absolute_error(*_arrays(audit)),
        "binomial_floor_of_audit": binomial_floor(_arrays(audit)[0], _arrays(audit)[2]),
        "brier_score": brier_score(*_arrays(window)),
        "expected_calibration_error": expected_calibration_error(*_arrays(window)),
        "rank_correlation": spearman_rank_correlation(*_arrays(window)),
    }


def replay_part(training_batch: pd.DataFrame, replay_audit: pd.DataFrame) -> dict[str, Any]:
    """How much was replayed, how old it was, how often it had been used, and what it was chosen for."""
    audited = replay_audit[replay_audit["state"] == "replayed"]
    replayed = training_batch[training_batch["origin"] == Origin.REPLAYED]
    return {
        "num_replayed": len(replayed),
        "replay_mean_age": float(replayed["staleness"].mean()) if len(replayed) else None,
        "replay_mean_reuse_count": float(replayed["reuse_count"].mean()) if len(replayed) else None,
        **{
            f"replay_mean_{name}": float(audited[name].mean()) if len(audited) else None
            for name in ("priority", "excess_priority", "log_z_shift")
        },
    }


def training_part(training_metrics: pd.DataFrame) -> dict[str, Any]:
    """Means over the round's optimiser steps, and the KL divergence at its last one."""
    return {
        "tokens_trained": int(training_metrics["num_tokens"].sum()),
        "policy_loss": float(training_metrics["policy_loss"].mean()),
        "log_z_loss": float(training_metrics["log_z_loss"].mean()),
        "gradient_norm": float(training_metrics["gradient_norm"].mean()),
        "kl_behaviour_policy": float(training_metrics["kl_behaviour_policy"].iloc[-1]),
        **{
            name: float(training_metrics[name].iloc[-1])
            for name in ("mean_log_prob_gap", "max_log_prob_gap", "sampler_kl")
        },
    }


def evaluation_part(evaluation: pd.DataFrame, *, k: int) -> dict[str, Any]:
    """Held-out accuracy; empty in rounds without evaluation."""
    scored = evaluation[evaluation["num_scored"] > 0]
    validation = scored[scored["split"] == Split.VALIDATION]
    audit = scored[(scored["split"] == Split.AUDIT) & scored["estimated_accuracy"].notna()]
    complete = validation[validation["num_scored"] >= k]
    part: dict[str, Any] = {
        "tokens_evaluated": int(evaluation["num_tokens"].sum()),
        "validation_accuracy": None,
        "validation_pass_at_k": None,
        "audit_mean_absolute_error": None,
    }
    if len(validation):
        part["validation_accuracy"] = float((validation["num_correct"] / validation["num_scored"]).mean())
    if len(complete):
        _, correct, samples = _arrays(complete)
        part["validation_pass_at_k"] = float(pass_at_k(samples, correct, k).mean())
    if len(audit):
        part["audit_mean_absolute_error"] = mean_absolute_error(*_arrays(audit))
    return part
