"""Copies of this project to run rounds in: configuration and starter policy, no sources and no results."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def make_project(folder: Path) -> Path:
    """A project at `folder` that runs the installed package on a copy of this project's configuration."""
    (folder / "src").mkdir(parents=True)
    (folder / "conf" / "local").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for env in ("base", "test", "grpo"):  # not `local`, which is the developer's own
        shutil.copytree(ROOT / "conf" / env, folder / "conf" / env)
    shutil.copytree(ROOT / "data" / "01_raw" / "starter_policy", folder / "data" / "01_raw" / "starter_policy")
    return folder


def environment(**changes: str) -> dict[str, str]:
    """For a child process: this one's, without what would send its results elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in ("KEDRO_ENV", "PYTHONPATH")}
    return {**kept, "KEDRO_DISABLE_TELEMETRY": "1", "PACED_RL_MLFLOW": "off", **changes}


@contextmanager
def inside(project: Path) -> Iterator[None]:
    """The current folder is the project, as for `kedro run`; what Kedro does to the process is undone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.syspath_prepend(str(project / "src"))
        patch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        patch.delenv("KEDRO_ENV", raising=False)
        patch.setenv("PACED_RL_MLFLOW", "off")
        yield


def run(project: Path, rounds: range, *, env: str = "test", params: Mapping[str, Any] | None = None) -> list[int]:
    """Runs the rounds in this process; returns their numbers."""
    from paced_rl.loop import run_rounds

    with inside(project):
        return list(run_rounds(project, rounds, env=env, params=params))
