"""A valid example of every table, for tests that need rows and not a pipeline."""

from typing import Any

import pyarrow as pa

from paced_rl.schemas import TABLES

_EVALUATED = {"policy_version": 0, "estimated_accuracy": None, "num_samples": 4, "num_tokens": 40}
_REPLAYED = {
    "sampled_round": 1,
    "policy_version": 1,
    "reuse_count": 1,
    "prompt_token_ids": [5, 6],
    "completion_token_ids": [7, 1],
    "sampler_log_probs": [-0.5, -0.25],
    "reward": 1.0,
    "observed_accuracy": 0.25,
    "estimated_accuracy": 0.5,
    "priority": 0.25,
}

ROWS: dict[str, list[dict[str, Any]]] = {
    "prompts": [
        {
            "prompt_id": f"{index:016x}",
            "source": "countdown",
            "split": split,
            "text": "1 2>3:",
            "token_ids": [1, 2, 3],
            "reference_answer": "1+2",
            "verifier": "arithmetic",
            "verifier_arguments": '{"numbers": [1, 2], "target": 3}',
            "metadata": "{}",
        }
        for index, split in enumerate(("train", "audit", "validation", "test"))
    ],
    "prompt_embeddings": [
        {"prompt_id": "p0", "split": "train", "embedding": [0.5, -1.0]},
        {"prompt_id": "p1", "split": "audit", "embedding": [0.0, 2.0]},
    ],
    "accuracy_estimates": [
        {"prompt_id": "p0", "split": "train", "log_z": 10.0, "estimated_accuracy": 0.5},
        {"prompt_id": "p1", "split": "audit", "log_z": 0.0, "estimated_accuracy": 0.0},
    ],
    "schedule": [
        {"prompt_id": "p0", "rank": 0, "reason": "selected", "log_z": 10.0, "estimated_accuracy": 0.5},
        {"prompt_id": "p1", "rank": 1, "reason": "audit", "log_z": 2.0, "estimated_accuracy": 0.1},
        {"prompt_id": "p2", "rank": 2, "reason": "warm_up", "log_z": 20.0, "estimated_accuracy": 1.0},
    ],
    "measured_accuracies": [
        {"prompt_id": "p0", "num_scored": 8, "num_correct": 3, "num_tokens": 80},
        {"prompt_id": "p1", "num_scored": 0, "num_correct": 0, "num_tokens": 64},
    ],
    "rollouts": [
        {
            "rollout_id": f"r{index}",
            "prompt_id": "p0",
            "sample_index": index,
            "policy_version": 2,
            "seed": 2**62 + index,
            "completion": "1+2",
            "completion_token_ids": [4, 5, 1],
            "sampler_log_probs": [-0.1, -0.2, 0.0],
            "num_tokens": 3,
            "finish_reason": reason,
            "sampling_temperature": 1.0,
        }
        for index, reason in enumerate(("eos", "length"))
    ],
    "verdicts": [
        {"rollout_id": f"r{index}", "prompt_id": "p0", "verifier": "arithmetic", "status": status, "reward": reward}
        | {"extracted_answer": answer}
        for index, (status, reward, answer) in enumerate(
            (("right", 1.0, "1+2"), ("wrong", 0.0, "1+1"), ("unparseable", 0.0, None), ("verifier_error", None, None))
        )
    ],
    "training_batch": [
        {"rollout_id": "r0", "prompt_id": "p0", "origin": "fresh", "reason": "selected", "staleness": 0}
        | {"finish_reason": "eos"}
        | _REPLAYED,
        {"rollout_id": "r9", "prompt_id": "p1", "origin": "replayed", "reason": "audit", "staleness": 2}
        | {"finish_reason": "eos"}
        | _REPLAYED,
    ],
    "behaviour_log_probs": [
        {
            "rollout_id": rollout_id,
            "behaviour_log_probs": [-0.5, -0.125],
            "mean_log_prob_gap": 0.001,
            "max_log_prob_gap": 0.002,
            "reference_log_probs": [-0.75, -0.25] if rollout_id == "r0" else None,
        }
        for rollout_id in ("r0", "r1")
    ],
    "replay_buffer": [
        {"rollout_id": rollout_id, "prompt_id": "p0", "age": 1} | _REPLAYED for rollout_id in ("r0", "r1")
    ],
    "replay_audit": [
        {
            "rollout_id": f"r{index}",
            "prompt_id": "p0",
            "state": state,
            "sampled_round": 1,
            "age": 2,
            "reuse_count": 0,
            "observed_accuracy": 0.75,
            "estimated_accuracy": 0.5,
            "priority": 0.25,
            "expected_priority": 0.137,
            "excess_priority": 0.113,
            "log_z_shift": shift,
        }
        for index, (state, shift) in enumerate((("replayed", 0.5), ("waiting", None)))
    ],
    "training_metrics": [
        {
            "optimizer_step": step,
            "epoch": 0,
            "num_completions": 8,
            "num_replayed": 2,
            "num_tokens": 100,
            "policy_loss": 1.5,
            "log_z_loss": 0.5,
            "gradient_norm": 2.0,
            "mean_residual": -0.1,
            "kl_behaviour_policy": 0.001,
            "clip_fraction": None,
            "mean_importance_correction": 1.01,
            "capped_correction_fraction": 0.05,
            "mean_log_prob_gap": 0.001,
        }
        for step in (1, 2)
    ],
    "outcome_history": [
        {
            "scheduled_round": scheduled_round,
            "prompt_id": "p0",
            "reason": "selected",
            "log_z": 10.0,
            "estimated_accuracy": 0.5,
            "num_scored": 8,
            "num_correct": 3,
        }
        for scheduled_round in (1, 2)
    ],
    "evaluation": [
        {"split": split, "prompt_id": "p0", "num_scored": 4, "num_correct": 3, "num_distinct_correct": 2} | _EVALUATED
        for split in ("validation", "audit")
    ],
    "learning_curve": [
        {
            "curve_round": curve_round,
            "tokens_sampled": 1000 * curve_round,
            "train_accuracy": 0.25,
            "validation_accuracy": accuracy,
            "validation_accuracy_low": low,
            "validation_accuracy_high": high,
        }
        for curve_round, accuracy, low, high in ((0, 0.3, 0.2, 0.4), (1, None, None, None))
    ],
    "round_summary": [
        {
            field.name: 0.25 if pa.types.is_floating(field.type) and not field.nullable else 3
            for field in TABLES["round_summary"]
            if not field.nullable
        }
        | {"accuracy": 0.5, "informative_fraction": 0.75}
    ],
    "timings": [
        {"stage": "rollout", "name": "sample_completions", "seconds": 1.5, "peak_memory_bytes": 2**30},
        {"stage": "verification", "name": "verifier:arithmetic", "seconds": 0.0, "peak_memory_bytes": 0},
    ],
    "starter_corpus": [{"prompt": "1 2>3:", "completion": "1+2", "kind": "solution"}],
    "starter_losses": [{"step": 1, "loss": 3.2}],
}
"""Rows by table; a nullable column that is left out is null."""


def example_table(name: str, rows: list[dict[str, Any]] | None = None) -> pa.Table:
    """The example of a table as Arrow; `rows` replaces its rows."""
    return pa.Table.from_pylist(ROWS[name] if rows is None else rows, schema=TABLES[name])
