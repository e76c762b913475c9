"""Ctrl-C in a long loop: the first one ends it after the node that runs, the second one at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXIT_STATUS = 128 + signal.SIGINT
"""What shells report of a command that Ctrl-C ended."""

_NOTICE = b"\nStopping after the node that runs now; press Ctrl-C again to stop at once.\n"

_requested = threading.Event()


class StoppedError(Exception):
    """A run ended early because the user asked for it; everything that finished is on disk."""

    def __init__(self, message: str, *, round_number: int | None = None) -> None:
        super().__init__(message)
        self.round_number = round_number


@contextmanager
def stop_after_node() -> Iterator[None]:
    """Within it, the first Ctrl-C makes `is_stop_requested` true and the second raises KeyboardInterrupt.

    Does nothing outside of the main thread, where Python takes no signals, nor where SIGINT is ignored, as it is for a
    script's background jobs.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGINT, _on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _requested.clear()


def is_stop_requested() -> bool:
    """Whether what runs should end as soon as it leaves everything whole."""
    return _requested.is_set()


def _on_interrupt(number: int, frame: Any) -> None:
    if _requested.is_set():
        raise KeyboardInterrupt
    _requested.set()
    os.write(2, _NOTICE)  # unlike print it may interrupt another write to stderr
