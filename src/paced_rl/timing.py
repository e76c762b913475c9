"""A process-wide stopwatch: who took how many seconds, and how much memory the process had needed by then.

Hooks time nodes and datasets with it, and a node may time its own parts, e.g.
`record("verification", "verifier:arithmetic", seconds)`. One run of a pipeline begins and ends with `take()`.
"""

import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Everything recorded under one (stage, name) since the last `take`."""

    stage: str
    name: str
    seconds: float
    """Wall clock, summed over all records."""
    peak_memory_bytes: int
    """Resident high-water mark of the whole process at the last record: it never falls, and it includes every earlier
    stage of the process, so only a rise from one row to the next says something of the later one."""


_lock = threading.Lock()  # Kedro's --async loads datasets in threads
_timings: dict[tuple[str, str], Timing] = {}


def peak_memory_bytes() -> int:
    """Largest resident memory this process has had so far; its children and the accelerator are not counted."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def record(stage: str, name: str, seconds: float) -> None:
    """Adds `seconds` of wall clock to (stage, name)."""
    with _lock:
        before = _timings.get((stage, name))
        _timings[stage, name] = Timing(
            stage=stage,
            name=name,
            seconds=seconds + (before.seconds if before else 0.0),
            peak_memory_bytes=peak_memory_bytes(),
        )


@contextmanager
def measure(stage: str, name: str) -> Iterator[None]:
    """Records how long the block takes, also when it raises."""
    start = time.perf_counter()
    try:
        yield
    finally:
        record(stage, name, time.perf_counter() - start)


def take() -> list[Timing]:
    """Everything recorded since the last call, in the order of first records; the recorder is empty afterwards."""
    with _lock:
        timings = list(_timings.values())
        _timings.clear()
    return timings
