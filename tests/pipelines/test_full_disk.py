"""A disk that fills up in the middle of a round costs nothing but time."""

import errno
import hashlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DatasetError
from project_folders import make_project, run

SMALL: dict[str, Any] = {
    "data_preparation": {"num_train": 8, "num_audit": 4, "num_validation": 4, "num_test": 4},
    "scheduling": {"num_prompts": 4, "audit_fraction": 0.25},
    "rollout": {"group_size": 3, "max_new_tokens": 8},
    "evaluation": {"num_samples": 1},
}


def digests(project: Path) -> dict[str, str]:
    """Of what runs have written and a reader sees."""
    paths = [path for path in (project / "data").rglob("*") if path.is_file() and "01_raw" not in path.parts]
    names = {path: path.relative_to(project) for path in paths}
    return {
        str(name): hashlib.sha256(path.read_bytes()).hexdigest()
        for path, name in names.items()
        if not any(part.startswith(".") for part in name.parts) and name.stem not in ("timings", "provenance")
    }


def temporaries(project: Path) -> list[Path]:
    return [path for kind in ("tmp", "staging", "old") for path in (project / "data").rglob(f".*.{kind}-*")]


def run_out_of_room(project: Path, words: str) -> None:
    """A round that fails for want of room, says so and harms nothing."""
    before = digests(project)
    with pytest.raises((DatasetError, OSError)) as caught:
        run(project, range(1, 2), params=SMALL)
    message = str(caught.value)
    assert f"{words} while writing" in message
    assert str(project / "data") in message or " data/" in message
    assert "bytes free; what was there before is untouched" in message
    assert "run the same command again" in message
    after = digests(project)
    assert {name: after.get(name) for name in before} == before
    assert temporaries(project) == []


def test_no_space_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "project")
    real = os.fsync
    room = 0

    def flush(descriptor: int) -> None:
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", flush)
        for flushes in (0, 5, 11, 17, 23, 29):
            room = flushes
            run_out_of_room(project, "no space left on device")
    assert run(project, range(1, 2), params=SMALL) == [1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A project whose data/ is a file system of its own."""
    folder = tmp_path / "project" / "data"
    folder.mkdir(parents=True)
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    command = [mount, "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted")
    yield make_project(folder.parent)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("free_bytes", [0, 60_000, 4_000_000])
def test_a_really_full_disk(small_disk: Path, free_bytes: int) -> None:
    ballast = small_disk / "data" / "01_raw" / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk / "data").free - free_bytes))
    run_out_of_room(small_disk, "no space left on device")
    ballast.unlink()
    assert run(small_disk, range(1, 2), params=SMALL) == [1]


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # more than a table has, less than the weights
    try:
        run_out_of_room(project, "file too large for the limit of this process (`ulimit -f`)")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run(project, range(1, 2), params=SMALL) == [1]
