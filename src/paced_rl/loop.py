"""Rounds in one process: models, imports and the database stay warm between them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project


def run_rounds(
    project: Path, rounds: range, *, env: str | None = None, params: Mapping[str, Any] | None = None
) -> Iterator[int]:
    """Runs the rounds in order, each as a Kedro session of its own; what is up to date is skipped.

    Args:
        project: the project's root.
        rounds: round numbers, the first of which follows a finished round or is 1.
        env: configuration environment.
        params: as `--params`, without `round`.

    Yields:
        The number of each round when it is done.
    """
    bootstrap_project(project)
    from kedro.framework.project import settings

    for round_number in rounds:
        runtime_params = {**(params or {}), "round": round_number}
        session: KedroSession = settings.SESSION_CLASS.create(project, env=env, runtime_params=runtime_params)
        with session:
            session.run(pipeline_names=["paced_round"])
        yield round_number
