"""The audit of replay as a table, and the switch that lets replayed rows train the head."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from project_folders import make_project, run
from table_examples import ROWS

from paced_rl.parameters import RolloutParameters, TrainingParameters
from paced_rl.pipelines.columns import empty_table
from paced_rl.pipelines.reporting.summary import replay_part
from paced_rl.pipelines.training.replay_audit import audit_replay
from paced_rl.schemas import REPLAY_AUDIT, REPLAY_BUFFER

TRAINING, ROLLOUT = TrainingParameters(), RolloutParameters(group_size=8)


def buffer(*changes: dict[str, Any]) -> pd.DataFrame:
    rows = [ROWS["replay_buffer"][0] | {"rollout_id": f"r{i}"} | change for i, change in enumerate(changes)]
    return pd.DataFrame(rows, columns=REPLAY_BUFFER.names)


def batch(replayed: list[str]) -> pd.DataFrame:
    rows = [{"rollout_id": name, "origin": "replayed", "staleness": 1, "reuse_count": 0} for name in replayed]
    return pd.DataFrame([{"rollout_id": "x", "origin": "fresh", "staleness": 0, "reuse_count": 0}, *rows])


def test_the_table_by_hand() -> None:
    """Luck of an estimate of a half with 8 completions is 35/256; two of one group pull it from 2/8 to 4/10."""
    entries = buffer(
        {"priority": 0.25, "sampled_round": 3, "observed_accuracy": 0.25, "estimated_accuracy": 0.5},
        {"priority": 0.25, "sampled_round": 3, "observed_accuracy": 0.25, "estimated_accuracy": 0.5, "reuse_count": 2},
        {"priority": 0.0, "sampled_round": 4, "observed_accuracy": 1.0, "estimated_accuracy": 1.0},
    )
    audit = audit_replay(batch(["r0", "r1"]), entries, TRAINING, ROLLOUT, 5)

    assert audit.columns.to_list() == REPLAY_AUDIT.names
    assert audit["rollout_id"].to_list() == ["r0", "r1", "r2"]
    assert audit["state"].to_list() == ["replayed", "replayed", "waiting"]
    assert audit["age"].to_list() == [2, 2, 1]
    assert audit["reuse_count"].to_list() == [1, 2, 1]
    assert audit["expected_priority"].to_list() == pytest.approx([35 / 256, 35 / 256, 0.0])
    assert audit["excess_priority"].to_list() == pytest.approx([0.25 - 35 / 256] * 2 + [0.0])
    assert audit["log_z_shift"].to_list()[:2] == pytest.approx([(0.4 - 0.25) / 0.05] * 2)
    assert np.isnan(audit["log_z_shift"].iloc[2])
    part = replay_part(batch(["r0", "r1"]), audit)
    assert part["replay_mean_excess_priority"] == pytest.approx(0.25 - 35 / 256)
    assert part["replay_mean_log_z_shift"] == pytest.approx(3.0)


def test_an_empty_buffer_has_an_empty_audit() -> None:
    audit = audit_replay(batch([]), empty_table(REPLAY_BUFFER), TRAINING, ROLLOUT, 1)
    assert len(audit) == 0
    part = replay_part(batch([]), audit)
    assert part["num_replayed"] == 0
    assert {value for name, value in part.items() if name != "num_replayed"} == {None}


def test_an_estimate_that_is_exact_explains_its_priorities_by_luck() -> None:
    """Groups of exact estimates: the excess is 0 on average, though every single priority is above or below."""
    draw = np.random.default_rng(0)
    estimates = draw.uniform(0.1, 0.9, size=4000)
    observed = draw.binomial(8, estimates) / 8
    entries = buffer(
        *(
            {"priority": abs(o - e), "observed_accuracy": o, "estimated_accuracy": e}
            for o, e in zip(observed, estimates, strict=True)
        )
    )
    audit = audit_replay(batch([]), entries, TRAINING, ROLLOUT, 2)
    standard_error = audit["excess_priority"].std() / np.sqrt(len(audit))
    assert abs(audit["excess_priority"].mean()) < 3 * standard_error
    assert audit["excess_priority"].abs().mean() > 10 * standard_error


def digests(project: Path, name: str, experiment: str, round_number: int) -> dict[str, Any]:
    manifest = project / f"data/06_models/{name}/experiment={experiment}/round={round_number:04d}/{name}.json"
    found: dict[str, Any] = json.loads(manifest.read_text())["files"]
    return found


def test_replayed_rows_train_the_head_if_asked_to_and_pull_it_up(tmp_path: Path) -> None:
    """One optimiser step a round: the policy's is taken before the head moves, so the switch changes the head alone."""
    project = make_project(tmp_path / "project")
    for experiment, is_on in (("without", False), ("with", True)):
        training = {"num_minibatches": 1, "replay_trains_head": is_on, "log_z_epochs": 30}
        params = {"experiment": experiment, "training": training, "evaluation": {"every": 1}}
        assert run(project, range(1, 3), params=params) == [1, 2]

    audit = pd.read_parquet(project / "data/07_model_output/replay_audit/experiment=with/round=0002")
    assert {"replayed"} <= set(audit["state"])
    assert audit.loc[audit["state"] == "replayed", "log_z_shift"].max() > 0
    assert digests(project, "log_z_head", "without", 1) == digests(project, "log_z_head", "with", 1)
    assert digests(project, "policy", "without", 2) == digests(project, "policy", "with", 2)
    assert digests(project, "log_z_head", "without", 2) != digests(project, "log_z_head", "with", 2)
    means = {
        experiment: pd.read_parquet(project / f"data/07_model_output/evaluation/experiment={experiment}/round=0002")[
            "estimated_accuracy"
        ].mean()
        for experiment in ("without", "with")
    }
    assert means["with"] > means["without"]
