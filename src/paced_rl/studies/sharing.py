"""What experiments of a study have in common is computed once: prompts, embeddings and the state of round 0.

Experiments with one seed and the same data and policy start alike. The first of them computes the start, the others
branch off it at round 1: tables are copied, weights are links. The cache goes by content and not by the experiment's
name, so the copies count as up to date, but for nodes whose own parameters differ, say the size of the log-Z head.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paced_rl.forks import fork_experiment, read_fork
from paced_rl.locks import experiment_lock
from paced_rl.runner.content_fingerprints import canonical_json
from paced_rl.studies.study_file import StudyPlan

logger = logging.getLogger(__name__)

SHARED_GROUPS = ("data_preparation", "policy")
"""Groups of parameters that decide what prompts there are and what embeds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStart:
    """Experiments that begin alike."""

    leader: str
    """The one that computes the start: the first that has begun, else the first."""
    followers: tuple[str, ...]


def shared_starts(plan: StudyPlan, parameters: Mapping[str, Mapping[str, Any]], project: Path) -> list[SharedStart]:
    """Which experiments of a study share their start.

    Args:
        plan: the study.
        parameters: arm → groups of its parameters.
        project: the project's root.

    Returns:
        Every experiment of the study once, by seed and in the order of the arms.
    """
    groups: dict[tuple[int, str], list[str]] = defaultdict(list)
    for seed in plan.seeds:
        for arm in plan.arms:
            shared = {name: parameters[arm.name][name] for name in SHARED_GROUPS}
            groups[seed, canonical_json(shared)].append(plan.experiment(arm.name, seed))
    starts = []
    for experiments in groups.values():
        leader = next((name for name in experiments if has_begun(project, name)), experiments[0])
        starts.append(SharedStart(leader=leader, followers=tuple(name for name in experiments if name != leader)))
    return starts


def has_begun(project: Path, experiment: str) -> bool:
    """Whether anything of the experiment is on disk."""
    return any((project / "data").glob(f"*/*/experiment={experiment}"))


def waiting_followers(project: Path, start: SharedStart) -> list[str]:
    """The followers that have not begun, or whose branching was interrupted."""
    waiting = []
    for follower in start.followers:
        fork = read_fork(project, follower)
        is_half_done = fork is not None and not fork.is_complete and fork.forked_from == start.leader
        if is_half_done or not has_begun(project, follower):
            waiting.append(follower)
    return waiting


def share_start(project: Path, start: SharedStart) -> None:
    """Branches the followers that wait off their leader, whose start is up to date.

    Raises:
        ExperimentLockedError: another process works on one of them.
        ForkError: the leader's start is not whole.
    """
    for follower in waiting_followers(project, start):
        with experiment_lock(project, start.leader), experiment_lock(project, follower):
            fork_experiment(project, old=start.leader, new=follower, first_round=1)
