"""Jobs in processes: results, failures, sudden deaths, Ctrl-C, a parent that is gone."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import worker_jobs

from paced_rl.studies.workers import Job, worker_pool


def job(folder: Path, name: str, call: Callable[..., str | None], *args: object) -> Job:
    return Job(name=name, call=functools.partial(call, *args), log=folder / "logs" / f"{name}.log")


def test_every_job_is_done_and_what_it_prints_is_in_its_own_log(tmp_path: Path) -> None:
    jobs = [job(tmp_path, name, worker_jobs.write, tmp_path / name, name) for name in ("a", "b", "c")]
    seen = []
    with worker_pool(2) as pool:
        outcomes = pool.run(jobs, seen.append)
        again = pool.run(jobs[:1])
    assert [(outcome.name, outcome.is_done, outcome.is_stopped) for outcome in outcomes] == [
        ("a", True, False),
        ("b", True, False),
        ("c", True, False),
    ]
    assert sorted(outcome.name for outcome in seen) == ["a", "b", "c"]
    assert again[0].is_done
    assert (tmp_path / "c").read_text() == "c"
    assert (tmp_path / "logs" / "a.log").read_text() == "wrote a\nwrote a\n", "appended to"
    assert (tmp_path / "logs" / "b.log").read_text() == "wrote b\n"


def test_a_job_that_fails_or_dies_takes_no_other_with_it(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, "fails", worker_jobs.fail),
        job(tmp_path, "dies", worker_jobs.die),
        job(tmp_path, "lives", worker_jobs.write, tmp_path / "x", "x"),
    ]
    with worker_pool(1) as pool:
        fails, dies, lives = pool.run(jobs)
    assert (fails.is_done, fails.message) == (False, "ValueError: three\nlines of\nmessage")
    assert "in fail" in (tmp_path / "logs" / "fails.log").read_text(), "the traceback"
    assert (dies.is_done, dies.is_stopped) == (False, False)
    assert dies.message == f"its process ended with exit status 7; see {tmp_path}/logs/dies.log"
    assert lives.is_done


def test_processes_share_the_cores_unless_the_user_said_how_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    num_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    with worker_pool(1) as pool:
        assert pool.run([job(tmp_path, "alone", worker_jobs.say_threads)])[0].message == str(num_cores)
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with worker_pool(1) as pool:
        assert pool.run([job(tmp_path, "told", worker_jobs.say_threads)])[0].message == "3"


@pytest.mark.usefixtures("python_handles_interrupts")
def test_ctrl_c_stops_what_runs_and_lets_nothing_begin(tmp_path: Path) -> None:
    began = tmp_path / "began"
    jobs = [
        job(tmp_path, "runs", worker_jobs.work_until_stopped, began),
        job(tmp_path, "waits", worker_jobs.write, tmp_path / "x", "x"),
    ]

    def interrupt() -> None:
        wait_for(began)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with worker_pool(1) as pool:
        runs, waits = pool.run(jobs)
    assert (runs.is_done, runs.is_stopped, runs.message) == (False, True, "Stopped between two steps")
    assert (waits.is_done, waits.is_stopped, waits.message) == (False, True, "not begun")
    assert not (tmp_path / "x").exists()


@pytest.mark.usefixtures("python_handles_interrupts")
def test_a_second_ctrl_c_ends_all_at_once(tmp_path: Path) -> None:
    began = tmp_path / "began"

    def interrupt_twice() -> None:
        wait_for(began)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_twice).start()
    with pytest.raises(KeyboardInterrupt), worker_pool(1) as pool:
        pool.run([job(tmp_path, "long", worker_jobs.work_on, began)])
    assert not is_alive(int(began.read_text()))
    assert not began.with_suffix(".ended").exists(), "nobody waited for the job's end"


_PARENT = """
import functools, sys
from pathlib import Path
import worker_jobs
from paced_rl.studies.workers import Job, worker_pool

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    call = functools.partial(worker_jobs.work_until_stopped, folder / "began")
    with worker_pool(1) as pool:
        pool.run([Job(name="a", call=call, log=folder / "a.log")])
"""


@pytest.mark.parametrize("is_in_background", [False, True])
def test_workers_of_a_killed_parent_stop_too(tmp_path: Path, is_in_background: bool) -> None:
    """A shell that runs a command in the background of a script makes it ignore Ctrl-C."""
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    handler = signal.SIG_IGN if is_in_background else signal.SIG_DFL
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    ) as parent:
        worker = int(wait_for(tmp_path / "began"))
        parent.kill()
    deadline = time.monotonic() + 30
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker)
    assert "press Ctrl-C again" in (tmp_path / "a.log").read_text(), "it was asked, not killed"


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.02)
    return path.read_text()


def is_alive(pid: int) -> bool:
    """A process that has ended and that nobody waits for counts as dead."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
