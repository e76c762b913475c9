"""Rounds in one process: models, imports and the database stay warm between them."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from paced_rl import interrupts
from paced_rl.forks import ForkError, fork_experiment, read_fork
from paced_rl.interrupts import StoppedError
from paced_rl.locks import experiment_lock
from paced_rl.parameters import RetentionParameters, StoppingParameters
from paced_rl.progress import rounds_bar
from paced_rl.retention import prune_rounds, restore_round, rounds_to_keep
from paced_rl.runner import CachingRunner
from paced_rl.stages import START_STAGES, round_pipeline
from paced_rl.stopping import evaluations_until, reason_to_stop

logger = logging.getLogger(__name__)

STAGES_OF_A_ROUND = ("scheduling", "rollout", "verification", "training", "evaluation", "reporting")
"""Without what happens once per experiment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """An experiment and what its loop has to know, from its parameters."""

    project: Path
    env: str | None
    params: Mapping[str, Any]
    """As `--params`, without `round`."""
    experiment: str
    parameters: Mapping[str, Any]
    """Every group of parameters, defaults included, by its name."""
    stopping: StoppingParameters
    retention: RetentionParameters


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
    study = open_study(project, env=env, params=params)
    for round_number in rounds:
        _run_round(study, round_number)
        yield round_number


def open_study(project: Path, *, env: str | None = None, params: Mapping[str, Any] | None = None) -> Study:
    """Reads and checks the parameters of an experiment.

    Raises:
        PreflightError: a parameter is unknown or cannot be used.
    """
    from paced_rl.preflight import check_groups

    bootstrap_project(project)
    session = _session(project, env=env, params=params or {})
    with session:
        parameters = session.load_context().config_loader["parameters"]
    groups: dict[str, Any] = dict(check_groups(parameters))
    return Study(
        project=project,
        env=env,
        params=params or {},
        experiment=parameters["experiment"],
        parameters=groups,
        stopping=groups["stopping"],
        retention=groups["retention"],
    )


def run_start(study: Study) -> None:
    """Runs what an experiment does once: prompts, embeddings, the state of round 0; what is up to date is skipped.

    Raises:
        PreflightError: another process works on the experiment, or its parameters cannot be used.
        StoppedError: Ctrl-C; with the node after which it ended.
    """
    with interrupts.stop_after_node():
        session = _session(study.project, env=study.env, params={**study.params, "round": 1})
        with session:
            session.run(pipeline_names=list(START_STAGES), runner=CachingRunner())


def train(
    study: Study,
    *,
    last: int,
    first: int | None = None,
    fork_of: str | None = None,
    is_forced: bool = False,
    is_restoring: bool = False,
) -> str | None:
    """Runs the rounds of a study, and prunes weights and stops early as its parameters say.

    Args:
        study: from `open_study`.
        last: last round.
        first: first round; None takes 1, or the first own round of a study that was branched off another.
        fork_of: experiment to branch at `first`, before anything runs.
        is_forced: run every node, also those that are up to date.
        is_restoring: make pruned weights of the rounds again.

    Returns:
        Why it ended before the last round, None if it did not.

    Raises:
        ExperimentLockedError: another process works on the experiment, or on the one to branch.
        ForkError: the experiment cannot be branched off as asked, or was branched off by half.
        StoppedError: Ctrl-C; with the round and the node after which it ended.
    """
    project, experiment = study.project, study.experiment
    with experiment_lock(project, experiment):
        if fork_of is not None:
            with experiment_lock(project, fork_of):
                fork_experiment(project, old=fork_of, new=experiment, first_round=first or 1)
        first = first or _first_own_round(project, experiment, last)
        stopping = StoppingParameters() if is_restoring else study.stopping
        # A loop that had stopped before these rounds would not have begun them.
        earlier = evaluations_until(project, experiment, first - 1) if first > 1 else []
        if (reason := reason_to_stop(earlier, stopping)) is not None:
            return f"Nothing to do from round {first} on: {reason}"
        with interrupts.stop_after_node(), rounds_bar(last - first + 1) as show:
            for round_number in range(first, last + 1):
                if is_restoring:
                    restore_round(project, experiment, round_number)
                _run_or_stop(study, round_number, is_forced=is_forced)
                evaluations = evaluations_until(project, experiment, round_number)
                kept = rounds_to_keep(round_number, study.retention, evaluations)
                prune_rounds(project, experiment, latest=round_number, kept=kept)
                show(round_number, evaluations[-1][1] if evaluations else None)
                if round_number < last and (reason := reason_to_stop(evaluations, stopping)) is not None:
                    return f"Stopped after round {round_number} of {last}: {reason}"
    return None


def _first_own_round(project: Path, experiment: str, last: int) -> int:
    fork = read_fork(project, experiment)
    if fork is None:
        return 1
    origin = f"experiment '{experiment}' was branched off '{fork.forked_from}' at round {fork.first_round}"
    if not fork.is_complete:
        raise ForkError(
            f"{origin}, but not to the end: repeat the command with --from-round {fork.first_round} "
            f"--fork-of {fork.forked_from}"
        )
    if fork.first_round > last:
        raise ForkError(f"{origin}, so --rounds {last} is a round that the two share; --from-round would run it")
    return fork.first_round


def _run_or_stop(study: Study, round_number: int, *, is_forced: bool) -> None:
    """Runs a round, unless or until Ctrl-C asks to stop."""
    if interrupts.is_stop_requested():
        raise StoppedError(f"Stopped before round {round_number}", round_number=round_number)
    # What all rounds share is made anew by the first of them alone.
    stages = STAGES_OF_A_ROUND if is_forced and round_number > 1 else None
    try:
        _run_round(study, round_number, is_forced=is_forced, stages=stages)
    except StoppedError as stop:
        raise StoppedError(f"Stopped in round {round_number} {stop}", round_number=round_number) from stop


def _run_round(
    study: Study, round_number: int, *, is_forced: bool = False, stages: tuple[str, ...] | None = None
) -> None:
    name = round_pipeline(study.parameters["scheduling"].selector)
    session = _session(study.project, env=study.env, params={**study.params, "round": round_number})
    with session:
        session.run(pipeline_names=[name], tags=stages, runner=CachingRunner(force=is_forced))


def _session(project: Path, *, env: str | None, params: Mapping[str, Any]) -> KedroSession:
    from kedro.framework.project import settings

    session: KedroSession = settings.SESSION_CLASS.create(project, env=env, runtime_params=dict(params))
    return session
