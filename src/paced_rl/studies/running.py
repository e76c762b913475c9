"""Runs the experiments of a study, each as `kedro paced train` would."""

import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paced_rl import loop
from paced_rl.forks import ForkError
from paced_rl.locks import ExperimentLockedError
from paced_rl.progress import progress_bar
from paced_rl.studies.checks import open_arms
from paced_rl.studies.report import STUDY_FOLDER
from paced_rl.studies.sharing import SharedStart, share_start, shared_starts, waiting_followers
from paced_rl.studies.study_file import StudyPlan
from paced_rl.studies.workers import Job, Outcome, worker_pool

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """How the experiments of a study ended."""

    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.is_done and not outcome.is_stopped]

    @property
    def is_stopped(self) -> bool:
        """Whether Ctrl-C ended it."""
        return any(outcome.is_stopped for outcome in self.outcomes)


def run_study(plan: StudyPlan, project: Path, *, num_processes: int = 1) -> StudyResult:
    """Runs what is not up to date of a study.

    Everything is checked before the first experiment begins. One that fails does not stop the others.

    Args:
        plan: the study.
        project: the project's root.
        num_processes: experiments at once. Where PyTorch is given other numbers of threads, last digits may differ.

    Raises:
        StudyFileError: some arm cannot work.
        KeyboardInterrupt: the second Ctrl-C.
    """
    opened = open_arms(plan, project)
    starts = shared_starts(plan, {name: study.parameters for name, study in opened.items()}, project)
    params = {
        plan.experiment(arm.name, seed): plan.runtime_params(arm, seed) for seed in plan.seeds for arm in plan.arms
    }
    logs = project / STUDY_FOLDER / plan.name / "logs"

    def job(experiment: str, call: Callable[..., str | None]) -> Job:
        bound = functools.partial(call, project, plan.env, params[experiment])
        return Job(name=experiment, call=bound, log=logs / f"{experiment}.log")

    leaders = [start for start in starts if waiting_followers(project, start)]
    num_processes = min(num_processes, len(params))
    with worker_pool(num_processes) as pool:
        prepared = pool.run([job(start.leader, _start) for start in leaders])
        if any(outcome.is_stopped for outcome in prepared):
            return StudyResult(outcomes=tuple(prepared))
        done = {outcome.name for outcome in prepared if outcome.is_done}
        _share(project, [start for start in leaders if start.leader in done])
        train = functools.partial(_train, rounds=plan.rounds)
        jobs = [job(experiment, train) for experiment in params]
        logger.info("%d experiments, %d at once; what they say is in %s", len(jobs), num_processes, logs)
        with progress_bar("experiments", len(jobs)) as advance:

            def report(outcome: Outcome) -> None:
                _log(outcome)
                advance(1)

            return StudyResult(outcomes=tuple(pool.run(jobs, report)))


def _start(project: Path, env: str | None, params: Mapping[str, Any]) -> None:
    loop.run_start(loop.open_study(project, env=env, params=params))


def _train(project: Path, env: str | None, params: Mapping[str, Any], *, rounds: int) -> str | None:
    return loop.train(loop.open_study(project, env=env, params=params), last=rounds)


def _share(project: Path, starts: Iterable[SharedStart]) -> None:
    for start in starts:
        try:
            share_start(project, start)
        except (ExperimentLockedError, ForkError) as error:
            # Sharing saves time; an experiment that cannot share makes its own start, or says itself what is wrong.
            logger.warning("The start of '%s' is not shared: %s", start.leader, error)


def _log(outcome: Outcome) -> None:
    if outcome.is_done:
        why = f": {outcome.message}" if outcome.message else ""
        logger.info("%s is done in %.0f s%s", outcome.name, outcome.seconds, why)
    elif outcome.is_stopped:
        logger.info("%s: %s", outcome.name, outcome.message)
    else:
        logger.error("%s failed: %s", outcome.name, outcome.message)
