"""What `provenance.json` says after whole runs, parts of one, failures, and runs that were killed."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from round_runs import round_catalog, round_pipeline, run_with_hooks

import paced_rl
from paced_rl import provenance
from paced_rl.hooks import ProvenanceHook
from paced_rl.seeds import derive_seed


def run_round(project: Path, *, executed: Any = None, error: Any = None, **params: Any) -> dict[str, Any]:
    """Runs the toy round, or the named nodes of it; what its file says then."""
    run_with_hooks(
        [ProvenanceHook()],
        project=project,
        catalog=round_catalog(project, **params),
        pipeline=round_pipeline(error=error),
        executed=executed,
        run_params={"env": "small"},
    )
    return document(project)


def document(project: Path) -> dict[str, Any]:
    return json.loads((project / "data/provenance/experiment=paced/round=0001/provenance.json").read_text())


def commit(project: Path, name: str) -> str:
    """Commits a new file; returns the commit."""
    (project / name).touch()
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*command, "init", "-q"], cwd=project, check=True)
    (project / ".gitignore").write_text("data/\nmlflow.db*\n")
    subprocess.run([*command, "add", "."], cwd=project, check=True)
    subprocess.run([*command, "commit", "-qm", name], cwd=project, check=True)
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=project, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_run_says_everything_that_it_depended_on(project: Path) -> None:
    found = run_round(project, seed=7, rollout={"group_size": 6}, mine={"b": 1})

    assert found["environment"] == "small"
    assert found["git"] is None, "outside of a repository"
    assert found["parameters"]["rollout"]["group_size"] == 6
    assert found["parameters"]["rollout"]["batch_size"] == 256, "defaults too"
    assert found["parameters"]["mine"] == {"b": 1}
    assert found["seeds"]["experiment"] == 7
    assert found["seeds"]["training"] == derive_seed(7, "training", 1)
    assert found["versions"]["paced-rl"] == "0.1.0"
    assert {"python", "torch", "kedro", "pyarrow", "numpy"} <= set(found["versions"])
    assert not {"pytest", "ruff"} & set(found["versions"]), "extras change no result"
    assert found["hardware"]["num_cores"] >= 1
    assert set(found["nodes"]) == {"sample", "verify", "train", "report"}
    assert found["nodes"]["sample"]["parameters"] == {"params:seed": 7}


def test_the_file_has_sorted_keys_and_equal_bytes_for_equal_runs(project: Path) -> None:
    run_round(project)
    path = project / "data/provenance/experiment=paced/round=0001/provenance.json"
    before = path.read_bytes()
    run_round(project)
    assert path.read_bytes() == before
    assert before == (json.dumps(json.loads(before), indent=1, sort_keys=True) + "\n").encode()


def test_each_node_keeps_the_commit_and_the_parameters_it_was_executed_under(project: Path) -> None:
    first = commit(project, "one.py")
    run_round(project, seed=1)
    second = commit(project, "two.py")
    (project / "three.py").touch()
    found = run_round(project, seed=2, executed=["verify", "report"])

    commits = {name: (entry["commit"], entry["is_dirty"]) for name, entry in found["nodes"].items()}
    assert commits == {
        "sample": (first, False),
        "train": (first, False),
        "verify": (second, True),
        "report": (second, True),
    }
    assert found["git"] == {"commit": second, "is_dirty": True}
    assert found["nodes"]["sample"]["parameters"] == {"params:seed": 1}


def test_parameters_are_those_of_the_last_run_that_executed_their_stage(project: Path) -> None:
    run_round(project, seed=1, training={"learning_rate": 5e-5}, reporting={"calibration_window": 3})
    found = run_round(project, seed=2, reporting={"calibration_window": 4}, executed=["report"])["parameters"]
    assert found["reporting"]["calibration_window"] == 4
    assert found["training"]["learning_rate"] == 5e-5, "the report trains nothing"
    assert found["seed"] == 1
    trained = run_round(project, seed=2, executed=["train"])["parameters"]
    assert trained["training"]["learning_rate"] == 1e-4
    assert trained["seed"] == 2
    assert trained["reporting"]["calibration_window"] == 4


def test_a_run_in_which_every_node_was_cached_changes_nothing(project: Path) -> None:
    before = run_round(project, seed=1)
    assert run_round(project, seed=2, executed=[]) == before


def test_a_finished_round_without_the_file_gets_one_though_every_node_is_cached(project: Path) -> None:
    """As a process leaves it that is killed after its last node."""
    before = run_round(project)
    (project / "data/provenance/experiment=paced/round=0001/provenance.json").unlink()
    found = run_round(project, executed=())
    assert found["parameters"] == before["parameters"]
    assert found["git"] is None, "nobody knows which code it was"


def test_of_a_failed_run_the_nodes_count_that_finished(project: Path) -> None:
    run_round(project, seed=1)
    second = commit(project, "one.py")
    with pytest.raises(ValueError, match="no luck"):
        run_round(project, seed=1, error=ValueError("no luck"))

    nodes = document(project)["nodes"]
    assert {name: entry["commit"] for name, entry in nodes.items()} == {
        "sample": second,
        "verify": second,
        "report": None,
    }
    assert "train" not in nodes


def test_no_place_on_this_machine_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project.parent / "alice"))
    source = project.parent / "alice" / "prompts.jsonl"
    found = run_round(
        project, policy={"source": str(project / "policies/mine")}, data_preparation={"source": str(source)}
    )
    assert found["parameters"]["policy"]["source"] == "policies/mine"
    assert found["parameters"]["data_preparation"]["source"] == "~/prompts.jsonl"
    assert str(project.parent) not in json.dumps(found)
    restored = provenance.with_home(found["parameters"])
    assert restored["data_preparation"]["source"] == str(source)
    assert restored["policy"] == found["parameters"]["policy"]


def test_the_named_seeds_are_those_that_stages_derive() -> None:
    """The labels stand in the nodes; a new one there has to be named here too."""
    nodes = Path(paced_rl.__file__).parent / "pipelines"
    calls = [
        call
        for path in sorted(nodes.glob("*/nodes.py"))
        if path.parent.name != "starter_policy"
        for call in re.findall(r'derive_seed\(seed, "(\w+)"(, round_number)?\)', path.read_text())
    ]
    derived = {label: derive_seed(5, label, *([3] if by_round else [])) for label, by_round in calls}
    assert len(derived) >= 3
    assert provenance.named_seeds(5, 3) == {"experiment": 5, **derived}


def test_places_are_replaced_at_any_depth_and_only_where_they_are_paths(tmp_path: Path) -> None:
    given = {"a": [str(tmp_path / "x"), "plain"], "b": {"c": "/elsewhere/x", "d": 1.5, "e": None}, "f": str(tmp_path)}
    expected = {"a": ["x", "plain"], "b": {"c": "/elsewhere/x", "d": 1.5, "e": None}, "f": "."}
    assert provenance.without_places(given, tmp_path) == expected


def test_flat_names_are_dotted() -> None:
    assert dict(provenance.flat({"a": {"b": 1, "c": {"d": None}}, "e": [1]})) == {"a.b": 1, "a.c.d": None, "e": [1]}
