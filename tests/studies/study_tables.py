"""Writes the tables of made-up experiments: what the report reads, and nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from paced_rl.studies.study_file import StudyPlan, read_study

STUDY = """
name: s
rounds: 2
seeds: [0, 1]
arms:
  base: {scheduling.selector: uniform}
  other: {scheduling.selector: nearest}
report: {accuracies: [0.5, 0.7], num_resamples: 200}
"""

NUM_SAMPLES = 2
CORRECT = {
    ("base", 0): [(0, 1), (1, 1), (1, 1)],
    ("base", 1): [(0, 1), (0, 1), (2, 1)],
    ("other", 0): [(0, 1), (2, 1), (1, 1)],
    ("other", 1): [(0, 1), (1, 1), (2, 2)],
}
"""(arm, seed) → by round, how many of two samples of each of two test prompts are right."""
VALIDATION = {
    ("base", 0): [0.2, 0.4, 0.3],
    ("base", 1): [0.2, 0.1, 0.3],
    ("other", 0): [0.2, 0.3, 0.3],
    ("other", 1): [0.2, 0.5, 0.4],
}
TOKENS = {"base": 100, "other": 80}
"""Sampled in each round."""


def plan(folder: Path, text: str = STUDY) -> StudyPlan:
    (folder / "study.yml").write_text(text)
    return read_study(folder / "study.yml")


def write_study(project: Path, *, last_rounds: Mapping[tuple[str, int], int] | None = None) -> None:
    """All experiments of `CORRECT`, each up to its last round: 2 unless said otherwise, −1 is nothing at all."""
    for (arm, seed), rounds in CORRECT.items():
        for number in range((last_rounds or {}).get((arm, seed), len(rounds) - 1) + 1):
            write_round(project, arm, seed, number)


def write_round(project: Path, arm: str, seed: int, number: int) -> None:
    """Round 0 has an evaluation and a curve alone."""

    def write(table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        folder = project / "data" / table / f"experiment=s-{arm}-s{seed}" / f"round={number:04d}"
        folder.mkdir(parents=True)
        pd.DataFrame(rows).to_parquet(folder / f"{Path(table).name}.parquet", index=False)

    right = CORRECT[arm, seed][number]
    test = [evaluated("test", f"{seed}-{i}", num_correct) for i, num_correct in enumerate(right)]
    # Not to be read: the prompts of another split are all wrong.
    write("07_model_output/evaluation", [*test, evaluated("validation", "v", 0)])
    curve = enumerate(VALIDATION[arm, seed][: number + 1])
    write("08_reporting/learning_curve", [{"curve_round": r, "validation_accuracy": a} for r, a in curve])
    if number == 0:
        return
    tokens = {"tokens_sampled": TOKENS[arm], "tokens_trained": 10, "tokens_evaluated": 5}
    measured = {"tokens_measured": 7 if arm == "other" else None}
    write("08_reporting/round_summary", [{**tokens, **measured, "num_prompts": 3}])
    stages = [("rollout", "sample_rollouts", 2.0), ("rollout", "save:rollouts", 0.5), ("training", "train_policy", 3.0)]
    others = [("verification", "verifier:arithmetic", 9.0), ("reporting", "draw", 4.0), ("start", "start_policy", 50.0)]
    write(
        "08_reporting/timings", [dict(zip(("stage", "name", "seconds"), row, strict=True)) for row in stages + others]
    )
    # A window: each table holds the rounds before it too.
    outcomes = [outcome(r, reason) for r in range(1, number + 1) for reason in ("warm_up", "audit", "selected")]
    write("05_model_input/outcome_history", outcomes)


def evaluated(split: str, prompt_id: str, num_correct: int) -> dict[str, Any]:
    return {
        "split": split,
        "prompt_id": prompt_id,
        "num_scored": NUM_SAMPLES,
        "num_correct": num_correct,
        "num_distinct_correct": min(num_correct, 1),
    }


def outcome(number: int, reason: str) -> dict[str, Any]:
    """Uniform prompts have estimate 0.5 and 3 of 4 right; the estimate of selected ones is far off."""
    estimate = 0.0 if reason == "selected" else 0.5
    counts = {"estimated_accuracy": estimate, "num_scored": 4, "num_correct": 3}
    return {"scheduled_round": number, "reason": reason, **counts}
