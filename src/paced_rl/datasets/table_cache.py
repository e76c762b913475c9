"""Small tables in memory for as long as their files are what they were: several nodes of a round read the same."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, overload

import pyarrow as pa
import pyarrow.parquet as pq

MAX_FILE_BYTES = 4 * 1024**2
"""A larger file is read anew each time, so that a round's memory does not grow with its tables."""
MAX_TABLE_BYTES = 8 * 1024**2
"""In memory; a small file may hold a large table."""
MAX_TABLES = 24

View = TypeVar("View")
_Identity = tuple[int, int, int, int]
_tables: OrderedDict[tuple[Path, str], tuple[_Identity, Any]] = OrderedDict()


def is_small(path: Path) -> bool:
    """Whether the file may be kept; reading such a file takes less time than starting threads for it."""
    return path.stat().st_size <= MAX_FILE_BYTES


@overload
def read_table(path: Path) -> pa.Table: ...


@overload
def read_table(path: Path, view: str, finish: Callable[[pa.Table], View]) -> View: ...


def read_table(path: Path, view: str = "", finish: Callable[[pa.Table], Any] | None = None) -> Any:
    """The whole file. A small one is read once per process and version: inode, size and times tell versions apart.

    Args:
        path: of the file.
        view: name of what `finish` makes of the file; the same name must stand for the same function of file and path.
        finish: applied to the table before it is kept; what it returns is given to several callers, so that none of
            them may change it.

    Raises:
        FileNotFoundError, pyarrow.ArrowInvalid: there is no such file, or it is no Parquet.
    """
    key = (path.absolute(), view)
    identity = _identity(path)
    known = _tables.get(key)
    if known is not None and known[0] == identity:
        _tables.move_to_end(key)
        return known[1]
    small = is_small(path)
    with pq.ParquetFile(path) as file:
        table = file.read(use_threads=not small)
    result = table if finish is None else finish(table)
    _tables.pop(key, None)
    # What was read while somebody replaced the file may be of either version.
    if small and table.nbytes <= MAX_TABLE_BYTES and _identity(path) == identity:
        _tables[key] = (identity, result)
        if len(_tables) > MAX_TABLES:
            _tables.popitem(last=False)
    return result


def _identity(path: Path) -> _Identity:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
