"""A progress bar for long loops: it vanishes when done, and is silent where nobody watches."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _ignore(_count: int = 1) -> None:
    return


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
    if os.environ.get("PACED_RL_PROGRESS", "").lower() == "off":
        yield _ignore
        return
    from rich.console import Console  # 50 ms that a run without a terminal can do without
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _ignore
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)
