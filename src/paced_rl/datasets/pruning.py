"""Weights of a checkpoint that were deleted on purpose, which is something else than weights that are lost.

Beside the manifest `policy.json` a marker, `.policy.pruned.json`, names the folder that was deleted. As long as the
manifest names it too, the checkpoint counts as there: the round that wrote it stays up to date. Weights that are gone
without a marker are missing, and what writes them runs again.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from paced_rl.atomic import write_atomically
from paced_rl.datasets.table_contract import path_partitions

_DIGEST = re.compile(r"[0-9a-f]{16}")


def prune(manifest: Path) -> int:
    """Deletes the weights of a checkpoint and leaves the marker; the manifest stays.

    Nothing is done where there is nothing to delete, or where the manifest points anywhere but into its own folder of
    contents: a user's policy, a download, another round's checkpoint.

    Args:
        manifest: path of the manifest.

    Returns:
        Bytes of the deleted files.
    """
    folder = _own_folder(manifest)
    if folder is None or not folder.is_dir():
        return 0
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    text = json.dumps({"folder": folder.name}) + "\n"
    # First: a crash in the middle leaves a checkpoint that is called pruned, and is deleted to the end the next time.
    write_atomically(_marker(manifest), lambda path: path.write_text(text, encoding="utf-8"))
    shutil.rmtree(folder)
    return size


def is_pruned(manifest: Path) -> bool:
    """Whether the weights that the manifest names were deleted by `prune`, and not lost or replaced since."""
    folder, marked = _own_folder(manifest), _read(_marker(manifest))
    return folder is not None and marked.get("folder") == folder.name


def forget_pruning(manifest: Path) -> None:
    """Removes the marker: pruned weights count as missing from now on, so that what writes them runs again."""
    _marker(manifest).unlink(missing_ok=True)


def has_weights(manifest: Path) -> bool:
    """Whether a manifest is there with all of its files; their contents are not looked at."""
    content = _read(manifest)
    return "folder" in content and all(
        (manifest.parent / content["folder"] / name).is_file() for name in content.get("files", {})
    )


def how_to_restore(manifest: Path) -> str:
    """The command that makes pruned weights again, from the nearest earlier round that still has its own.

    Args:
        manifest: of a round, `…/experiment=<name>/round=<rrrr>/<name>.json`.
    """
    partitions = path_partitions(manifest)
    experiment, number = partitions.get("experiment"), partitions.get("round")
    if not isinstance(number, int) or experiment is None:
        return "Run what writes it again"
    # Training a round takes all the checkpoints of the round before.
    layer, names = manifest.parents[3], sorted(path.name for path in manifest.parents[3].iterdir() if path.is_dir())
    for kept in range(number - 1, -1, -1):
        folders = [layer / name / f"experiment={experiment}" / f"round={kept:04d}" for name in names]
        manifests = [folder / f"{folder.parents[1].name}.json" for folder in folders if folder.is_dir()]
        if manifests and all(map(has_weights, manifests)):
            return (
                f"The nearest earlier round that has its weights is {kept}; from there make them again, byte for byte, "
                f"with `kedro paced train --experiment {experiment} --from-round {kept + 1} --rounds {number} "
                "--restore` and the --env and --params that these rounds were run with"
            )
    return f"No earlier round has its weights: run `kedro paced train --experiment {experiment} --rounds {number}`"


def _marker(manifest: Path) -> Path:
    return manifest.with_name(f".{manifest.stem}.pruned.json")


def _own_folder(manifest: Path) -> Path | None:
    """The folder of contents that a manifest names, None where it is not the manifest's own."""
    named = _read(manifest).get("folder")
    if not isinstance(named, str):
        return None
    folder = Path(os.path.normpath(manifest.absolute().parent / named))
    is_own = folder.parent == manifest.absolute().with_suffix("") and _DIGEST.fullmatch(folder.name)
    return folder if is_own else None


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
