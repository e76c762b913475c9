"""What parameters alone can change about a round, and which of them stop it before any work is done."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project_folders import environment, make_project, run
from safetensors.numpy import load_file

from paced_rl.preflight import PreflightError

SMALL = {
    "data_preparation": {"num_train": 20, "num_audit": 4, "num_validation": 4, "num_test": 4},
    "scheduling": {"num_prompts": 4, "audit_fraction": 0.25},
    "rollout": {"group_size": 3, "max_new_tokens": 8},
    "evaluation": {"num_samples": 1},
}


def test_the_grpo_environment_runs_the_baseline(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    run(project, range(1, 3), env="grpo", params=SMALL)

    folder = project / "data" / "07_model_output" / "training_metrics" / "experiment=grpo"
    metrics = pd.read_parquet(folder)
    assert metrics["mean_residual"].isna().all()
    assert metrics["clip_fraction"].between(0, 1).all()
    batch = pd.read_parquet(project / "data" / "05_model_input" / "training_batch" / "experiment=grpo")
    assert set(batch["origin"]) == {"fresh"}


def test_own_prompts_and_own_policy_through_parameters_alone(tmp_path: Path, tiny_policy_folder: Path) -> None:
    project = make_project(tmp_path / "project")
    rows = [
        {
            "prompt": f"{a} {b}>{a + b}:",
            "reference_answer": f"{a}+{b}",
            "verifier": "arithmetic",
            "verifier_arguments": {"numbers": [a, b], "target": a + b},
        }
        for a in range(1, 7)
        for b in range(7, 13)
    ]
    prompts_file = tmp_path / "sums.jsonl"
    prompts_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    params: dict[str, Any] = {
        **SMALL,
        "experiment": "mine",
        "data_preparation": {**SMALL["data_preparation"], "source": str(prompts_file)},
        "policy": {"source": str(tiny_policy_folder)},
    }
    run(project, range(1, 2), params=params)

    prompts = pd.read_parquet(project / "data/03_primary/prompts/experiment=mine/prompts.parquet")
    assert set(prompts["text"]) == {row["prompt"] for row in rows}
    assert prompts["split"].value_counts().to_dict() == {"train": 24, "audit": 4, "validation": 4, "test": 4}
    (weights,) = project.glob("data/06_models/policy/experiment=mine/round=0001/policy/*/model.safetensors")
    own = load_file(tiny_policy_folder / "model.safetensors")
    assert {name: array.shape for name, array in load_file(weights).items()} == {
        name: array.shape for name, array in own.items()
    }


def test_a_wrong_parameter_name_ends_the_command_with_one_message(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    command = [sys.executable, "-m", "kedro", "run", "--env=test", "--params", "rollout.grup_size=8"]
    done = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "Unknown parameter 'rollout.grup_size': did you mean rollout.group_size?" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert list((project / "data").iterdir()) == [project / "data" / "01_raw"]


@pytest.mark.parametrize(
    ("first", "params", "message"),
    [
        (3, {"experiment": "new"}, "round 3 of experiment 'new' needs round 2, which is missing"),
        (
            1,
            {"training": {"objective": "grpo", "replay_max_added": 0}, "rollout": {"group_size": 1}},
            "group_size to 2 or more",
        ),
        (1, {"training": {"objective": "grpo", "replay_max_added": 4}}, "takes no replayed rows"),
    ],
)
def test_a_run_that_cannot_work_stops_before_any_node(
    tmp_path: Path, first: int, params: dict[str, Any], message: str
) -> None:
    project = make_project(tmp_path / "project")
    with pytest.raises(PreflightError, match=message):
        run(project, range(first, first + 1), params=params)
    written = [path for path in (project / "data").rglob("*") if path.is_file() and "01_raw" not in path.parts]
    assert {path.relative_to(project / "data").parts[0] for path in written} <= {".locks"}
