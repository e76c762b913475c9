"""A small file beside the record of a node that is running, or whose last attempt did not finish.

`.<node name>.attempt.json` is written when a node starts and deleted when it has finished, so that one whose process is
gone tells of a kill, and one that holds an error tells which.
"""

import contextlib
import json
import os
import socket
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from paced_rl.atomic import explain_full_disk, make_folder
from paced_rl.locks import process_start

_MAX_ERROR_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How far the last attempt at a node has come."""

    state: Literal["running", "failed", "interrupted"]
    pid: int
    process_start: str | None
    """Tells the process from a later one that got its number, see `locks.process_start`."""
    host: str
    started: str
    """ISO 8601, UTC."""
    error: str = ""
    """One line, of a failed attempt."""


class MarkedAttempt:
    """Around the execution of a node: marks it as running, then removes the mark or says in it what went wrong."""

    def __init__(self, record: Path) -> None:
        """
        Args:
            record: where the node's record is going to be.
        """
        self._path = attempt_path(record)
        self._attempt = Attempt(
            state="running",
            pid=os.getpid(),
            process_start=process_start(os.getpid()),
            host=socket.gethostname(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def __enter__(self) -> Self:
        with explain_full_disk(self._path):
            make_folder(self._path.parent)
            self._write(self._attempt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._path.unlink(missing_ok=True)
            return
        # On a full disk the node's own error is the one to report.
        with contextlib.suppress(OSError):
            if issubclass(kind, Exception):
                message = f"{kind.__name__}: {error}".splitlines()[0][:_MAX_ERROR_CHARACTERS]
                self._write(replace(self._attempt, state="failed", error=message))
            else:
                self._write(replace(self._attempt, state="interrupted"))

    def _write(self, attempt: Attempt) -> None:
        self._path.write_text(json.dumps(asdict(attempt), ensure_ascii=False), "utf-8")


def attempt_path(record: Path) -> Path:
    """Where the mark of a node's attempt is, from where its record is."""
    return record.with_name(f"{record.name.removesuffix('.record.json')}.attempt.json")


def read_attempt(record: Path) -> Attempt | None:
    """The attempt that has not finished, judged as of now; None if there is none, or its file cannot be read.

    Args:
        record: where the node's record is. An attempt of a process of this host that is gone counts as interrupted; of
            a process of another host nobody here can tell, so it counts as running.
    """
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError, TypeError):
        attempt = Attempt(**json.loads(attempt_path(record).read_text("utf-8")))
        is_gone = attempt.host == socket.gethostname() and process_start(attempt.pid) != attempt.process_start
        return replace(attempt, state="interrupted") if attempt.state == "running" and is_gone else attempt
    return None
