"""`kedro paced status`, `diff` and `verify`, and `provenance.json`, on real rounds of tiny size."""

import hashlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from project_folders import environment, inside, make_project, run

from paced_rl.commands.diff import diff
from paced_rl.commands.status import status
from paced_rl.commands.verify import verify
from paced_rl.datasets.parquet_table import ParquetTable
from paced_rl.datasets.pruning import prune
from paced_rl.inspection.experiment import open_experiment
from paced_rl.inspection.states import NodeState, experiment_states
from paced_rl.locks import lock_path, process_start
from paced_rl.pipeline_registry import register_pipelines
from paced_rl.provenance import library_versions

EXPERIMENT = "experiment=test"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rounds 1 to 3 of `test`, and 1 to 2 of `warm`, which samples at another temperature. Copy it to change it."""
    folder = make_project(tmp_path_factory.mktemp("inspection") / "project")
    run(folder, range(1, 4))
    run(folder, range(1, 3), params={"experiment": "warm", "rollout": {"sampling_temperature": 1.5}})
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    return Path(shutil.copytree(finished, tmp_path / "project"))


def call(project: Path, command: click.Command, *arguments: str) -> Result:
    with inside(project):
        return CliRunner().invoke(command, [*arguments, "--env", "test"], catch_exceptions=False)


def judge(project: Path, **params: Any) -> list[NodeState]:
    with inside(project):
        return experiment_states(open_experiment(project, env="test", params=params))


def by_state(states: list[NodeState]) -> dict[str, set[tuple[int, str]]]:
    found: dict[str, set[tuple[int, str]]] = {}
    for state in states:
        found.setdefault(state.state, set()).add((state.round_number, state.node))
    return found


def file(project: Path, name: str, round_number: int) -> Path:
    (path,) = project.glob(f"data/*/{name}/{EXPERIMENT}/round={round_number:04d}/{name}.*")
    return path


def tree(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Relative path → digest, modification time and number of names of every file, hidden ones included."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
            path.stat().st_nlink,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- status


def test_a_finished_experiment_is_cached_and_its_policies_are_listed(finished: Path) -> None:
    before = tree(finished)
    result = call(finished, status)
    lines = [" ".join(line.split()) for line in result.output.splitlines()]

    assert result.exit_code == 0
    assert "once cached cached" in lines
    assert "1–3 cached cached cached cached cached cached" in lines
    assert any(line.startswith("0–3 starter_policy … ") for line in lines)
    assert "stale" not in result.output
    assert " on disk: " in result.output
    assert tree(finished) == before


def test_a_changed_parameter_shows_what_it_would_run_again(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    params = {"reporting": {"calibration_window": 1}}
    states = judge(project, **params)
    shown = by_state(states)
    own = {(x.round_number, x.node) for x in states if x.state == "stale" and not x.is_waiting}
    readers = {node.name for node in register_pipelines()["paced_round"].nodes if "params:reporting" in node.inputs}
    assert len(readers) >= 2
    assert own == {(n, node) for n in (1, 2, 3) for node in readers}
    assert {x.reason for x in states if x.node == "draw_estimates"} == {"params:reporting.calibration_window 20 → 1"}

    with caplog.at_level(logging.INFO, logger="paced_rl"):
        run(project, range(1, 4), params=params)
    executed = {record.getMessage().split()[0] for record in caplog.records if " runs: " in record.getMessage()}
    assert readers <= executed
    assert executed <= {node for _, node in shown["stale"]}
    assert by_state(judge(project, **params)).keys() == {"cached"}


def test_what_comes_after_a_change_in_round_2_is_stale_in_every_later_round(project: Path) -> None:
    file(project, "rollouts", 2).unlink()
    states = {(x.round_number, x.node): x for x in judge(project)}

    assert states[2, "sample_rollouts"].state == "missing"
    assert states[2, "sample_rollouts"].reason == "output rollouts is missing"
    assert states[2, "schedule_prompts"].state == "cached"
    assert states[3, "sample_rollouts"].reason == "after round 2 rollout"
    assert states[3, "estimate_accuracies"].reason == "after round 2 rollout"
    assert {x.state for (n, _), x in states.items() if n == 1} == {"cached"}
    assert {x.state for (n, _), x in states.items() if n == 3} == {"stale"}
    text = " ".join(call(project, status).output.split())
    assert "round 2, sample_rollouts: missing: output rollouts is missing" in text
    assert "stale after round 2 rollout" in text


def test_rounds_that_have_not_run_are_missing(project: Path) -> None:
    for folder in project.glob(f"data/*/*/{EXPERIMENT}/round=0002"):
        shutil.rmtree(folder)
    states = [x for x in judge(project) if x.round_number == 2]
    assert {x.state for x in states} == {"missing"}


def test_failed_and_interrupted_nodes_are_shown_with_what_happened(project: Path) -> None:
    for name, record, state, error in (
        ("policy", "train_policy", "failed", "FloatingPointError: loss is nan"),
        ("verdicts", "verify_rollouts", "running", ""),
    ):
        folder = file(project, name, 3).parent
        (folder / f".{record}.record.json").unlink()
        mark = {"state": state, "pid": 4_000_000, "process_start": "1", "host": socket.gethostname(), "error": error}
        (folder / f".{record}.attempt.json").write_text(json.dumps({**mark, "started": "2026-01-01T00:00:00+00:00"}))
    shown = by_state(judge(project))
    assert shown["failed"] == {(3, "train_policy")}
    assert shown["interrupted"] == {(3, "verify_rollouts")}
    text = " ".join(call(project, status).output.split())
    assert "round 3, train_policy: failed: FloatingPointError: loss is nan" in text
    assert "round 3, verify_rollouts: interrupted: its run of 2026-01-01T00:00:00+00:00 was stopped" in text


def test_pruned_policies_are_marked_and_leave_their_round_cached(project: Path) -> None:
    prune(file(project, "policy", 2))
    result = call(project, status)
    text = " ".join(result.output.split())
    assert "2 pruned: " in text
    assert " 0 B, was " in text
    assert by_state(judge(project)).keys() == {"cached"}


def test_status_waits_for_no_lock_and_imports_nothing_heavy(finished: Path) -> None:
    lock = lock_path(finished, "test")
    parent = {"pid": os.getppid(), "host": socket.gethostname(), "since": "now"}
    lock.write_text(json.dumps({**parent, "process_start": process_start(os.getppid())}))
    program = (
        "import sys\nfrom paced_rl.commands.status import status\n"
        "status(['--env', 'test'], standalone_mode=False)\n"
        "print([name for name in ('torch', 'transformers', 'mlflow', 'great_expectations') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=finished, env=environment(), capture_output=True, text=True, check=False
    )
    lock.unlink()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_experiment_that_is_not_there_is_refused_with_those_that_are(finished: Path) -> None:
    result = call(finished, status, "--experiment", "tset")
    assert result.exit_code == 2
    assert "there is no experiment 'tset'" in result.output
    assert "there are test, warm" in result.output


# --- provenance


def provenance(project: Path, round_number: int) -> Mapping[str, Any]:
    return json.loads(file(project, "provenance", round_number).read_text())


def test_provenance_names_every_input_by_its_digest(finished: Path) -> None:
    inputs = provenance(finished, 2)["inputs"]
    state = ("policy", "log_z_head", "optimizer_state", "replay_buffer", "outcome_history", "learning_curve")
    files = {f"previous_{name}@round": file(finished, name, 1) for name in state}
    for name in ("prompts", "prompt_embeddings", "reference_policy"):
        (files[name],) = finished.glob(f"data/*/{name}/{EXPERIMENT}/{name}.*")
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert {name: digest for name, digest in inputs.items() if not name.startswith("params:")} == digests
    assert len(inputs["params:policy.source"]) == 64


def test_provenance_covers_every_node_and_tells_no_place(finished: Path) -> None:
    first, second = (provenance(finished, n) for n in (1, 2))
    assert {"open_reference_policy", "start_tables", "train_policy"} <= set(first["nodes"])
    assert set(second["nodes"]) == {x.node for x in judge(finished) if x.round_number == 2}
    assert second["hardware"]["num_torch_threads"] >= 1
    assert second["environment"] == "test"
    text = file(finished, "provenance", 1).read_text()
    assert str(finished) not in text
    assert str(Path.home()) + "/" not in text
    assert f'"{socket.gethostname()}"' not in text


# --- diff


def test_equal_experiments_are_identical(project: Path) -> None:
    for folder in project.glob(f"data/*/*/{EXPERIMENT}"):
        shutil.copytree(folder, folder.with_name("experiment=twin"))
    result = call(project, diff, "test", "twin")
    assert result.exit_code == 0
    assert result.output.splitlines() == ["data: identical in rounds 0–3", "test and twin are identical"]


def test_a_changed_parameter_and_the_first_data_that_differ_are_told(finished: Path) -> None:
    result = call(finished, diff, "test", "warm")
    lines = result.output.splitlines()
    assert result.exit_code == 1
    assert lines[:2] == ["parameters:", "  rollout.sampling_temperature: 1.0 | 1.5 (rounds 1–2)"]
    assert "rounds: 3 | 2" in lines
    assert "data: the first difference is in round 1" in lines
    assert not any(name in result.output for name in ("timings", "figure", "schedule"))
    (line,) = (line for line in lines if line.startswith("  rollouts: "))
    tables = [
        pd.read_parquet(finished / f"data/07_model_output/rollouts/experiment={x}/round=0001") for x in ("test", "warm")
    ]
    same = (tables[0]["completion"] == tables[1]["completion"]).sum()
    assert 32 - same <= int(line.split()[1]) <= 32
    assert "sampling_temperature" in line


def test_diff_of_what_is_not_there_is_trouble_and_no_difference(finished: Path) -> None:
    assert call(finished, diff, "test", "nothing").exit_code == 2


# --- verify


def test_every_round_comes_out_again_and_nothing_is_touched(finished: Path) -> None:
    before = tree(finished)
    result = call(finished, verify)
    assert result.exit_code == 0
    counts = [line for line in result.output.splitlines() if "tables and checkpoints" in line]
    assert len(counts) == 4
    assert all(line.endswith(" identical") and "equal" not in line for line in counts)
    assert "not as then" not in result.output
    assert tree(finished) == before, "not even by an MLflow database or a lock"


def test_a_value_changed_by_hand_is_found_whatever_the_configuration_says_now(project: Path) -> None:
    path = file(project, "verdicts", 2)
    table = pd.read_parquet(path, partitioning=None)
    table.loc[4, "reward"] = 1.0 - table.loc[4, "reward"]
    ParquetTable(filepath=str(path), schema="verdicts").save(table)
    # Parameters are those of the round and not those of today.
    parameters = project / "conf/test/parameters.yml"
    parameters.write_text(parameters.read_text().replace("group_size: 4", "group_size: 3"))

    result = call(project, verify, "--round", "2")
    assert result.exit_code == 1
    assert "1 different" in result.output
    assert "different: verdicts: 1 of 32 rows differ, in reward; largest difference 1 in reward" in result.output


def test_rounding_is_told_from_change_and_what_explains_it_is_named(project: Path) -> None:
    path = file(project, "behaviour_log_probs", 1)
    table = pd.read_parquet(path, partitioning=None)
    table["max_log_prob_gap"] += 1e-6
    ParquetTable(filepath=str(path), schema="behaviour_log_probs").save(table)
    path = file(project, "provenance", 1)
    document = json.loads(path.read_text())
    document["versions"]["torch"] = "1.0"
    document["hardware"]["num_torch_threads"] = 64
    document["nodes"]["sample_rollouts"]["code"] = "other"
    document["inputs"]["prompts"] = "other"
    path.write_text(json.dumps(document))

    result = call(project, verify, "--round", "1")
    assert result.exit_code == 0
    assert "equal within 0.0001: behaviour_log_probs: largest difference 1e-06 in max_log_prob_gap" in result.output
    assert f"versions torch: 1.0 then, {library_versions()['torch']} now" in result.output
    assert "hardware num_torch_threads: 64 then" in result.output
    assert "code of sample_rollouts has changed" in result.output
    assert "input prompts is not the one that the round read" in result.output
    assert call(project, verify, "--round", "1", "--tolerance", "1e-8").exit_code == 1


def test_a_round_whose_inputs_or_provenance_are_gone_is_not_verified(project: Path) -> None:
    prune(file(project, "policy", 1))
    file(project, "provenance", 3).unlink()
    pruned = call(project, verify, "--round", "2")
    assert pruned.exit_code == 2
    assert "the weights of its input previous_policy@round were pruned" in pruned.output
    assert call(project, verify, "--round", "3").exit_code == 2
    everything = call(project, verify)
    assert everything.exit_code == 0, "what can be executed comes out again"
    assert everything.output.count("not verified") == 2


def test_catalog_entries_outside_of_the_project_are_not_overwritten(project: Path) -> None:
    catalog = project / "conf/base/catalog_verification.yml"
    catalog.write_text(catalog.read_text().replace("filepath: data/07", f"filepath: {project}/data/07"))
    before = tree(project)
    result = call(project, verify, "--round", "1")
    assert result.exit_code == 2
    assert "['verdicts'] have absolute paths" in result.output
    assert tree(project) == before
