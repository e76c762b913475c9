"""What the benchmarks share: a copy of the project to run rounds in, and a stopwatch on parts of a program."""

import functools
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

Clock = Callable[[], float]
COPIED = ("conf", "pyproject.toml", "data/01_raw")


class Stopwatch:
    """Seconds per part, without the time of parts within it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Counts the time of every call of `owner.name` to `part`, from now on."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = self._clock()
            try:
                return function(*args, **kwargs)
            finally:
                elapsed = self._clock() - start
                self.seconds[part] += elapsed - self._inner.pop()
                self._inner[-1] += elapsed

        setattr(owner, name, timed)

    def take(self) -> dict[str, float]:
        """Seconds since the last call."""
        taken = dict(self.seconds)
        self.seconds.clear()
        return taken


def copy_project(source: Path, target: Path) -> None:
    """Configuration and inputs of the project at `source`, without its results."""
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        else:
            shutil.copy(source / name, target / name)
    (target / "conf" / "local").mkdir(exist_ok=True)
    (target / "src").mkdir()  # Kedro asks for it; the package is the installed one
