"""An experiment that is killed dozens of times, anywhere, ends with the bytes of one that never was."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from killed_rounds import NUM_ROUNDS, PARAMS
from project_folders import environment

from paced_rl.hooks.common import STAGES

PROGRAM = Path(__file__).with_name("killed_rounds.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the program leaves."""
    folder = tmp_path_factory.mktemp("killed_rounds")
    command = [sys.executable, str(PROGRAM), str(folder)]
    done = subprocess.run(
        command, env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def test_the_files_are_those_of_an_uninterrupted_run(report: dict[str, Any]) -> None:
    """After each kill no reader sees anything but whole files of the right content; at the end nothing else is left."""
    assert report["wrong"] == []


def test_kills_struck_in_every_stage_and_inside_the_writes(report: dict[str, Any]) -> None:
    strikes = report["strikes"]
    stages = Counter(strike["stage"] for strike in strikes)
    stages_of_kind = {kind: {s["stage"] for s in strikes if s["kind"] == kind} for kind in {s["kind"] for s in strikes}}

    assert len(strikes) >= 30
    assert sum(strike["by"] == "clock" for strike in strikes) >= 10
    assert set(STAGES) - {"starter_policy"} <= stages.keys()
    for kind in ("inside a table", "before a rename", "after a rename", "inside a text"):
        assert len(stages_of_kind[kind]) >= 4, kind
    assert stages_of_kind["inside weights"]
    assert stages_of_kind["inside a figure"]
    manifests = [strike["target"] for strike in strikes if strike["target"].endswith((".json", ".json.tmp"))]
    assert any("06_models" in name and "record" not in name and "attempt" not in name for name in manifests)
    assert any(".record.json" in name for name in manifests)


def test_training_went_on_over_the_end_of_the_prompts(folder: Path) -> None:
    """Elsewhere a resumed run that stands at the end of an epoch finds nothing left and trains no step."""
    data = folder / "killed" / "data"
    schedule = pd.read_parquet(data / "04_feature/schedule/experiment=test")
    steps = pd.read_parquet(data / "07_model_output/training_metrics/experiment=test")
    weights = [
        next(data.glob(f"06_models/policy/experiment=test/round={number:04d}/policy/*/model.safetensors")).read_bytes()
        for number in range(1, NUM_ROUNDS + 1)
    ]

    num_drawn = (schedule["reason"] == "selected").sum()
    assert num_drawn > PARAMS["data_preparation"]["num_train"]
    assert (schedule.groupby("round")["prompt_id"].nunique() == PARAMS["scheduling"]["num_prompts"]).all()
    assert steps.sort_values("optimizer_step")["optimizer_step"].to_list() == [*range(1, len(steps) + 1)]
    assert steps.groupby("round", observed=True).size().to_list() == [3] * NUM_ROUNDS
    assert len(set(weights)) == NUM_ROUNDS
