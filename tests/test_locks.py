"""The lock of an experiment, between real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from paced_rl.locks import ExperimentLockedError, Holder, experiment_lock, lock_path, process_start, read_holder

# Waits for a line, tries to take the lock, says how it went, and holds it until its input ends. It deletes slowly, so
# that processes which find the same dead lock have time to get into each other's way.
TAKER = """
import pathlib, sys, time
from paced_rl.locks import ExperimentLockedError, experiment_lock

unlink = pathlib.Path.unlink
def unlink_slowly(*arguments, **options):
    time.sleep(0.1)
    unlink(*arguments, **options)
pathlib.Path.unlink = unlink_slowly
print("ready", flush=True)
sys.stdin.readline()
try:
    with experiment_lock(pathlib.Path(sys.argv[1]), "x"):
        print("taken", flush=True)
        sys.stdin.read()
except ExperimentLockedError as error:
    print(error, flush=True)
    sys.stdin.read()
"""


def start(project: Path) -> "subprocess.Popen[str]":
    """A taker that is ready to try."""
    command = [sys.executable, "-c", TAKER, str(project)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert line_of(process) == "ready"
    return process


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def end(process: "subprocess.Popen[str]") -> None:
    with process:
        process.communicate()


def dead_holder(project: Path) -> Holder:
    """What a process that was killed has left in the lock."""
    process = start(project)
    go(process)
    assert line_of(process) == "taken"
    process.send_signal(signal.SIGKILL)
    end(process)
    holder = read_holder(lock_path(project, "x"))
    assert holder is not None
    assert holder.pid == process.pid
    return holder


def test_a_lock_is_there_while_it_is_held_and_may_be_nested(tmp_path: Path) -> None:
    path = lock_path(tmp_path, "x")
    assert path == tmp_path / "data/.locks/experiment=x.json"
    with experiment_lock(tmp_path, "x"):
        with experiment_lock(tmp_path, "x"), experiment_lock(tmp_path, "y"):
            assert lock_path(tmp_path, "y").exists()
        assert not lock_path(tmp_path, "y").exists()
        holder = read_holder(path)
        assert holder is not None
        assert (holder.pid, holder.host) == (os.getpid(), socket.gethostname())
    assert not path.exists()


def test_a_lock_is_given_back_on_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with experiment_lock(tmp_path, "x"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not lock_path(tmp_path, "x").exists()


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    process = start(tmp_path)
    with experiment_lock(tmp_path, "x"):
        holder = read_holder(lock_path(tmp_path, "x"))
        assert holder is not None
        go(process)
        said = line_of(process)
    assert f"experiment 'x' is in use by process {os.getpid()} on {socket.gethostname()} since {holder.since}" in said
    assert "wait until it ends, or end it with" in said
    end(process)
    with experiment_lock(tmp_path, "x"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead = dead_holder(tmp_path)
    with experiment_lock(tmp_path, "x"):
        assert f"Process {dead.pid}, which worked on experiment 'x' since {dead.since}, ended" in caplog.text
        assert read_holder(lock_path(tmp_path, "x")) != dead
    assert not lock_path(tmp_path, "x").exists()


def test_a_number_that_another_process_has_got_is_a_dead_one(tmp_path: Path) -> None:
    path = lock_path(tmp_path, "x")
    path.parent.mkdir(parents=True)
    start_of_parent = process_start(os.getppid())
    assert start_of_parent is not None
    alive = Holder(pid=os.getppid(), host=socket.gethostname(), process_start=start_of_parent, since="then")
    path.write_text(json.dumps(asdict(alive)))
    with pytest.raises(ExperimentLockedError, match=f"by process {os.getppid()} "), experiment_lock(tmp_path, "x"):
        pass
    path.write_text(json.dumps(asdict(replace(alive, process_start=f"{start_of_parent}0"))))
    with experiment_lock(tmp_path, "x"):
        pass


OF_ANOTHER_HOST = '{"pid": 1, "host": "elsewhere", "process_start": "1", "since": "then"}'


@pytest.mark.parametrize("content", [OF_ANOTHER_HOST, "", "[]"])
def test_a_lock_that_nobody_here_can_judge_is_refused_with_its_path(content: str, tmp_path: Path) -> None:
    path = lock_path(tmp_path, "x")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ExperimentLockedError, match="in use by") as caught, experiment_lock(tmp_path, "x"):
        pass
    assert f"If it has ended, delete {path} and repeat" in str(caught.value)
    assert ("process 1 on the host elsewhere since then" in str(caught.value)) == (content == OF_ANOTHER_HOST)
    assert path.read_text() == content


def test_of_many_processes_that_find_a_dead_lock_exactly_one_takes_it(tmp_path: Path) -> None:
    for _ in range(3):
        dead_holder(tmp_path)
        processes = [start(tmp_path) for _ in range(6)]
        for process in processes:
            go(process)
        said = [line_of(process) for process in processes]
        (winner,) = (process for process, line in zip(processes, said, strict=True) if line == "taken")
        assert sum(f"in use by process {winner.pid} " in line for line in said) == len(processes) - 1
        for process in processes:
            end(process)
        assert not lock_path(tmp_path, "x").exists()


def test_a_lock_deleted_by_hand_and_taken_by_another_is_left_alone(tmp_path: Path) -> None:
    process = start(tmp_path)
    with experiment_lock(tmp_path, "x"):
        lock_path(tmp_path, "x").unlink()
        go(process)
        assert line_of(process) == "taken"
    holder = read_holder(lock_path(tmp_path, "x"))
    assert holder is not None
    assert holder.pid == process.pid
    end(process)


def test_a_zombie_is_a_dead_process() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process_start(process.pid) is not None
    process.stdout.read()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    assert process_start(process.pid) is None
    process.wait()
    assert process_start(process.pid) is None
