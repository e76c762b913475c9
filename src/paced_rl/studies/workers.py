"""Experiments in several processes: each takes one after another, and none takes another one down with it.

A worker is a fresh interpreter (`spawn`), because PyTorch's threads do not survive a fork. What it prints goes into the
log file of its experiment. An experiment that fails ends its worker, with the traceback in the log, so that nothing of
it is left in memory; the next one gets a new worker.

Ctrl-C reaches the parent alone: workers are in sessions of their own, so that a terminal does not interrupt them a
second time. It passes the first on as a wish to stop after the node that runs, the second as one to stop at once.
A worker whose parent is gone stops after its node too.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from paced_rl import interrupts
from paced_rl.interrupts import StoppedError

logger = logging.getLogger(__name__)

THREAD_VARIABLE = "OMP_NUM_THREADS"
"""How many threads PyTorch takes; it reads the variable once, when it is loaded."""

_POLL_SECONDS = 0.2

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A call that a worker makes."""

    name: str
    """Of the experiment."""
    call: Callable[[], str | None]
    """Something that can be pickled; what it returns says why it ended early, None that it did not."""
    log: Path
    """Where its output goes; appended to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended."""

    name: str
    is_done: bool
    is_stopped: bool = False
    """Whether it ended, or did not begin, because of Ctrl-C."""
    message: str | None = None
    """Why it failed, where it stopped, or why it was done before its last round."""
    seconds: float = 0.0


class WorkerPool:
    """Up to so many processes that take jobs; use it within `with worker_pool(…)`."""

    def __init__(self, num_processes: int) -> None:
        self._num_processes = num_processes
        self._workers: list[_Worker] = []

    def run(self, jobs: Sequence[Job], on_outcome: Callable[[Outcome], None] = lambda outcome: None) -> list[Outcome]:
        """Runs every job.

        Args:
            jobs: in the order in which they begin.
            on_outcome: is told of each outcome when it is known.

        Returns:
            The outcomes, in the order of the jobs. After the first Ctrl-C no job begins any more.

        Raises:
            KeyboardInterrupt: the second Ctrl-C.
        """
        waiting, outcomes = deque(jobs), dict[str, Outcome]()
        is_told = False
        while waiting or any(worker.job for worker in self._workers):
            if interrupts.is_stop_requested():
                waiting.clear()
                if not is_told:
                    self.interrupt()
                is_told = True
            while waiting and (free := self._free_worker()) is not None:
                free.begin(waiting.popleft())
            for worker in self._workers:
                if (outcome := worker.poll()) is not None:
                    outcomes[outcome.name] = outcome
                    on_outcome(outcome)
            self._workers = [worker for worker in self._workers if worker.job or worker.process.is_alive()]
            wait([worker.connection for worker in self._workers if worker.job], timeout=_POLL_SECONDS)
        for job in jobs:
            outcomes.setdefault(job.name, Outcome(name=job.name, is_done=False, is_stopped=True, message="not begun"))
        return [outcomes[job.name] for job in jobs]

    def interrupt(self) -> None:
        """Passes a Ctrl-C on to the workers that are busy."""
        for worker in self._workers:
            if worker.job is not None and worker.process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGINT)

    def end(self) -> None:
        """Ends the workers: idle ones find their connection closed, busy ones are interrupted."""
        self.interrupt()
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join()

    def _free_worker(self) -> "_Worker | None":
        idle = next((worker for worker in self._workers if worker.job is None), None)
        if idle is None and len(self._workers) < self._num_processes:
            self._workers.append(idle := _Worker())
        return idle


@contextmanager
def worker_pool(num_processes: int) -> Iterator[WorkerPool]:
    """Processes that share the cores evenly, and that end with the block.

    Within it the first Ctrl-C is a wish to stop, see `interrupts.stop_after_node`.

    Args:
        num_processes: 1 or more, at once.
    """
    pool = WorkerPool(num_processes)
    with interrupts.stop_after_node(), _threads_for(num_processes):
        try:
            yield pool
        except KeyboardInterrupt:
            pool.interrupt()  # the first one may not have been passed on yet
            time.sleep(_POLL_SECONDS)  # two that wait together are taken for one
            raise
        finally:
            pool.end()


class _Worker:
    """A process, what it does now, and since when."""

    def __init__(self) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_work, args=(theirs,), daemon=False)
        self.process.start()
        theirs.close()  # so that the end of the process ends the connection
        self.job: Job | None = None
        self._began = 0.0

    def begin(self, job: Job) -> None:
        self.job, self._began = job, time.monotonic()
        self.connection.send(job)

    def poll(self) -> Outcome | None:
        """The outcome of the job, None while it runs."""
        if self.job is None or not self.connection.poll():
            return None
        name, seconds = self.job.name, time.monotonic() - self._began
        try:
            kind, message = self.connection.recv()
        except EOFError:
            self.process.join()
            # A worker that had hardly begun is ended by the first Ctrl-C.
            kind = "stopped" if interrupts.is_stop_requested() else "failed"
            message = f"its process ended with exit status {self.process.exitcode}; see {self.job.log}"
        self.job = None
        if kind == "failed":
            self.process.join()
        return Outcome(
            name=name, is_done=kind == "done", is_stopped=kind == "stopped", message=message, seconds=seconds
        )


@contextmanager
def _threads_for(num_processes: int) -> Iterator[None]:
    """Within it, processes that begin share the cores, unless the user has said how many threads each takes."""
    if THREAD_VARIABLE in os.environ:
        yield
        return
    num_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    os.environ[THREAD_VARIABLE] = str(max(1, num_cores // num_processes))
    try:
        yield
    finally:
        del os.environ[THREAD_VARIABLE]


def _work(connection: Connection) -> None:
    """The life of a worker: one job after another, until the connection ends or a job fails."""
    os.setsid()  # a terminal's Ctrl-C goes to the parent alone
    # A parent that runs in the background of a script ignores Ctrl-C, and hands that down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with interrupts.stop_after_node():  # also before a job's own loop has begun
        _stop_with_parent()
        while True:
            try:
                job: Job = connection.recv()
            except EOFError:
                return
            _write_to(job.log)
            _do(job, connection)


def _do(job: Job, connection: Connection) -> None:
    try:
        connection.send(("done", job.call()))
    except StoppedError as stop:
        connection.send(("stopped", str(stop)))
    except Exception as error:
        # Told and raised: the traceback belongs into the log, and the process must not go on.
        connection.send(("failed", f"{type(error).__name__}: {error}"))
        raise


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def _write_to(log: Path) -> None:
    """Standard output and error go to the end of this file from now on."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
