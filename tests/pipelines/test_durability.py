"""What a round says is on disk survives a power cut: flushed, then renamed, and the name flushed; manifests last."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from project_folders import make_project, run

SMALL: dict[str, Any] = {
    "data_preparation": {"num_train": 8, "num_audit": 4, "num_validation": 4, "num_test": 4},
    "scheduling": {"num_prompts": 4, "audit_fraction": 0.25},
    "rollout": {"group_size": 3, "max_new_tokens": 8},
    "evaluation": {"num_samples": 1},
}
Step = tuple[str, Any]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Step]]:
    """A project with a round, and the flushes and renames that it took, in order.

    ("flush", inode) and ("rename", (inode, target)); an inode is a file's or folder's own, whatever its name.
    """
    project = make_project(tmp_path_factory.mktemp("durability") / "project")
    steps: list[Step] = []
    flush, replace, rename = os.fsync, os.replace, os.rename

    def traced_flush(descriptor: int) -> None:
        flush(descriptor)
        steps.append(("flush", os.fstat(descriptor).st_ino))

    def traced_by(real: Any) -> Any:
        def move(source: Any, target: Any, **options: Any) -> None:
            steps.append(("rename", (Path(source).stat().st_ino, Path(target))))
            real(source, target, **options)

        return move

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", traced_flush)
        patch.setattr(os, "replace", traced_by(replace))
        patch.setattr(os, "rename", traced_by(rename))
        run(project, range(1, 2), params=SMALL)
    return project, steps


def results(project: Path) -> list[Path]:
    """Files that the round has left, records among them; not the lock, which is of the running process alone."""
    paths = [path for path in (project / "data").rglob("*") if path.is_file()]
    return [path for path in paths if "01_raw" not in path.parts and ".locks" not in path.parts]


def test_every_file_was_flushed_before_it_got_its_name(traced: tuple[Path, list[Step]]) -> None:
    project, steps = traced
    renames = {step[1][1]: index for index, step in enumerate(steps) if step[0] == "rename"}

    paths = results(project)
    assert len(paths) > 60
    for path in paths:
        # A checkpoint's files are named by the rename of their folder.
        renamed = next(x for x in (path, *path.parents) if x in renames)
        index = renames[renamed]
        assert ("flush", path.stat().st_ino) in steps[:index], path
        assert ("flush", renamed.parent.stat().st_ino) in steps[index:], path


def test_the_names_of_new_folders_were_flushed(traced: tuple[Path, list[Step]]) -> None:
    project, steps = traced
    flushed = {value for kind, value in steps if kind == "flush"}

    parents = {
        folder for path in results(project) for folder in path.parents if folder.is_relative_to(project / "data")
    }
    assert {folder for folder in parents if folder.stat().st_ino not in flushed} == set()


def test_a_manifest_comes_after_its_files_and_a_record_after_all_outputs(traced: tuple[Path, list[Step]]) -> None:
    _, steps = traced
    order = {step[1][1]: index for index, step in enumerate(steps) if step[0] == "rename"}
    manifests = [path for path in order if path.suffix == ".json" and "06_models" in path.parts and path.name[0] != "."]
    records = [path for path in order if path.name.endswith(".record.json")]

    assert len(manifests) == 7  # reference policy, and policy, head and optimiser state of two rounds
    for path in manifests:
        folder = path.parent / json.loads(path.read_text())["folder"]
        assert order.get(folder.resolve(), -1) < order[path]
    assert len(records) > 15
    for path in records:
        outputs = [file for file in path.parent.iterdir() if file in order and not file.name.startswith(".")]
        assert all(order[file] < order[path] for file in outputs), path
