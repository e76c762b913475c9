"""Files and folders that are replaced as a whole: after a crash at any moment the old or the new content is there.

The new content is written beside its target under a name that begins with a dot (Arrow, and so pandas, skips such files
when it reads a folder), flushed to the disk, and renamed, which POSIX makes atomic within one file system. The name
ends with the number of the process, so that what a killed process has left is known, and deleted by the next writer.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

_LIMITS = {
    errno.ENOSPC: "no space left on device",
    errno.EDQUOT: "quota reached",
    errno.EFBIG: "file too large for the limit of this process (`ulimit -f`)",
}
"""System errors that say that there is no room, in words."""


def write_atomically(path: Path, writer: Callable[[Path], object]) -> None:
    """Replaces the file `path` by what `writer` writes; when it returns, the new content is on the disk.

    Args:
        path: the file; missing parent folders are made.
        writer: is called once with the path of a temporary sibling, which it must write.

    Raises:
        OSError: there is no room for it; `path` is what it was before. Any other error of `writer` is passed on, again
            with `path` untouched.
    """
    temporary = temporary_file(path)
    try:
        with explain_full_disk(path):
            make_folder(path.parent)
            remove_leftovers(temporary)
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
        OSError: there is no room for it; `folder` is what it was before.
    """
    staging = staging_folder(folder)
    try:
        fill_folder(staging, writer, target=folder)
        move_into_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def temporary_file(path: Path) -> Path:
    """The sibling in which this process prepares the file `path`."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def staging_folder(folder: Path) -> Path:
    """The sibling in which this process prepares `folder`."""
    return folder.with_name(f".{folder.name}.staging-{os.getpid()}")


def fill_folder(staging: Path, writer: Callable[[Path], object], *, target: Path) -> None:
    """Makes `staging` afresh, lets `writer` fill it, and flushes every file in it; the caller removes it on failure."""
    with explain_full_disk(target):
        remove_leftovers(staging)
        if staging.exists():
            shutil.rmtree(staging)  # left by a dead process that had our process id
        make_folder(staging)
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
    remove_leftovers(aside)


def remove_leftovers(temporary: Path) -> None:
    """Deletes the siblings named like `temporary` but for the process number at its end, if that process is gone.

    A process on another machine that shares the folder counts as gone: two of them must not write one file at once.
    """
    if not temporary.parent.is_dir():
        return
    prefix = f"{temporary.name.rpartition('-')[0]}-"
    for sibling in temporary.parent.iterdir():
        number = sibling.name.removeprefix(prefix)
        if sibling.name.startswith(prefix) and number.isdecimal() and not _is_running(int(number)):
            if sibling.is_dir():
                shutil.rmtree(sibling, ignore_errors=True)
            else:
                sibling.unlink(missing_ok=True)


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turns the system's errors about room into one that says which file, what is safe, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _LIMITS:
            raise
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        remedy = "raise the limit" if error.errno == errno.EFBIG else "free space"
        raise OSError(
            error.errno,
            f"{_LIMITS[error.errno]} while writing {path}: {shutil.disk_usage(existing).free} bytes free; "
            f"what was there before is untouched; {remedy} and run the same command again",
        ) from error


def make_folder(folder: Path) -> None:
    """Makes `folder` and its missing parents, and waits until their names are on the disk."""
    missing = list(takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _flush(path.parent)


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
