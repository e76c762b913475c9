"""What workers do in the tests; importable by a spawned process."""

import os
import time
from pathlib import Path

from paced_rl import interrupts
from paced_rl.interrupts import StoppedError


def write(path: Path, text: str) -> None:
    path.write_text(text)
    print(f"wrote {text}")


def say_threads() -> str:
    return os.environ["OMP_NUM_THREADS"]


def fail() -> None:
    raise ValueError("three\nlines of\nmessage")


def die() -> None:
    os._exit(7)


def work_on(began: Path) -> None:
    """As a long node: a wish to stop does not end it."""
    began.write_text(str(os.getpid()))
    with interrupts.stop_after_node():
        time.sleep(60)
    began.with_suffix(".ended").touch()


def work_until_stopped(began: Path) -> None:
    """As a loop over rounds: a wish to stop is noticed between two steps."""
    began.write_text(str(os.getpid()))
    deadline = time.monotonic() + 60
    with interrupts.stop_after_node():
        while not interrupts.is_stop_requested():
            if time.monotonic() > deadline:
                raise TimeoutError("nobody asked to stop")
            time.sleep(0.02)
    raise StoppedError("Stopped between two steps")
