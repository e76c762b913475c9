"""Files and folders that are replaced as a whole: after a crash at any moment the old or the new content is there.

The new content is written beside its target under a name that begins with a dot (Arrow, and so pandas, skips such files
when it reads a folder), flushed to the disk, and renamed, which POSIX makes atomic within one file system.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NO_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, writer: Callable[[Path], object]) -> None:
    """Replaces the file `path` by what `writer` writes.

    Args:
        path: the file; missing parent folders are made.
        writer: is called once with the path of a temporary sibling, which it must write.

    Raises:
        OSError: the disk or the quota is full; `path` is what it was before. Any other error of `writer` is passed on,
            again with `path` untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with explain_full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            writer(temporary)
            _flush(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush(path.parent)


def write_folder_atomically(folder: Path, writer: Callable[[Path], object]) -> None:
    """Replaces `folder` by what `writer` puts into an empty staging folder.

    Between the two renames of a replacement a crash leaves the old content under `.<name>.old-<pid>`; whoever must
    never miss a folder gives every content a name of its own, as `CheckpointDataset` does.

    Args:
        folder: missing parent folders are made.
        writer: is called once with the staging folder `.<name>.staging-<pid>`, a sibling of `folder`.

    Raises:
        OSError: the disk or the quota is full; `folder` is what it was before.
    """
    staging = staging_folder(folder)
    try:
        fill_folder(staging, writer, target=folder)
        move_into_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def staging_folder(folder: Path) -> Path:
    """The sibling in which this process prepares `folder`."""
    return folder.with_name(f".{folder.name}.staging-{os.getpid()}")


def fill_folder(staging: Path, writer: Callable[[Path], object], *, target: Path) -> None:
    """Makes `staging` afresh, lets `writer` fill it, and flushes every file in it; the caller removes it on failure."""
    with explain_full_disk(target):
        if staging.exists():
            shutil.rmtree(staging)  # left by a dead process that had our process id
        staging.mkdir(parents=True)
        writer(staging)
        for path in (*sorted(staging.rglob("*")), staging):
            _flush(path)


def move_into_place(staging: Path, folder: Path) -> None:
    """Renames `staging` to `folder`; an existing folder is moved aside first and deleted last."""
    aside = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    if folder.exists():
        if aside.exists():
            shutil.rmtree(aside)
        folder.rename(aside)
    try:
        staging.rename(folder)
    except OSError:
        if aside.exists():
            aside.rename(folder)
        raise
    _flush(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turns "no space" and "over quota" into an error that says what is safe and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE_ERRORS:
            raise
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        limit = "quota reached" if error.errno == errno.EDQUOT else "no space left on device"
        raise OSError(
            error.errno,
            f"{limit} while writing {path}: {shutil.disk_usage(existing).free} bytes free; "
            "what was there before is untouched; free space and run the same command again",
        ) from error


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
