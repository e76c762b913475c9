"""Progress bars for long loops: they vanish when done, and are silent where nobody watches."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_NUM_AVERAGED = 5
"""Rounds whose mean duration is taken for the next ones': as many as lie between two evaluations by default."""

_REFRESH_PER_SECOND = 4

_display: "Progress | None" = None
"""What is shown now; bars that begin meanwhile are further lines of it."""


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how far a loop has come, on stderr.

    Nothing is shown when stderr is not a terminal, or when the environment variable `PACED_RL_PROGRESS` is `off`.

    Args:
        description: what is being counted, e.g. "rollout".
        total: how many units make the whole.

    Yields:
        `advance(n)`, to be called when n more units are done.
    """
    is_alone = _display is None
    with _shown() as display:
        if display is None:
            yield _ignore
            return
        task = display.add_task(description, total=total)
        try:
            yield lambda count: display.advance(task, count)
        finally:
            if not is_alone:
                display.refresh()
                display.remove_task(task)


@contextmanager
def rounds_bar(total: int) -> Iterator[Callable[[int, float | None], None]]:
    """Shows how far a loop over rounds has come, above the bars of its parts; silent where `progress_bar` is.

    Args:
        total: how many rounds make the whole.

    Yields:
        `advance(round_number, accuracy)`, to be called when a round is done, with the last known validation accuracy.
    """
    with _shown() as display:
        if display is None:
            yield _ignore
            return
        task = display.add_task("rounds", total=total, left="")
        seconds: deque[float] = deque(maxlen=_NUM_AVERAGED)
        started, num_left = time.monotonic(), total

        def advance(round_number: int, accuracy: float | None) -> None:
            nonlocal started, num_left
            now = time.monotonic()
            seconds.append(now - started)
            started = now
            display.advance(task)
            num_left -= 1
            known = "" if accuracy is None else f", validation accuracy {accuracy:.3f}"
            left = in_words(num_left * sum(seconds) / len(seconds))
            display.update(task, description=f"round {round_number} done{known}", left=f"{left} left", refresh=True)

        yield advance


def in_words(seconds: float) -> str:
    """A duration to the minute, or to the second below one: `2 h 5 min`, `12 min`, `40 s`."""
    minutes = round(seconds / 60)
    hours = f"{minutes // 60} h " if minutes >= 60 else ""
    return f"{hours}{minutes % 60} min" if minutes else f"{seconds:.0f} s"


def message_console() -> "Console":
    """Where messages to a user go: to stderr, and while bars are shown, above them."""
    from rich.console import Console

    return Console(stderr=True) if _display is None else _display.console


def _ignore(*_: object) -> None:
    return


@contextmanager
def _shown() -> Iterator["Progress | None"]:
    """The display, begun where there is none; None where nobody watches."""
    global _display
    if _display is not None or os.environ.get("PACED_RL_PROGRESS", "").lower() == "off":
        yield _display
        return
    import rich  # 50 ms that a run without a terminal can do without
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class TimeLeft(TimeRemainingColumn):
        """The task's own estimate, where it has one: rich's looks back for half a minute, and a round may be longer."""

        def render(self, task: Task) -> Text:
            return Text(task.fields["left"]) if "left" in task.fields else super().render(task)

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    display = Progress(
        *columns,
        # Log lines pass above the bars where the two share a console; the log's is on stdout.
        console=rich.get_console() if rich.get_console().is_terminal else console,
        transient=True,
        refresh_per_second=_REFRESH_PER_SECOND,
        redirect_stdout=sys.stdout.isatty(),
    )
    with display:
        _display = display
        try:
            yield display
        finally:
            _display = None
