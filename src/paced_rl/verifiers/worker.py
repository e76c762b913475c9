"""The process third-party scorers run in. Started by `sandbox` as a script; standard library only.

It loads one scorer, then forks a child per answer: the child limits itself, calls the scorer and ends. A child starts
from the state of the freshly loaded scorer, so that an answer cannot change how later answers are judged, and its CPU
limit counts from zero.

Protocol: one JSON object per line, over a socket on a file descriptor of its own, so that what a scorer prints goes to
/dev/null and corrupts nothing.

    worker → host   {"ready": true}                                once
    host → worker   {"completion": text, "arguments": {...}}       per answer
    worker → host   {"group": process group of the child}          before the scorer is called
    worker → host   {"score": number} or {"error": text}           at its end
"""

import contextlib
import importlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NoReturn

MAX_RESPONSE_BYTES = 65_536
"""Longest line a child may answer with; a score is some 30 bytes."""
NUM_OPEN_FILES = 64
"""Descriptors of a child."""

Scorer = Callable[[str, Mapping[str, Any]], float]

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Audit events (docs.python.org/3/library/audit_events.html) refused by prefix. Of `os.` a scorer needs to read only.
_REFUSED = ("ctypes.", "fcntl.", "os.", "pty.", "resource.", "shutil.", "signal.", "socket.", "sqlite3.", "subprocess.")
_ALLOWED = frozenset({"os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.putenv", "os.unsetenv"})


def refuse_side_effects(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: no file is written, no process started or signalled, no connection made.

    Raises:
        PermissionError: for every such event.
    """
    if event == "open":
        refused = bool(arguments[2] & _WRITE_FLAGS)
    else:
        refused = event.startswith(_REFUSED) and event not in _ALLOWED
    if refused:
        raise PermissionError(f"a scorer may not do this: {event}")


def limit(kind: int, amount: int) -> None:
    """Sets a limit, or keeps a tighter one that this process was started under."""
    ceiling = resource.getrlimit(kind)[1]
    amount = amount if ceiling == resource.RLIM_INFINITY else min(amount, ceiling)
    resource.setrlimit(kind, (amount, amount))


def limit_child(cpu_seconds: int) -> None:
    """Kernel limits of one answer, inherited by whatever it starts; root is exempt from the number of processes."""
    limit(resource.RLIMIT_CPU, cpu_seconds)
    limit(resource.RLIMIT_FSIZE, 0)
    limit(resource.RLIMIT_NOFILE, NUM_OPEN_FILES)
    limit(resource.RLIMIT_NPROC, 0)
    # A child whose host and worker are gone still ends, unless it takes care not to.
    signal.alarm(cpu_seconds + 1)


def _send(descriptor: int, message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


def run_child(scorer: Scorer, request: Mapping[str, Any], results: int, cpu_seconds: int) -> NoReturn:
    """Scores one answer and ends the process; an exception ends it too, through the hook that reports it."""

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _send(results, {"error": f"{kind.__name__}: {error}"[:200]})

    os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    sys.excepthook = report
    limit_child(cpu_seconds)
    sys.addaudithook(refuse_side_effects)
    _send(results, {"score": float(scorer(request["completion"], request["arguments"]))})
    os._exit(0)


def answer_request(scorer: Scorer, request: Mapping[str, Any], connection: socket.socket, cpu_seconds: int) -> bytes:
    """The line to send back for one request, once the child and its process group are gone."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        os.close(connection.detach())  # Detached, because unwinding from an exception closes it once more.
        run_child(scorer, request, write_end, cpu_seconds)
    os.close(write_end)
    # Both sides set the group, because either may run first; too late if the child has ended or replaced itself.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(child, child)
    _send(connection.fileno(), {"group": child})
    with os.fdopen(read_end, "rb") as results:
        line = results.readline(MAX_RESPONSE_BYTES)
    # Killed before it is waited for, so that its id cannot have passed to another process.
    os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # The child has moved itself to another group.
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if line.endswith(b"\n"):
        return line
    reason = "answered with too long a line" if line else "ended without an answer"
    return json.dumps({"error": f"the scorer {reason}"}).encode() + b"\n"


def main(scorer_name: str, channel: int, cpu_seconds: int, memory_bytes: int) -> None:
    """Serves requests until the host closes its end.

    Args:
        scorer_name: `module:function` of a `Scorer`.
        channel: file descriptor of the socket.
        cpu_seconds: limit of one answer.
        memory_bytes: address space of this process and of each child.
    """
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_AS, memory_bytes)
    module, function = scorer_name.split(":")
    scorer = getattr(importlib.import_module(module), function)
    _send(channel, {"ready": True})
    with socket.socket(fileno=channel) as connection, connection.makefile("rb") as requests:
        while line := requests.readline():
            connection.sendall(answer_request(scorer, json.loads(line), connection, cpu_seconds))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
