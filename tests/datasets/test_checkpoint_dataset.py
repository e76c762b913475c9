"""Checkpoints: equal content gives equal manifests; after a crash at any moment the manifest's files are whole."""

import hashlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kedro.io import DatasetError
from safetensors.torch import load_file

from paced_rl.datasets.checkpoint import CheckpointDataset
from paced_rl.types import Checkpoint, CheckpointFiles


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The root of a Kedro project."""
    tool = '[tool.kedro]\npackage_name = "x"\nproject_name = "x"\nkedro_init_version = "1.7.0"\n'
    (tmp_path / "pyproject.toml").write_text(tool)
    return tmp_path


def _dataset(project: Path) -> CheckpointDataset:
    return CheckpointDataset(
        filepath=str(project / "data" / "round=0003" / "policy.json"), folder="data/models/round=0003"
    )


def _files(value: float, **extra: Any) -> CheckpointFiles:
    tensors = {"b": torch.full((3,), value), "a": torch.arange(6.0).reshape(2, 3).T}
    return CheckpointFiles(
        files={"model.safetensors": tensors, "config.json": b"{}"} | extra, metadata={"policy_version": 3}
    )


def _tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_checkpoint_round_trips(project: Path) -> None:
    (project / "vocab.txt").write_text("abc")
    dataset = _dataset(project)
    assert not dataset.exists()
    dataset.save(_files(1.0, **{"tokenizer/vocab.txt": project / "vocab.txt"}))
    assert dataset.exists()
    checkpoint = dataset.load()
    assert checkpoint.policy_version == 3
    assert checkpoint.folder.parent == project / "data" / "models" / "round=0003"
    assert _tree(checkpoint.folder) == ["config.json", "model.safetensors", "tokenizer/vocab.txt"]
    assert (checkpoint.folder / "tokenizer" / "vocab.txt").read_text() == "abc"
    tensors = load_file(checkpoint.folder / "model.safetensors")
    assert torch.equal(tensors["b"], torch.full((3,), 1.0))
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3).T)
    for name, sha256 in checkpoint.files.items():
        assert hashlib.sha256((checkpoint.folder / name).read_bytes()).hexdigest() == sha256
    header = (checkpoint.folder / "model.safetensors").read_bytes()
    assert b'"__metadata__":{"format":"pt"}' in header


def test_the_manifest_depends_on_content_alone(tmp_path: Path) -> None:
    manifests = set()
    for place in ("here", "elsewhere"):
        project = tmp_path / place
        project.mkdir()
        (project / "pyproject.toml").write_text('[tool.kedro]\npackage_name = "x"\n')
        dataset = _dataset(project)
        files = _files(1.0)
        turned = CheckpointFiles(
            files=dict(reversed(files.files.items())) | {"model.safetensors": dict(reversed(_tensors(files).items()))},
            metadata=files.metadata,
        )
        for content in (files, turned, files):
            dataset.save(content)
            manifests.add((project / "data" / "round=0003" / "policy.json").read_bytes())
    assert len(manifests) == 1
    manifest = json.loads(manifests.pop())
    assert manifest["folder"].startswith("../models/round=0003/")
    assert manifest["metadata"] == {"policy_version": 3}
    assert set(manifest["files"]) == {"model.safetensors", "config.json"}
    assert manifest["files"]["config.json"]["size"] == 2


def _tensors(files: CheckpointFiles) -> dict[str, torch.Tensor]:
    return files.files["model.safetensors"]


def test_a_new_save_deletes_what_it_supersedes_and_nothing_else(project: Path) -> None:
    dataset = _dataset(project)
    dataset.save(_files(1.0))
    first = dataset.load().folder
    (first.parent / "notes").mkdir()
    (first.parent / f".{first.name}.old-77").mkdir()
    (first.parent / ".checkpoint.staging-77").mkdir()
    dataset.save(_files(2.0))
    second = dataset.load().folder
    assert second != first
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([second.name, "notes"])


def test_a_saved_folder_that_was_damaged_is_written_again(project: Path) -> None:
    dataset = _dataset(project)
    dataset.save(_files(1.0))
    folder = dataset.load().folder
    (folder / "config.json").write_bytes(b"[]")
    dataset.save(_files(1.0))
    assert dataset.load().folder == folder
    assert (folder / "config.json").read_bytes() == b"{}"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_lost_or_changed_files_are_named(project: Path) -> None:
    dataset = _dataset(project)
    dataset.save(_files(1.0))
    folder = dataset.load().folder
    (folder / "config.json").write_bytes(b"longer")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DatasetError, match=r"policy_version.*gone or were changed") as caught:
        dataset.load()
    assert "config.json has 6 bytes and not 2" in str(caught.value)
    assert "model.safetensors is missing" in str(caught.value)
    shutil.rmtree(folder)  # lost, and not pruned: what writes them has to run again
    assert not dataset.exists()


def test_a_model_that_is_on_disk_already_is_only_named(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("hub")
    inside = project / "data" / "starter"
    inside.mkdir(parents=True)
    for folder, shown in ((outside, str(outside)), (inside, "../starter")):
        (folder / "config.json").write_bytes(b"{}")
        dataset = _dataset(project)
        saved = Checkpoint(folder=folder, files={"config.json": "ab" * 32}, metadata={"policy_version": 0})
        dataset.save(saved)
        assert dataset.load() == saved
        assert json.loads((project / "data" / "round=0003" / "policy.json").read_text())["folder"] == shown
    assert not (project / "data" / "models").exists()
    with pytest.raises(DatasetError, match=r"has no files \['model.safetensors'\]; nothing was saved"):
        _dataset(project).save(Checkpoint(folder=inside, files={"model.safetensors": "0"}, metadata={}))
    assert _dataset(project).load().folder == inside


def test_saving_a_loaded_checkpoint_keeps_its_files(project: Path) -> None:
    dataset = _dataset(project)
    dataset.save(_files(1.0))
    loaded = dataset.load()
    crooked = project / "data" / ".." / loaded.folder.relative_to(project)
    dataset.save(Checkpoint(folder=crooked, files=loaded.files, metadata=loaded.metadata))
    assert dataset.load() == loaded


def test_without_a_project_or_a_folder_files_lie_beside_the_manifest(tmp_path: Path) -> None:
    dataset = CheckpointDataset(filepath=str(tmp_path / "policy.json"))
    dataset.save(_files(1.0))
    assert dataset.load().folder.parent == tmp_path / "policy"
    assert json.loads(dataset.preview())["folder"].startswith("policy/")
    assert inspect.signature(dataset.preview).return_annotation.__name__ == "JSONPreview"


@pytest.mark.parametrize("name", ["../escape", "/etc/escape", "a/../../escape"])
def test_a_file_name_that_leaves_the_folder_is_refused(name: str, project: Path) -> None:
    with pytest.raises(DatasetError, match="leaves its folder"):
        _dataset(project).save(CheckpointFiles(files={name: b"x"}, metadata={}))
    assert not (project / "data").exists()


def test_a_failed_save_keeps_the_old_checkpoint(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _dataset(project)
    dataset.save(_files(1.0))
    before, tree = dataset.load(), _tree(project)
    with pytest.raises(DatasetError, match="config is int; allowed are bytes, Path and a dict of tensors"):
        dataset.save(_files(2.0, config=1))
    shared = torch.zeros(3)
    with pytest.raises(DatasetError, match="share memory"):
        dataset.save(CheckpointFiles(files={"m.safetensors": {"a": shared, "b": shared}}, metadata={}))
    assert (dataset.load(), _tree(project)) == (before, tree)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DatasetError, match=r"no space left on device while writing .* untouched"):
        dataset.save(_files(2.0))
    assert (dataset.load(), _tree(project)) == (before, tree)


def test_a_manifest_that_is_missing_or_not_one_is_named(project: Path) -> None:
    dataset = _dataset(project)
    with pytest.raises(DatasetError, match="there is no checkpoint manifest"):
        dataset.load()
    path = project / "data" / "round=0003" / "policy.json"
    path.parent.mkdir(parents=True)
    for text, message in (("{", "is not JSON"), ("{}", "lacks folder, files or metadata")):
        path.write_text(text)
        with pytest.raises(DatasetError, match=message):
            dataset.load()


@pytest.fixture
def small_disk(project: Path) -> Iterator[Path]:
    """A file system of 256 KiB under the project's data folder."""
    folder = project / "data"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    command = [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk(project: Path, small_disk: Path) -> None:
    dataset = _dataset(project)
    dataset.save(_files(1.0))
    before, tree = dataset.load(), _tree(small_disk)
    big = CheckpointFiles(files={"model.safetensors": {"a": torch.ones(200_000)}}, metadata={"policy_version": 4})
    with pytest.raises(DatasetError, match=r"no space left on device while writing .* bytes free"):
        dataset.save(big)
    assert (dataset.load(), _tree(small_disk)) == (before, tree)


# Each content names itself: every file says the version that the manifest says.
SAVE_LOOP = """
import sys
from paced_rl.datasets.checkpoint import CheckpointDataset
from paced_rl.types import CheckpointFiles
dataset = CheckpointDataset(filepath=sys.argv[1])
for version in range(10**9):
    content = str(version).encode().rjust(9) * 10_000
    files = {name: content for name in ("a", "b", "c")}
    dataset.save(CheckpointFiles(files=files, metadata={"policy_version": version}))
    if version == 0:
        print("ready", flush=True)
"""


def test_kill_during_saves_leaves_one_whole_checkpoint(tmp_path: Path) -> None:
    dataset = CheckpointDataset(filepath=str(tmp_path / "policy.json"))
    for delay in (0.003, 0.011, 0.02, 0.029, 0.043, 0.058):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_LOOP, str(tmp_path / "policy.json")], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        checkpoint = dataset.load()
        content = str(checkpoint.policy_version).encode().rjust(9) * 10_000
        for name, sha256 in checkpoint.files.items():
            assert (checkpoint.folder / name).read_bytes() == content
            assert hashlib.sha256(content).hexdigest() == sha256
    dataset.save(_files(1.0))
    assert [path.name for path in (tmp_path / "policy").iterdir()] == [dataset.load().folder.name]
