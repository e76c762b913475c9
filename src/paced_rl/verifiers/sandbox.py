"""Runs a third-party scorer in a separate process, because some scorers execute the answer they are given.

What is contained, and by what:

- time: a wall-clock limit per answer, after which the whole process group is killed; CPU seconds by RLIMIT_CPU;
- memory: RLIMIT_AS per process; files: RLIMIT_FSIZE 0, so that no bytes reach a disk; descriptors: RLIMIT_NOFILE;
- processes and threads: RLIMIT_NPROC 0, which the kernel does not enforce for root; an answer's process group is killed
  once it is scored;
- secrets: an empty environment, `python -I`, no descriptor inherited but the protocol's, a scratch folder as cwd;
- side effects: a Python audit hook refuses files opened for writing, processes, signals, sockets, ctypes;
- other answers: each is scored in a fork of the freshly loaded scorer.

What is not contained: this is protection against accidents and cheap attacks, not a virtual machine. The worker has the
host's user, network and file system. An executed answer can read the files the user can read, and can forge its own
score. The audit hook can be got around by code written for that purpose, which then may delete, signal and connect as
the user may, and as root start processes; a process that leaves its group on purpose is not found. Where a policy is
not trusted that far, train on scorers that execute answers inside a container, without root.
"""

import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from paced_rl.types import VerdictStatus
from paced_rl.verifiers.worker import MAX_RESPONSE_BYTES

START_SECONDS = 120.0
"""A cold disk may take a minute to import a scorer's libraries; not counted against an answer."""
_LOG_NAME = "worker.log"
_MAX_LOG_CHARS = 1000

_logger = logging.getLogger(__name__)


class WorkerStartError(RuntimeError):
    """The worker ended or stalled before it was ready."""


class _ProtocolError(Exception):
    """The worker is gone, or said something outside the protocol; never leaves this module."""


@dataclass(slots=True)
class _Worker:
    """A running worker process and the host's end of its socket."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    scratch: tempfile.TemporaryDirectory[str]
    received: bytearray = field(default_factory=bytearray)
    """Bytes read and not yet used."""
    child_group: int | None = None
    """Process group of the answer being scored."""

    def read_message(self, deadline: float) -> dict[str, Any]:
        """The next object the worker sends.

        Raises:
            TimeoutError: `deadline` (of time.monotonic) has passed.
            _ProtocolError: the worker is gone, or sent something else than a short line with a JSON object.
        """
        while b"\n" not in self.received:
            if len(self.received) > MAX_RESPONSE_BYTES:
                raise _ProtocolError(f"the worker sent more than {MAX_RESPONSE_BYTES} bytes in one line")
            self.channel.settimeout(_remaining(deadline))
            data = self.channel.recv(MAX_RESPONSE_BYTES)
            if not data:
                raise _ProtocolError("the worker died")
            self.received += data
        line, _, rest = bytes(self.received).partition(b"\n")
        self.received = bytearray(rest)
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _ProtocolError(f"the worker sent no JSON: {line[:80]!r}") from error
        if not isinstance(message, dict):
            raise _ProtocolError(f"the worker sent {line[:80]!r} where an object was expected")
        return message

    def kill(self) -> None:
        """Ends the worker, the answer being scored and everything in their process groups."""
        for group in (self.process.pid, self.child_group):
            if group is not None:
                _kill_group(group)
        self.process.wait()
        self.channel.close()
        self.scratch.cleanup()


def _remaining(deadline: float) -> float:
    """Seconds until `deadline`.

    Raises:
        TimeoutError: there are none.
    """
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return  # Already gone, which is what is wanted.


class Sandbox:
    """A worker process for one scorer: started at the first answer, kept warm, replaced when it dies or stalls."""

    def __init__(self, scorer: str, *, timeout_seconds: float, memory_bytes: int) -> None:
        """Starts nothing yet.

        Args:
            scorer: `module:function` with the signature (completion, arguments) → finite number.
            timeout_seconds: wall-clock limit of one answer.
            memory_bytes: address space of the worker, its libraries included.
        """
        self._scorer = scorer
        self._timeout_seconds = timeout_seconds
        self._memory_bytes = memory_bytes
        self._worker: _Worker | None = None
        self._has_started = False

    def score(self, completion: str, arguments: Mapping[str, Any]) -> float | VerdictStatus:
        """The scorer's score, or TIMED_OUT, or VERIFIER_ERROR (the scorer raised, died or answered nonsense).

        Raises:
            WorkerStartError: the worker could not be started the first time. When it cannot be replaced later on,
                that answer is a VERIFIER_ERROR and the next one tries again.
        """
        request = json.dumps({"completion": completion, "arguments": dict(arguments)}).encode() + b"\n"
        try:
            worker = self._running_worker()
            return self._exchange(worker, request, time.monotonic() + self._timeout_seconds)
        except TimeoutError:
            self.close()
            return VerdictStatus.TIMED_OUT
        except (WorkerStartError, _ProtocolError, OSError) as error:
            if not self._has_started:
                raise
            self.close()
            reason = str(error)
        _logger.warning("scorer %s failed on one answer: %s", self._scorer, reason)
        return VerdictStatus.VERIFIER_ERROR

    def close(self) -> None:
        """Ends the worker and removes its scratch folder; a later `score` starts another."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _running_worker(self) -> _Worker:
        if self._worker is not None and self._worker.process.poll() is not None:
            self.close()  # It died after its last answer: that is no fault of the next one.
        if self._worker is None:
            self._worker = self._start()
            self._has_started = True
        return self._worker

    def _start(self) -> _Worker:
        scratch = tempfile.TemporaryDirectory(prefix="paced_rl_verifier_", ignore_cleanup_errors=True)
        ours, theirs = socket.socketpair()
        # CPU seconds are whole; one more than the wall clock, so that a busy loop is a time-out and not a death.
        cpu_seconds = math.ceil(self._timeout_seconds) + 1
        script = str(Path(__file__).with_name("worker.py"))
        limits = [str(theirs.fileno()), str(cpu_seconds), str(self._memory_bytes)]
        log = Path(scratch.name) / _LOG_NAME
        with theirs, log.open("wb") as standard_error:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", script, self._scorer, *limits],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=standard_error,
                cwd=scratch.name,
                # Nothing is inherited. One thread: every thread of a BLAS reserves address space.
                env={"HOME": scratch.name, "TMPDIR": scratch.name, "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        worker = _Worker(process, ours, scratch)
        try:
            worker.read_message(time.monotonic() + START_SECONDS)
        except (_ProtocolError, OSError) as error:
            said = log.read_text(errors="replace")[-_MAX_LOG_CHARS:]
            worker.kill()
            raise WorkerStartError(
                f"the worker of scorer {self._scorer} did not start: {error or 'time is up'}. It said:\n{said}\n"
                f"Allowed: {self._memory_bytes} bytes of memory and {START_SECONDS:.0f} s. If it ran out of memory, "
                "raise verification.memory_bytes; if a module is missing, install it."
            ) from error
        return worker

    def _exchange(self, worker: _Worker, request: bytes, deadline: float) -> float | VerdictStatus:
        """Sends one request and reads the two messages that answer it; see `worker` for the protocol."""
        worker.channel.settimeout(_remaining(deadline))
        worker.channel.sendall(request)
        worker.child_group = _checked_group(worker.read_message(deadline).get("group"), session=worker.process.pid)
        message = worker.read_message(deadline)
        worker.child_group = None
        score = message.get("score")
        if isinstance(score, float) and math.isfinite(score):
            return score
        _logger.warning("scorer %s failed on one answer: %.200r", self._scorer, message.get("error", message))
        return VerdictStatus.VERIFIER_ERROR


def _checked_group(group: object, *, session: int) -> int | None:
    """`group` if it is a process group of the worker's session, None if it is gone already.

    Raises:
        _ProtocolError: it is anything else, and must not be killed.
    """
    if not isinstance(group, int) or group <= 1:
        raise _ProtocolError(f"the worker named the process group {group!r:.80}")
    try:
        actual = os.getsid(group)
    except ProcessLookupError:
        return None
    if actual != session:
        raise _ProtocolError(f"the worker named the process group {group}, which is not its own")
    return group
