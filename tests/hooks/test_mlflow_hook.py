import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from round_runs import GROUP_SIZE, NUM_PROMPTS, round_catalog, round_pipeline, run_with_hooks

from paced_rl.hooks import MlflowHook, ProvenanceHook, TimingsHook
from paced_rl.hooks.mlflow_tracking import flat_params


def run_round(project: Path, *, accuracy: float = 0.5, executed: Any = None, error: Any = None, **params: Any) -> None:
    run_with_hooks(
        [MlflowHook(), TimingsHook(), ProvenanceHook()],
        project=project,
        catalog=round_catalog(project, **params),
        pipeline=round_pipeline(accuracy=accuracy, error=error),
        executed=executed,
    )


def client_of(project: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{project}/mlflow.db")


def runs_of(project: Path, kind: str) -> list[Run]:
    """Runs of a kind, oldest first."""
    experiment = client_of(project).get_experiment_by_name("paced-rl")
    if experiment is None:
        return []
    query = f"tags.`paced.kind` = '{kind}'"
    return list(client_of(project).search_runs([experiment.experiment_id], query, order_by=["attributes.created ASC"]))


def curve(project: Path, run: Run, metric: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client_of(project).get_metric_history(run.info.run_id, metric)]


def test_rounds_of_an_experiment_are_curves_of_one_run_that_experiments_overlay(project: Path) -> None:
    for round_number, accuracy in ((1, 0.25), (2, 0.5)):
        run_round(project, round=round_number, accuracy=accuracy)
    run_round(project, experiment="uniform", accuracy=0.125)

    parents = {run.data.tags["paced.experiment"]: run for run in runs_of(project, "experiment")}
    assert sorted(parents) == ["paced", "uniform"]
    assert curve(project, parents["paced"], "round/accuracy") == [(1, 0.25), (2, 0.5)]
    assert curve(project, parents["uniform"], "round/accuracy") == [(1, 0.125)]
    assert [step for step, _ in curve(project, parents["paced"], "seconds/verification")] == [1, 2]
    assert "round/validation_accuracy" not in parents["paced"].data.metrics, "null is no point of a curve"
    assert not {"round/round", "round/experiment"} & set(parents["paced"].data.metrics)
    assert {run.data.tags["mlflow.parentRunId"] for run in runs_of(project, "round")} == {
        run.info.run_id for run in parents.values()
    }


def test_tags_of_a_user_are_on_the_runs_of_experiment_and_round(project: Path) -> None:
    run_round(project, round=1)
    run_round(project, round=2, tracking={"enabled": True, "run_tags": {"study": "selectors", "arm": "nearest"}})
    run_round(project, experiment="b", tracking={"enabled": True, "run_tags": {"study": "s", "paced.kind": "x"}})

    older, newer = runs_of(project, "experiment")
    assert (older.data.tags["study"], older.data.tags["arm"]) == ("selectors", "nearest"), (
        "also on a run that was there"
    )
    assert newer.data.tags["study"] == "s"
    first, second, _ = runs_of(project, "round")
    assert "study" not in first.data.tags
    assert second.data.tags["arm"] == "nearest"
    assert second.data.params["tracking.run_tags.study"] == "selectors"


def test_a_round_has_its_parameters_metrics_rollouts_figures_and_fingerprints(project: Path) -> None:
    run_round(project, round=3, rollout={"group_size": 6}, reporting={"num_rollouts_in_mlflow": 5})
    (run,) = runs_of(project, "round")
    assert run.info.run_name == "paced round 0003"
    assert run.data.tags["mlflow.source.name"] == "kedro run", "without it the UI shows no commit"
    assert run.info.status == "FINISHED"
    assert run.data.params["rollout.group_size"] == "6"
    assert run.data.params["data_preparation.countdown.max_numbers"] == "4", "defaults are recorded too"
    assert run.data.metrics["round/tokens_sampled"] == 1234
    assert curve(project, run, "training/policy_loss") == [(7, 3.0), (8, 2.0)]
    assert curve(project, run, "training/mean_residual") == [(7, 0.5)]

    rollouts = project / "data/rollouts/experiment=paced/round=0003/rollouts.parquet"
    digest = hashlib.sha256(rollouts.read_bytes()).hexdigest()
    assert run.data.tags["paced.data.rollouts"] == digest[:16]

    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_relative_to(project / "mlruns")
    assert (artifacts / "figures/calibration_figure.png").read_bytes().startswith(b"\x89PNG")
    table = json.loads((artifacts / "rollouts.json").read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(rows) == 5
    for row in rows:
        index = int(row["rollout_id"][1:])
        assert row["completion"] == f"1+{index}"
        assert row["text"] == f"1 2>{index // GROUP_SIZE}:"
        assert row["status"] == "right"
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "rollouts.json", "type": "table"}]


def test_the_address_of_the_runs_is_logged(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="paced_rl"):
        run_round(project, round=2)
    (run,) = runs_of(project, "round")
    assert run.info.experiment_id == "1"
    assert "Round 2 of 'paced' is in MLflow: http://127.0.0.1:5000/#/experiments/1/runs" in caplog.text


def test_mlflow_itself_reads_the_rollout_table(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_round(project)
    (run,) = runs_of(project, "round")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    table = client_of(project).load_table(run.info.experiment_id, "rollouts.json", [run.info.run_id])
    assert len(table) == NUM_PROMPTS * GROUP_SIZE


def test_no_rollouts_are_recorded_when_none_are_wanted(project: Path) -> None:
    run_round(project, reporting={"num_rollouts_in_mlflow": 0})
    (run,) = runs_of(project, "round")
    assert "mlflow.loggedArtifacts" not in run.data.tags
    assert not (Path(run.info.artifact_uri.removeprefix("file://")) / "rollouts.json").exists()


def test_a_fully_cached_round_adds_nothing(project: Path) -> None:
    run_round(project)
    before = [run.to_dictionary() for kind in ("experiment", "round") for run in runs_of(project, kind)]
    run_round(project, executed=[])
    assert [run.to_dictionary() for kind in ("experiment", "round") for run in runs_of(project, kind)] == before


def test_a_repeated_round_supersedes_the_earlier_run_and_repeats_no_point(project: Path) -> None:
    run_round(project, accuracy=0.25)
    run_round(project, accuracy=0.25, executed=["report"])
    run_round(project, accuracy=0.75, executed=["report"])
    (parent,) = runs_of(project, "experiment")
    assert curve(project, parent, "round/accuracy") == [(1, 0.25), (1, 0.75)]
    assert curve(project, parent, "round/tokens_sampled") == [(1, 1234)]
    assert len(curve(project, parent, "seconds/rollout")) == 1, "the rollout was executed once"
    assert [run.data.tags.get("paced.superseded") for run in runs_of(project, "round")] == ["true", "true", None]


def test_a_repeated_round_leaves_other_rounds_and_experiments_alone(project: Path) -> None:
    for params in ({"round": 1}, {"round": 2}, {"experiment": "other"}, {"round": 1}):
        run_round(project, **params)
    superseded = [run.data.tags.get("paced.superseded") for run in runs_of(project, "round")]
    assert superseded == ["true", None, None, None]


def test_a_failed_round_is_a_failed_run_with_the_message(project: Path) -> None:
    run_round(project, accuracy=0.25)
    with pytest.raises(FloatingPointError, match="loss is nan"):
        run_round(project, accuracy=0.75, error=FloatingPointError("loss is nan"), executed=["verify", "train"])
    failed = runs_of(project, "round")[-1]
    assert failed.info.status == "FAILED"
    assert failed.data.tags["paced.error"] == "FloatingPointError: loss is nan"
    assert failed.data.params["training.objective"] == "paced"
    assert failed.data.metrics == {}, "tables on disk may be of an earlier attempt"
    (parent,) = runs_of(project, "experiment")
    assert curve(project, parent, "round/accuracy") == [(1, 0.25)]
    assert runs_of(project, "round")[0].data.tags.get("paced.superseded") is None

    run_round(project, accuracy=0.75)
    assert [run.data.tags.get("paced.superseded") for run in runs_of(project, "round")] == ["true", "true", None]


def test_a_single_stage_is_not_a_round(project: Path) -> None:
    catalog, stage = round_catalog(project), round_pipeline().filter(tags=["rollout"])
    run_with_hooks([MlflowHook()], project=project, catalog=catalog, pipeline=stage)
    assert runs_of(project, "round") == []


def test_tracking_can_be_switched_off(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_round(project, tracking={"enabled": False})
    monkeypatch.setenv("PACED_RL_MLFLOW", "off")
    run_round(project, tracking={"enabled": True})
    assert runs_of(project, "round") == []


def test_the_environment_variable_names_another_place(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    (project / "mlflow.db").rename(elsewhere / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}/mlflow.db")
    monkeypatch.chdir(elsewhere)
    run_round(project)
    assert len(runs_of(elsewhere, "round")) == 1
    assert not (project / "mlflow.db").exists()


def test_a_broken_database_costs_the_record_and_not_the_round(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    (project / "mlflow.db").write_bytes(b"this is not a database" * 100)
    with caplog.at_level(logging.ERROR, logger="paced_rl"):
        run_with_hooks(
            [MlflowHook()],
            project=project,
            catalog=round_catalog(project, round=4),
            pipeline=round_pipeline(),
            run_params={"env": "gpu", "runtime_params": {"training": {"learning_rate": 0.1}, "round": 4}},
        )
    assert "MLflow could not record round 4 of experiment 'paced'" in caplog.text
    command = "kedro run --pipelines=reporting --env=gpu --params training.learning_rate=0.1,round=4,experiment=paced "
    assert command + "--runner-params=force=True" in caplog.text, "else it would record other parameters"
    assert (project / "data/round_summary/experiment=paced/round=0004/round_summary.parquet").exists()


def test_the_commit_and_uncommitted_changes_are_recorded(project: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
        return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (project / ".gitignore").write_text("data/\nmlruns/\nmlflow.db*\n")
    git("add", ".gitignore")
    git("commit", "-qm", "first")
    run_round(project)
    (project / "new.py").touch()
    run_round(project)
    commit = git("rev-parse", "HEAD")
    tags = [run.data.tags for run in runs_of(project, "round")]
    assert [(t["mlflow.source.git.commit"], t["paced.git_dirty"]) for t in tags] == [
        (commit, "false"),
        (commit, "true"),
    ]


def test_seeds_versions_hardware_and_inputs_are_tags(project: Path) -> None:
    run_round(project, seed=7, policy={"source": str(project / "mlflow.db")})
    (run,) = runs_of(project, "round")
    tags = run.data.tags
    assert tags["paced.seeds.experiment"] == "7"
    assert tags["paced.versions.pandas"] == pd.__version__
    assert tags["paced.hardware.num_cores"] == str(os.cpu_count())
    assert all(len(tags[name]) <= 16 for name in tags if name.startswith("paced.inputs."))


def test_many_parameters_and_points_are_split_into_requests_that_mlflow_accepts(project: Path) -> None:
    run_round(project, notes={f"key{i:03d}": i for i in range(150)})
    (run,) = runs_of(project, "round")
    assert run.data.params["notes.key149"] == "149"
    assert run.data.params["seed"] == "0"


def test_flat_params_takes_built_groups_and_raw_ones() -> None:
    from paced_rl.parameters import RolloutParameters

    raw = {"experiment": "paced", "rollout": {"group_size": 5}}
    built = {"experiment": "paced", "rollout": RolloutParameters(group_size=5)}
    assert flat_params(raw) == flat_params(built)


_CONCURRENT = """
import sys, time
from pathlib import Path
from paced_rl.hooks.mlflow_store import RoundRecord, log_round

record = RoundRecord(
    experiment=sys.argv[2], round_number=1, started=time.time(), params={}, run_tags={}, tags={},
    round_metrics={"round/a": 1.0}, step_metrics=(), rollouts=None, figures=(),
)
log_round(record, project=Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_two_processes_create_one_database_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    commands = [[sys.executable, "-c", _CONCURRENT, str(tmp_path), name] for name in ("one", "two")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert sorted(run.data.tags["paced.experiment"] for run in runs_of(tmp_path, "experiment")) == ["one", "two"]
