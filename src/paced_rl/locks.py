"""One experiment, one process: a file that says who works on it, refused to anybody else.

The lock is `data/.locks/experiment=<name>.json`, made by a hard link, which fails where there is one, also between
hosts. A process that dies leaves it behind; the next one on the same host sees that it is dead and takes over.
Looking and replacing happen under a short `flock`: of two processes that find the same dead lock, one replaces it, and
the other then finds a live one.
"""

import fcntl
import json
import logging
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from paced_rl.atomic import explain_full_disk

logger = logging.getLogger(__name__)

LOCK_FOLDER = Path("data") / ".locks"
"""Relative to the project. Beside the tables' folders and hidden, so that no reader of tables meets it."""


class ExperimentLockedError(RuntimeError):
    """Somebody else works on the experiment, or nobody can tell whether somebody does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that works on an experiment."""

    pid: int
    host: str
    process_start: str
    """Tells the process from a later one that got its number, see `process_start`."""
    since: str
    """When it took the lock, ISO 8601 in UTC."""


RUN_LOCKS = ExitStack()
"""Locks of the Kedro run that is under way: a hook takes them, and the session lets go of them however the run ends."""

_held: dict[Path, int] = {}
"""Locks of this process → how many times they are held: a loop holds one over all of its rounds."""


@contextmanager
def experiment_lock(project: Path, experiment: str) -> Iterator[None]:
    """Holds an experiment; may be nested within one process.

    Args:
        project: the project's root.
        experiment: a name that `preflight.check_experiment_name` accepts.

    Raises:
        ExperimentLockedError: another process holds it; naming that process and what to do.
    """
    path = lock_path(project, experiment)
    if path not in _held:
        _take(path, experiment)
    _held[path] = _held.get(path, 0) + 1
    try:
        yield
    finally:
        _held[path] -= 1
        if not _held[path]:
            del _held[path]
            _give_back(path)


def lock_path(project: Path, experiment: str) -> Path:
    """Where the lock of an experiment is."""
    return project.resolve() / LOCK_FOLDER / f"experiment={experiment}.json"


def read_holder(path: Path) -> Holder | None:
    """Who a lock file names; None where there is none or it names nobody."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):  # ValueError: not JSON, e.g. emptied by hand
        return None


def process_start(pid: int) -> str | None:
    """When a process was started, as its system says it; None where none of that number runs."""
    if Path("/proc/self/stat").exists():
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # After the name, which may hold blanks and brackets: field 3 is the state, field 22 the start, proc(5).
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    # macOS has no /proc.
    done = subprocess.run(["ps", "-p", str(pid), "-o", "lstart="], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _take(path: Path, experiment: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _guard(path.parent):
        if path.exists():
            holder = read_holder(path)
            if holder is None or holder.host != socket.gethostname():
                raise ExperimentLockedError(_unknown(path, experiment, holder))
            if process_start(holder.pid) == holder.process_start:
                raise ExperimentLockedError(_in_use(experiment, holder))
            logger.warning(
                "Process %d, which worked on experiment '%s' since %s, ended without a word: taking over. What it had "
                "finished is cached; what it had not runs again.",
                holder.pid,
                experiment,
                holder.since,
            )
            path.unlink(missing_ok=True)
        _create(path, experiment)


def _create(path: Path, experiment: str) -> None:
    """A link to a written file: a process that is killed here leaves no lock that does not say whose it is."""
    written = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with explain_full_disk(path):
            written.write_text(json.dumps(asdict(_this_process())), encoding="utf-8")
            path.hardlink_to(written)
    except FileExistsError as error:  # by another host, which does not see our guard
        raise ExperimentLockedError(_unknown(path, experiment, read_holder(path))) from error
    finally:
        written.unlink(missing_ok=True)


def _give_back(path: Path) -> None:
    with _guard(path.parent):
        holder, me = read_holder(path), _this_process()
        # Somebody may have deleted the lock by hand, and a child that was forked from its holder is not the holder.
        if holder is not None and (holder.pid, holder.process_start) == (me.pid, me.process_start):
            path.unlink(missing_ok=True)


@contextmanager
def _guard(folder: Path) -> Iterator[None]:
    with (folder / "guard").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed, also when the process dies
        yield


def _this_process() -> Holder:
    return Holder(
        pid=os.getpid(),
        host=socket.gethostname(),
        process_start=process_start(os.getpid()) or "",
        since=datetime.now(UTC).isoformat(sep=" ", timespec="seconds"),
    )


def _in_use(experiment: str, holder: Holder) -> str:
    return (
        f"experiment '{experiment}' is in use by process {holder.pid} on {holder.host} since {holder.since}: wait "
        f"until it ends, or end it with `kill {holder.pid}`, which loses no more than the node that runs. Other "
        "experiments can run at the same time."
    )


def _unknown(path: Path, experiment: str, holder: Holder | None) -> str:
    if holder is None:
        who = f"somebody, but {path} does not say who"
    else:
        who = f"process {holder.pid} on the host {holder.host} since {holder.since}, which {socket.gethostname()}"
        who += " cannot look at"
    return f"experiment '{experiment}' is in use by {who}. If it has ended, delete {path} and repeat the command."
