"""Fingerprints of what nodes read and write: files by their bytes, parameters by their value."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from pydantic import BaseModel

LIBRARIES = ("torch", "transformers", "peft", "vllm", "numpy", "pyarrow", "reasoning_gym")
"""Distributions whose versions change numbers; one that is not installed has the version "absent"."""

_SETTLED_NANOSECONDS = 50_000_000
"""Kernels stamp files by a clock of up to 10 ms, so that a file can change twice under one stamp. A digest is kept only
when the stamp was older than this before hashing; a younger file is hashed again at the next question."""

_HIDDEN_PREFIXES = (".", "_")
"""Files inside a folder that are no data, by the convention that Arrow follows too."""


@functools.cache
def installed_versions() -> Mapping[str, str]:
    """Versions of Python and of `LIBRARIES` in this environment."""
    versions = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = "absent"
    return versions


def local_path(dataset: AbstractDataset | None) -> Path | None:
    """The file or folder of a dataset; None if it is in memory, remote, versioned by Kedro, or no file at all."""
    # Kedro's datasets have no common public name for their path; these are the attributes that they share.
    if getattr(dataset, "_version", None) is not None or getattr(dataset, "_protocol", "file") != "file":
        return None
    path = getattr(dataset, "_filepath", None) or getattr(dataset, "filepath", None)
    return None if path is None else Path(path)


class FileDigests:
    """Hashes a file once for as long as its stamp (size, modification time, inode) stays the same."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def digest(self, path: Path) -> str | None:
        """SHA-256 of a file's bytes, or of the names and digests in a folder; None if there is nothing at `path`."""
        if path.is_dir():
            listing = [f"{file.relative_to(path).as_posix()} {self.digest(file)}" for file in _visible_files(path)]
            return hashlib.sha256("\n".join(listing).encode()).hexdigest()
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
        known_stamp, known_digest = self._known.get(path, (None, ""))
        if known_stamp == stamp:
            return known_digest
        is_settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NANOSECONDS
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if is_settled:
            self._known[path] = (stamp, digest)
        return digest


def _visible_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(_HIDDEN_PREFIXES) for part in path.relative_to(folder).parts):
            yield path


_DIGESTS = FileDigests()


def file_fingerprint(path: Path) -> str | None:
    """`FileDigests.digest` by the digests of this process."""
    return _DIGESTS.digest(path)


def canonical_json(value: Any) -> str:
    """One text for equal values, whether Kedro hands them over as mappings or as pydantic models or dataclasses.

    Raises:
        TypeError: a value that JSON cannot say, with its type.
    """
    return json.dumps(value, default=_to_json, sort_keys=True, ensure_ascii=False)


def _to_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Path | date):
        return str(value)
    raise TypeError(
        f"a parameter holds a {type(value).__name__} ({value!r}); allowed are JSON values, paths, dates, dataclasses "
        "and pydantic models: write it in one of these forms"
    )
