"""Branches of an experiment: a new one that shares the first rounds of an old one.

Tables, manifests and records are copied, weights are hard links to the old experiment's: folders of contents are never
changed in place, so either experiment can delete its weights without the other noticing. All shared rounds are up to
date in the new experiment, because nothing that decides it knows the experiment's name.
"""

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from paced_rl.atomic import remove_leftovers, temporary_file, write_atomically
from paced_rl.datasets.pruning import has_weights, how_to_restore, is_pruned
from paced_rl.retention import manifests

logger = logging.getLogger(__name__)

_CONTENT_FOLDER = re.compile(r"[0-9a-f]{16}")
_STATE_TABLES = ("05_model_input/replay_buffer", "05_model_input/outcome_history", "08_reporting/learning_curve")
"""What a round hands to the next beside its checkpoints."""
_LEFTOVER = re.compile(r".*\.(tmp|staging|old)-\d+")
"""What a killed process leaves of files it had not finished."""
_REPORTS = ("counterfactual",)
"""Folders of what commands say of all rounds of an experiment, which is not true of a branch."""


class ForkError(ValueError):
    """An experiment cannot be branched off as asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Where an experiment comes from."""

    forked_from: str
    """The other experiment."""
    first_round: int
    """The first round of its own; the earlier ones are shared."""
    is_complete: bool = True
    """False while files are being copied."""


def read_fork(project: Path, experiment: str) -> Fork | None:
    """Where an experiment was branched off; None if it was not."""
    try:
        return Fork(**json.loads(_fork_file(project, experiment).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def fork_experiment(project: Path, *, old: str, new: str, first_round: int) -> None:
    """Makes a new experiment with the rounds of an old one before `first_round`.

    A fork that was interrupted goes on when it is repeated. The caller holds the locks of both experiments.

    Args:
        project: the project's root.
        old: name of the experiment to branch.
        new: name of the branch; nothing on disk may have it.
        first_round: 1 or more, the branch's first own round.

    Raises:
        ForkError: the names are equal, the branch is there already, or the round before is missing or pruned.
    """
    fork = Fork(forked_from=old, first_round=first_round, is_complete=False)
    _check(project, old=old, new=new, first_round=first_round, is_resumed=read_fork(project, new) == fork)
    _write(_fork_file(project, new), fork)
    contents: list[tuple[Path, Path]] = []
    others: list[tuple[Path, Path]] = []
    for source in _shared_files(project / "data", old, first_round):
        target = Path(*(f"experiment={new}" if part == f"experiment={old}" else part for part in source.parts))
        is_content = any(map(_CONTENT_FOLDER.fullmatch, source.parts))
        (contents if is_content else others).append((project / "data" / source, project / "data" / target))
    # Manifests last: files that are younger than their manifest are suspect, and hashed at every look.
    linked = [_link(source, target) for source, target in contents]
    for source, target in others:
        _copy(source, target)
    os.sync()  # before the fork is called complete
    _write(_fork_file(project, new), Fork(forked_from=old, first_round=first_round))
    logger.info(
        "Experiment '%s' shares the rounds before %d of '%s': %d files linked, %d copied",
        new,
        first_round,
        old,
        sum(linked),
        len(contents) - sum(linked) + len(others),
    )
    if not all(linked):
        logger.warning("%d files of weights were copied: the file system has no hard links", linked.count(False))


def _check(project: Path, *, old: str, new: str, first_round: int, is_resumed: bool) -> None:
    if old == new:
        raise ForkError(f"--fork-of {old} with --experiment {new}: give the new experiment a name of its own")
    if not is_resumed and (found := next(_folders(project / "data", new), None)):
        raise ForkError(
            f"experiment '{new}' is there already ({found}): choose another name, or go on with it by "
            f"`kedro paced train --experiment {new}` without --fork-of"
        )
    for manifest in manifests(project, old, first_round - 1):
        if is_pruned(manifest):
            raise ForkError(
                f"a branch at round {first_round} starts from round {first_round - 1} of '{old}', whose weights were "
                f"pruned. {how_to_restore(manifest)}; or branch at another round"
            )
        if not has_weights(manifest):
            raise ForkError(
                f"a branch at round {first_round} starts from round {first_round - 1} of '{old}', of which {manifest} "
                f"or its weights are missing: run `{_how_to_run(old, first_round - 1)}`"
            )
    for table in _STATE_TABLES:
        folder = project / "data" / table / f"experiment={old}" / f"round={first_round - 1:04d}"
        if not (folder / f"{Path(table).name}.parquet").is_file():
            raise ForkError(
                f"a branch at round {first_round} starts from round {first_round - 1} of '{old}', which has not "
                f"finished ({Path(table).name} is missing): run `{_how_to_run(old, first_round - 1)}`"
            )


def _how_to_run(experiment: str, round_number: int) -> str:
    if round_number == 0:
        return f"kedro run --pipelines=data_preparation,start --params experiment={experiment}"
    return f"kedro paced train --experiment {experiment} --rounds {round_number}"


def _fork_file(project: Path, experiment: str) -> Path:
    return project / "data" / ".forks" / f"experiment={experiment}.json"


def _write(path: Path, fork: Fork) -> None:
    text = json.dumps(asdict(fork), indent=1) + "\n"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def _folders(data: Path, experiment: str) -> Iterator[Path]:
    """Every folder of an experiment, one per dataset."""
    yield from sorted(data.glob(f"*/*/experiment={experiment}"))


def _shared_files(data: Path, experiment: str, first_round: int) -> Iterator[Path]:
    """The files, relative to `data`, of an experiment: of no round, or of a round before the branch's first own one."""
    for folder in _folders(data, experiment):
        if folder.parent.name in _REPORTS:
            continue
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            name, _, number = parts[0].partition("=")
            is_shared = name != "round" or int(number) < first_round
            if is_shared and path.is_file() and not any(map(_LEFTOVER.fullmatch, parts)):
                yield path.relative_to(data)


def _link(source: Path, target: Path) -> bool:
    """Makes `target` another name of the file; where the file system cannot, a copy. Whether it is a link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.unlink(missing_ok=True)
        os.link(source, target)
    except OSError as error:
        # Another file system, or one without hard links, or with too many of them.
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        _copy(source, target)
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    # Unlike `write_atomically` it does not wait for the disk, which takes a hundred times as long as the copy.
    temporary = temporary_file(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(temporary)
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
