"""What an experiment keeps on disk: its policy versions, and bytes by kind of data."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from paced_rl.datasets.pruning import has_weights, is_pruned
from paced_rl.inspection.experiment import Experiment
from paced_rl.runner.content_fingerprints import local_path


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """The policy that a round left behind; version 0 is the start policy."""

    round_number: int
    folder: str
    """Name of the folder of its weights: a digest of them, or the start policy's own name."""
    size_bytes: int
    """Of all its files, also when they have been deleted."""
    state: str
    """`kept`; `pruned`, when its files were deleted on purpose; `lost`, when they are gone otherwise."""


def policy_versions(experiment: Experiment) -> list[PolicyVersion]:
    """The policies of all rounds that have written one."""
    versions = []
    for round_number in (0, *experiment.rounds()):
        # The policy of round r is what round r + 1 starts from, which also covers round 0.
        path = local_path(experiment.catalog(round_number + 1)["previous_policy@round"])
        if path is None or not path.is_file():
            continue
        manifest = json.loads(path.read_text("utf-8"))
        folder = Path(os.path.normpath(path.parent / manifest["folder"]))
        versions.append(
            PolicyVersion(
                round_number=round_number,
                folder=folder.name,
                size_bytes=sum(entry["size"] for entry in manifest["files"].values()),
                state="kept" if has_weights(path) else "pruned" if is_pruned(path) else "lost",
            )
        )
    return versions


def bytes_by_kind(experiment: Experiment) -> dict[str, int]:
    """Kind of data (`policy`, `rollouts`, …) → bytes under its folder of the experiment, the largest first."""
    paths = [local_path(dataset) for dataset in experiment.catalog(1).values()]
    folders = {parent for path in paths if path for parent in path.parents if parent.name.startswith("experiment=")}
    sizes = {
        folder.parent.name: sum(entry.lstat().st_size for entry in folder.rglob("*") if not entry.is_dir())
        for folder in folders
    }
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def readable_bytes(number: int) -> str:
    """1536 is "1.5 kB", in powers of 1024 as `du -h` counts."""
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
