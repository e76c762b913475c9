"""A checkpoint: large files in a folder named by their content, and a small manifest that says which folder counts.

The manifest is the dataset. It is replaced last, so a crash at any moment leaves a manifest whose files are whole;
folders it no longer names are deleted after that. Weights that were pruned on purpose still count, because the manifest
says what the round produced (`paced_rl.datasets.pruning`).
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from kedro.utils import find_kedro_project
from kedro_datasets._typing import JSONPreview

from paced_rl.atomic import fill_folder, move_into_place, staging_folder, write_atomically
from paced_rl.datasets.pruning import forget_pruning, how_to_restore, is_pruned
from paced_rl.types import Checkpoint, CheckpointFiles

_DIGEST_DIGITS = 16
_OWN_FOLDER = re.compile(
    rf"[0-9a-f]{{{_DIGEST_DIGITS}}}|\.[0-9a-f]{{{_DIGEST_DIGITS}}}\.old-\d+|\.checkpoint\.staging-\d+"
)


class CheckpointDataset(AbstractDataset[CheckpointFiles | Checkpoint, Checkpoint]):
    """A manifest in JSON, and the folder of versions it points into.

    The manifest holds `folder` (relative to the manifest within the Kedro project, absolute outside of it), `files`
    (name → sha256 and size in bytes) and `metadata`; equal content gives an equal manifest.
    """

    def __init__(self, *, filepath: str, folder: str | None = None, metadata: dict[str, Any] | None = None) -> None:
        """
        Args:
            filepath: the manifest.
            folder: where files go, each content in a subfolder named by its digest; relative to the project, and used
                by no other manifest, because a save deletes superseded subfolders. None takes the manifest's path
                without its suffix.
            metadata: read by Kedro-Viz.
        """
        self._filepath = Path(filepath).absolute()
        project: Path | None = find_kedro_project(self._filepath.parent)
        self._project = project or self._filepath.parent
        self._folder = self._filepath.with_suffix("") if folder is None else (project or Path.cwd()) / folder
        self.metadata = metadata

    def save(self, data: CheckpointFiles | Checkpoint) -> None:
        """Writes the files, unless they are on disk already, then the manifest, then deletes superseded files.

        Raises:
            DatasetError: a file name leaves the folder, or a file of a `Checkpoint` is not there.
            OSError: the disk is full; the checkpoint saved before is untouched and still loads.
        """
        checkpoint = self._write_files(data) if isinstance(data, CheckpointFiles) else data
        missing = [name for name in checkpoint.files if not (checkpoint.folder / name).is_file()]
        if missing:
            raise DatasetError(f"checkpoint {checkpoint.folder} has no files {missing}; nothing was saved")
        manifest = _to_json(self._manifest(checkpoint))
        write_atomically(self._filepath, lambda path: path.write_text(manifest, encoding="utf-8"))
        forget_pruning(self._filepath)
        self._delete_superseded(keep=checkpoint.folder)

    def load(self) -> Checkpoint:
        """The checkpoint, after a look at every file's size; contents are not hashed again.

        Raises:
            DatasetError: there is no manifest, it is not one, or files are pruned, gone or have another size.
        """
        manifest = self._read_manifest()
        folder = Path(os.path.normpath(self._filepath.parent / manifest["folder"]))
        problems = []
        for name, entry in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                problems.append(f"{name} is missing")
            elif path.stat().st_size != entry["size"]:
                problems.append(f"{name} has {path.stat().st_size} bytes and not {entry['size']}")
        if problems and is_pruned(self._filepath):
            raise DatasetError(
                f"the weights of checkpoint {self._filepath} ({manifest['metadata']}) were pruned to save space "
                f"(`retention` in the parameters). {how_to_restore(self._filepath)}"
            )
        if problems:
            raise DatasetError(
                f"the files of checkpoint {self._filepath} ({manifest['metadata']}) are gone or were changed: "
                f"{'; '.join(problems)} in {folder}. Put them back, or run the round that writes it again"
            )
        files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        return Checkpoint(folder=folder, files=files, metadata=manifest["metadata"])

    def preview(self) -> JSONPreview:
        """The manifest for Kedro-Viz."""
        return JSONPreview(json.dumps(self._read_manifest()))

    def _write_files(self, data: CheckpointFiles) -> Checkpoint:
        for name in data.files:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise DatasetError(f"checkpoint file name {name!r} leaves its folder; use a relative name without '..'")
        staging = staging_folder(self._folder / "checkpoint")
        try:
            fill_folder(staging, lambda folder: write_files(folder, data.files), target=self._folder)
            files = {name: _sha256(staging / name) for name in sorted(data.files)}
            folder = self._folder / _digest(files)
            if not _holds(folder, files):
                move_into_place(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return Checkpoint(folder=folder, files=files, metadata=data.metadata)

    def _manifest(self, checkpoint: Checkpoint) -> dict[str, Any]:
        folder = Path(os.path.normpath(checkpoint.folder.absolute()))
        is_inside = folder.is_relative_to(self._project)
        # A relative folder lets a project be moved or copied with its checkpoints.
        shown = Path(os.path.relpath(folder, self._filepath.parent)) if is_inside else folder
        return {
            "folder": shown.as_posix(),
            "files": {
                name: {"sha256": sha256, "size": (folder / name).stat().st_size}
                for name, sha256 in checkpoint.files.items()
            },
            "metadata": dict(checkpoint.metadata),
        }

    def _read_manifest(self) -> dict[str, Any]:
        try:
            manifest = json.loads(self._filepath.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DatasetError(f"there is no checkpoint manifest {self._filepath}") from error
        except json.JSONDecodeError as error:
            raise DatasetError(f"checkpoint manifest {self._filepath} is not JSON: {error}") from error
        if not isinstance(manifest, dict) or not {"folder", "files", "metadata"} <= manifest.keys():
            raise DatasetError(f"checkpoint manifest {self._filepath} lacks folder, files or metadata")
        return manifest

    def _delete_superseded(self, *, keep: Path) -> None:
        """Deletes the versions, and what dead processes left of them; any other folder is somebody else's."""
        if not self._folder.is_dir():
            return
        kept = keep.resolve()
        for path in self._folder.resolve().iterdir():
            if _OWN_FOLDER.fullmatch(path.name) and not kept.is_relative_to(path):
                shutil.rmtree(path, ignore_errors=True)

    def _exists(self) -> bool:
        """Whether the manifest is there and its files are what it says, or were pruned.

        Only a file that is younger than the manifest is hashed again.
        """
        if not self._filepath.is_file():
            return False
        try:
            manifest = self._read_manifest()
        except DatasetError:  # damaged by something else, and as good as absent: what writes it runs again
            return False
        folder = Path(os.path.normpath(self._filepath.parent / manifest["folder"]))
        written = self._filepath.stat().st_mtime_ns
        for name, entry in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                if is_pruned(self._filepath):
                    continue
                return False
            status = path.stat()
            is_younger = max(status.st_mtime_ns, status.st_ctime_ns) > written
            if status.st_size != entry["size"] or (is_younger and _sha256(path) != entry["sha256"]):
                return False
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "folder": str(self._folder)}


def write_files(folder: Path, files: Mapping[str, Any]) -> None:
    """Writes each file of `CheckpointFiles.files` into `folder`, without any guarantee of its own."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, Path):
            shutil.copyfile(content, path)
        elif isinstance(content, Mapping):
            _write_tensors(path, content)
        else:
            raise DatasetError(
                f"checkpoint file {name} is {type(content).__name__}; allowed are bytes, Path and a dict of tensors"
            )


def _write_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ordered = {name: tensors[name].detach().contiguous() for name in sorted(tensors)}
    try:
        save_file(ordered, path, metadata={"format": "pt"})  # the metadata without which transformers refuses a file
    except SafetensorError as error:
        # The writer is Rust: the number of a system error is only in its text.
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error)) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(files: Mapping[str, str]) -> str:
    """One name for a set of files: the first digits of the sha256 over their names and contents."""
    return hashlib.sha256(_to_json(dict(files)).encode()).hexdigest()[:_DIGEST_DIGITS]


def _holds(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether every file is in the folder with the right content."""
    return folder.is_dir() and all(
        (folder / name).is_file() and _sha256(folder / name) == sha256 for name, sha256 in files.items()
    )


def _to_json(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
