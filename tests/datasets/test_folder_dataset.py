"""A folder that is replaced as a whole."""

from pathlib import Path

import pytest
from kedro.io import DatasetError

from paced_rl.datasets.folder import FolderDataset
from paced_rl.types import CheckpointFiles


def _files(**content: bytes) -> CheckpointFiles:
    return CheckpointFiles(files=content, metadata={})


def test_a_save_replaces_the_whole_folder(tmp_path: Path) -> None:
    dataset = FolderDataset(filepath=str(tmp_path / "policy"))
    dataset.save(_files(a=b"1", b=b"2"))
    dataset.save(_files(a=b"3"))
    assert {path.name: path.read_bytes() for path in dataset.load().iterdir()} == {"a": b"3"}
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_a_failed_save_keeps_the_old_folder(tmp_path: Path) -> None:
    dataset = FolderDataset(filepath=str(tmp_path / "policy"))
    dataset.save(_files(a=b"1"))
    with pytest.raises(DatasetError):
        dataset.save(CheckpointFiles(files={"a": b"2", "b": object()}, metadata={}))
    assert (tmp_path / "policy" / "a").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_loading_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no folder"):
        FolderDataset(filepath=str(tmp_path / "policy")).load()
