"""Which rounds keep their weights, and the deletion of the others'."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from paced_rl.datasets.pruning import forget_pruning, prune
from paced_rl.parameters import RetentionParameters
from paced_rl.stopping import Evaluation

logger = logging.getLogger(__name__)

CHECKPOINTS = ("policy", "log_z_head", "optimizer_state")
"""Catalog names of what a round hands to the next as files and not as tables."""


def rounds_to_keep(latest: int, retention: RetentionParameters, evaluations: Sequence[Evaluation]) -> set[int]:
    """The rounds up to the latest whose weights stay.

    Whatever this keeps of the rounds before some round, it also kept when that round was the latest one: weights
    that a later round needs are never deleted earlier.

    Args:
        latest: the last finished round.
        retention: which ones.
        evaluations: up to the latest round, in order; the first of equally good ones is the best.
    """
    everything = set(range(latest + 1))
    if retention.keep_last is None:
        return everything
    kept = {0, *range(max(0, latest - retention.keep_last + 1), latest + 1)}
    if retention.keep_every is not None:
        kept |= set(range(0, latest + 1, retention.keep_every))
    if retention.keep_best and evaluations:
        kept.add(max(evaluations, key=lambda evaluation: evaluation[1])[0])
    return kept & everything


def prune_rounds(project: Path, experiment: str, *, latest: int, kept: set[int]) -> None:
    """Deletes the weights of the rounds before the latest that are not kept; their manifests stay.

    Args:
        project: the project's root.
        experiment: its name.
        latest: the last finished round, which is never touched; neither is round 0.
        kept: rounds that keep theirs.
    """
    for round_number in range(1, latest):
        if round_number not in kept:
            num_bytes = sum(map(prune, manifests(project, experiment, round_number)))
            if num_bytes:
                logger.info("Pruned the weights of round %d, %.1f MB", round_number, num_bytes / 1e6)


def restore_round(project: Path, experiment: str, round_number: int) -> None:
    """Makes the pruned weights of a round count as missing, so that the next run of the round writes them again."""
    for manifest in manifests(project, experiment, round_number):
        forget_pruning(manifest)


def manifests(project: Path, experiment: str, round_number: int) -> Iterator[Path]:
    """Where the manifests of a round are, or would be."""
    for name in CHECKPOINTS:
        folder = project / "data/06_models" / name / f"experiment={experiment}" / f"round={round_number:04d}"
        yield folder / f"{name}.json"
