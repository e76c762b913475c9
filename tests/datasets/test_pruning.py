"""Weights that were deleted on purpose, told apart from weights that are lost."""

import json
import shutil
from pathlib import Path

import pytest
from kedro.io import DatasetError

from paced_rl.datasets.checkpoint import CheckpointDataset
from paced_rl.datasets.pruning import forget_pruning, has_weights, how_to_restore, is_pruned, prune
from paced_rl.types import Checkpoint, CheckpointFiles

NAMES = ("policy", "log_z_head")


def saved(models: Path, name: str, round_number: int, content: str = "weights") -> CheckpointDataset:
    path = models / name / "experiment=x" / f"round={round_number:04d}" / f"{name}.json"
    dataset = CheckpointDataset(filepath=str(path))
    files = {"model.safetensors": f"{content} {round_number}".encode()}
    dataset.save(CheckpointFiles(files=files, metadata={"policy_version": round_number}))
    return dataset


def manifest_of(models: Path, name: str, round_number: int) -> Path:
    return models / name / "experiment=x" / f"round={round_number:04d}" / f"{name}.json"


def test_pruned_weights_still_count_and_lost_ones_do_not(tmp_path: Path) -> None:
    dataset, path = saved(tmp_path, "policy", 3), manifest_of(tmp_path, "policy", 3)
    text = path.read_bytes()
    folder = dataset.load().folder
    assert (is_pruned(path), has_weights(path)) == (False, True)
    assert prune(path) == len(b"weights 3")
    assert not folder.exists()
    assert path.read_bytes() == text
    assert (is_pruned(path), has_weights(path), dataset.exists()) == (True, False, True)
    assert prune(path) == 0, "there is nothing left to delete"
    with pytest.raises(DatasetError, match=r"policy_version.*were pruned to save space.*No earlier round has"):
        dataset.load()

    forget_pruning(path)
    assert (is_pruned(path), dataset.exists()) == (False, False)
    with pytest.raises(DatasetError, match=r"are gone or were changed: model\.safetensors is missing"):
        dataset.load()


def test_weights_that_are_written_again_are_no_longer_pruned(tmp_path: Path) -> None:
    dataset, path = saved(tmp_path, "policy", 3), manifest_of(tmp_path, "policy", 3)
    text = path.read_bytes()
    prune(path)
    saved(tmp_path, "policy", 3)
    assert path.read_bytes() == text
    assert (is_pruned(path), has_weights(path)) == (False, True)
    shutil.rmtree(dataset.load().folder)
    assert not dataset.exists(), "lost this time"


def test_a_marker_is_for_the_content_that_was_deleted(tmp_path: Path) -> None:
    dataset, path = saved(tmp_path, "policy", 3), manifest_of(tmp_path, "policy", 3)
    prune(path)
    marker = path.with_name(".policy.pruned.json")
    text = marker.read_bytes()
    saved(tmp_path, "policy", 3, content="other")
    marker.write_bytes(text)  # as if it had come back from a backup
    shutil.rmtree(dataset.load().folder)
    assert (is_pruned(path), dataset.exists()) == (False, False)


def test_a_deletion_that_was_cut_short_is_finished_the_next_time(tmp_path: Path) -> None:
    dataset, path = saved(tmp_path, "policy", 3), manifest_of(tmp_path, "policy", 3)
    folder = dataset.load().folder
    prune(path)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights 3")
    assert prune(path) == len(b"weights 3")
    assert not folder.exists()


def test_only_a_folder_of_the_manifests_own_is_deleted(tmp_path: Path) -> None:
    own = tmp_path / "my_policy"
    # Also a folder that looks like one of contents, but is another round's.
    other = saved(tmp_path / "models", "policy", 1).load().folder
    own.mkdir()
    (own / "model.safetensors").write_bytes(b"weights 1")
    for number, folder in enumerate((own, other), start=5):
        path = manifest_of(tmp_path / "models", "policy", number)
        source = Checkpoint(folder=folder, files={"model.safetensors": "ab" * 32}, metadata={"policy_version": 0})
        CheckpointDataset(filepath=str(path)).save(source)
        assert prune(path) == 0
        assert (folder / "model.safetensors").is_file()
        assert not is_pruned(path)
    assert prune(manifest_of(tmp_path / "models", "policy", 9)) == 0, "there is no manifest"


def test_the_message_names_the_nearest_earlier_round_with_all_of_its_weights(tmp_path: Path) -> None:
    for number in range(8):
        for name in NAMES:
            saved(tmp_path, name, number)
    reference = tmp_path / "reference_policy" / "experiment=x" / "reference_policy.json"  # of no round
    reference.parent.mkdir(parents=True)
    reference.write_text(json.dumps({"folder": "gone", "files": {"a": {}}, "metadata": {}}))
    for number, names in {3: NAMES, 5: ("policy",), 6: NAMES, 7: NAMES}.items():
        for name in names:
            prune(manifest_of(tmp_path, name, number))
    said = how_to_restore(manifest_of(tmp_path, "policy", 7))
    assert "round that has its weights is 4;" in said, "of round 5 the policy is gone"
    assert "`kedro paced train --experiment x --from-round 5 --rounds 7 --restore`" in said
    assert "--from-round 3 --rounds 3 --restore`" in how_to_restore(manifest_of(tmp_path, "log_z_head", 3))
    assert how_to_restore(tmp_path / "policy.json") == "Run what writes it again"
