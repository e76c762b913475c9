"""What a node that runs, fails, is interrupted or killed leaves beside its record."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline, node
from kedro_datasets.json import JSONDataset

from paced_rl.runner import CachingRunner
from paced_rl.runner.attempts import Attempt, MarkedAttempt, attempt_path, read_attempt
from paced_rl.runner.records import record_path

SEEN: list[Attempt | None] = []


def look(folder: str) -> int:
    (path,) = Path(folder).glob(".*.attempt.json")
    SEEN.append(read_attempt(path.with_name(path.name.replace("attempt", "record"))))
    return 1


def fail(folder: str) -> int:
    raise ValueError(f"first line\nsecond line of {folder}")


def interrupt(folder: str) -> int:
    raise KeyboardInterrupt


def run(function: object, folder: Path) -> Path:
    """Runs one node by the caching runner; returns where its record is or would be."""
    (folder / "in.json").write_text(json.dumps(str(folder)))
    catalog = DataCatalog({name: JSONDataset(filepath=str(folder / f"{name}.json")) for name in ("in", "out")})
    the_node = node(function, "in", "out", name="only")
    record = record_path(the_node, catalog)
    try:
        CachingRunner(library_versions={}).run(Pipeline([the_node]), catalog)
    except (ValueError, KeyboardInterrupt):
        return record
    return record


def test_a_node_is_marked_while_it_runs_and_not_after(tmp_path: Path) -> None:
    SEEN.clear()
    record = run(look, tmp_path)
    (seen,) = SEEN
    assert seen is not None
    assert (seen.state, seen.pid) == ("running", os.getpid())
    assert record.is_file()
    assert read_attempt(record) is None
    assert not attempt_path(record).exists()


def test_a_failed_node_leaves_one_line_until_it_starts_again(tmp_path: Path) -> None:
    record = run(fail, tmp_path)
    attempt = read_attempt(record)
    assert attempt is not None
    assert (attempt.state, attempt.error) == ("failed", "ValueError: first line")
    assert not record.exists()

    SEEN.clear()
    assert run(look, tmp_path) == record
    assert SEEN[0] is not None
    assert SEEN[0].state == "running"
    assert read_attempt(record) is None


def test_an_interrupted_node_is_no_running_one_although_its_process_lives(tmp_path: Path) -> None:
    attempt = read_attempt(run(interrupt, tmp_path))
    assert attempt is not None
    assert (attempt.state, attempt.error, attempt.pid) == ("interrupted", "", os.getpid())


def test_the_mark_of_a_killed_process_counts_as_interrupted(tmp_path: Path) -> None:
    record = tmp_path / ".only.record.json"
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom paced_rl.runner.attempts import MarkedAttempt\n"
        "with MarkedAttempt(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(record)], check=False)
    assert done.returncode == -9
    attempt = read_attempt(record)
    assert attempt is not None
    assert attempt.state == "interrupted"
    assert json.loads(attempt_path(record).read_text())["state"] == "running"


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, "running"),
        ({"process_start": "another process had this number"}, "interrupted"),
        ({"host": "elsewhere", "pid": 1}, "running"),  # nobody here can tell
    ],
)
def test_a_process_is_known_by_more_than_its_number(tmp_path: Path, change: dict[str, object], state: str) -> None:
    record = tmp_path / ".only.record.json"
    with MarkedAttempt(record):
        mark = attempt_path(record)
        mark.write_text(json.dumps({**json.loads(mark.read_text()), **change}))
        attempt = read_attempt(record)
    assert attempt is not None
    assert attempt.state == state


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "running"}'])
def test_a_mark_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    record = tmp_path / ".only.record.json"
    attempt_path(record).write_text(text)
    assert read_attempt(record) is None
