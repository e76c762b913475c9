"""Branches of experiments, on folders of files as a round leaves them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paced_rl.datasets.checkpoint import CheckpointDataset
from paced_rl.datasets.pruning import prune
from paced_rl.forks import Fork, ForkError, fork_experiment, read_fork
from paced_rl.retention import manifests
from paced_rl.types import CheckpointFiles

TABLES = ("05_model_input/replay_buffer", "05_model_input/outcome_history", "08_reporting/learning_curve")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Rounds 0 to 3 of experiment `old`, in a folder whose own name looks like a content's and an experiment's."""
    project = tmp_path / "0123456789abcdef" / "experiment=old"
    write(project / "data/03_primary/prompts/experiment=old/prompts.parquet", "prompts")
    write(project / "data/03_primary/prompts/experiment=other/prompts.parquet", "others")
    for number in range(4):
        for table in TABLES:
            folder = project / "data" / table / "experiment=old" / f"round={number:04d}"
            write(folder / f"{Path(table).name}.parquet", f"{table} {number}")
            write(folder / ".node.record.json", f"record {number}")
            write(folder / ".x.parquet.tmp-77", "left by a killed process")
        for manifest in manifests(project, "old", number):
            content = CheckpointFiles(files={"model.safetensors": f"{manifest.stem} {number}".encode()}, metadata={})
            CheckpointDataset(filepath=str(manifest)).save(content)
    return project


def tree(project: Path, experiment: str) -> dict[str, Path]:
    data = project / "data"
    return {
        str(path.relative_to(data)).replace(f"experiment={experiment}", "…"): path
        for path in data.glob(f"*/*/experiment={experiment}/**/*")
        if path.is_file()
    }


def test_a_branch_has_the_files_of_earlier_rounds_and_of_none(project: Path) -> None:
    old = tree(project, "old")
    fork_experiment(project, old="old", new="new", first_round=2)

    new = tree(project, "new")
    expected = {
        name for name in old if "round=0002" not in name and "round=0003" not in name and not name.endswith("tmp-77")
    }
    assert new.keys() == expected
    assert all(path.read_bytes() == old[name].read_bytes() for name, path in new.items())
    linked = {name for name, path in new.items() if path.samefile(old[name])}
    assert linked == {name for name in expected if name.endswith("model.safetensors")}
    assert len(linked) == 2 * 3
    assert read_fork(project, "new") == Fork(forked_from="old", first_round=2)
    assert read_fork(project, "old") is None
    for name, path in new.items():
        if path.suffix == ".json" and not path.name.startswith("."):
            assert CheckpointDataset(filepath=str(path)).load().folder.is_relative_to(path.parent), name


def test_a_report_on_all_rounds_stays_with_them(project: Path) -> None:
    write(project / "data/08_reporting/counterfactual/experiment=old/report.md", "of rounds 1 to 3")
    fork_experiment(project, old="old", new="new", first_round=2)
    assert not [name for name in tree(project, "new") if "counterfactual" in name]


def test_either_experiment_can_lose_its_weights_without_the_other(project: Path) -> None:
    fork_experiment(project, old="old", new="new", first_round=3)
    for experiment, number, other in (("old", 2, "new"), ("new", 1, "old")):
        for manifest in manifests(project, experiment, number):
            assert prune(manifest) > 0
        for manifest in manifests(project, other, number):
            assert CheckpointDataset(filepath=str(manifest)).exists()
            checkpoint = CheckpointDataset(filepath=str(manifest)).load()
            assert (checkpoint.folder / "model.safetensors").read_text() == f"{manifest.stem} {number}"


def test_a_branch_of_a_branch_of_round_0(project: Path) -> None:
    fork_experiment(project, old="old", new="new", first_round=1)
    fork_experiment(project, old="new", new="newest", first_round=1)
    assert tree(project, "newest").keys() == tree(project, "new").keys()
    assert not any("round=0001" in name for name in tree(project, "newest"))


def test_what_cannot_be_branched_is_refused_and_leaves_nothing(project: Path) -> None:
    def refused(message: str, **changes: object) -> None:
        arguments = {"old": "old", "new": "new", "first_round": 3, **changes}
        with pytest.raises(ForkError, match=message):
            fork_experiment(project, **arguments)  # type: ignore[arg-type]

    refused("give the new experiment a name of its own", new="old")
    refused("'other' is there already", new="other")
    refused("round 4 of 'old', of which .*: run `kedro paced train --experiment old --rounds 4`", first_round=5)
    refused("run `kedro run --pipelines=data_preparation,start --params experiment=none`", old="none", first_round=1)
    policy, head, _ = manifests(project, "old", 2)
    table = project / "data" / TABLES[2] / "experiment=old/round=0002/learning_curve.parquet"
    table.rename(table.with_suffix(".away"))
    refused(r"round 2 of 'old', which has not finished \(learning_curve is missing\)")
    table.with_suffix(".away").rename(table)
    prune(policy)
    refused("whose weights were pruned. .*from-round 2 --rounds 2 --restore`.*; or branch at another round")
    shutil.rmtree(head.with_suffix(""))
    refused("whose weights were pruned")
    assert tree(project, "new") == {}
    assert read_fork(project, "new") is None


# Forks, and dies at the fifth file that it copies.
KILLED = """
import os, pathlib, shutil, sys
from paced_rl.forks import fork_experiment
copyfile, copied = shutil.copyfile, []
def count(*arguments):
    copied.append(copyfile(*arguments))
    if len(copied) == 5:
        os._exit(9)
shutil.copyfile = count
fork_experiment(pathlib.Path(sys.argv[1]), old="old", new="new", first_round=2)
"""


def test_a_fork_that_was_killed_goes_on_when_it_is_repeated(project: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(project)], check=False)
    assert done.returncode == 9
    assert read_fork(project, "new") == Fork(forked_from="old", first_round=2, is_complete=False)
    with pytest.raises(ForkError, match="'new' is there already"):
        fork_experiment(project, old="old", new="new", first_round=3)
    fork_experiment(project, old="old", new="new", first_round=2)
    fork_experiment(project, old="old", new="whole", first_round=2)
    visible = {name for name in tree(project, "new") if ".tmp-" not in name}
    assert visible == tree(project, "whole").keys()
    with pytest.raises(ForkError, match="'new' is there already"):
        fork_experiment(project, old="old", new="new", first_round=2)


def test_where_links_are_not_possible_weights_are_copied(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError(18, os.strerror(18))  # EXDEV: another file system

    monkeypatch.setattr(os, "link", no_links)
    fork_experiment(project, old="old", new="new", first_round=2)
    old, new = tree(project, "old"), tree(project, "new")
    assert all(path.read_bytes() == old[name].read_bytes() for name, path in new.items())
    assert not any(path.samefile(old[name]) for name, path in new.items())
    assert "6 files of weights were copied" in caplog.text
    origin = json.loads((project / "data/.forks/experiment=new.json").read_text())
    assert origin == {"forked_from": "old", "first_round": 2, "is_complete": True}
