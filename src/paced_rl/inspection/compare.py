"""Two files that should hold the same: tables by rows and columns, checkpoints by tensors, anything else by bytes."""

import filecmp
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

IDENTICAL, CLOSE, DIFFERENT = "identical", "close", "different"

_MAX_NAMES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came out of comparing two versions of one dataset."""

    name: str
    verdict: str
    """`identical` in every byte, or every weight; `close` in floats, equal in all else; or `different`."""
    detail: str = ""
    """One line; empty where identical."""


def compare_datasets(name: str, first: Any, second: Any, *, tolerance: float | None) -> Comparison | None:
    """Compares two catalog entries of one kind; None where neither has been written.

    Args:
        name: for the result.
        first: the dataset that is taken as right.
        second: the other one.
        tolerance: see `compare_checkpoints`; None is 0 for tables.
    """
    from paced_rl.datasets.checkpoint import CheckpointDataset
    from paced_rl.datasets.parquet_table import ParquetTable
    from paced_rl.runner.content_fingerprints import local_path

    paths = [local_path(dataset) for dataset in (first, second)]
    if None in paths:
        raise TypeError(f"{name} is no local file: only local files can be compared")
    ours, theirs = (path for path in paths if path is not None)
    if not ours.is_file() and not theirs.is_file():
        return None
    if not ours.is_file() or not theirs.is_file():
        return Comparison(name=name, verdict=DIFFERENT, detail=f"there is no {ours if theirs.is_file() else theirs}")
    if isinstance(first, ParquetTable):
        return compare_tables(name, ours, theirs, tolerance=tolerance or 0.0)
    if isinstance(first, CheckpointDataset):
        return compare_checkpoints(name, ours, theirs, tolerance=tolerance)
    return compare_bytes(name, ours, theirs)


def compare_tables(name: str, first: Path, second: Path, *, tolerance: float) -> Comparison:
    """Two Parquet files, row by row in their order.

    Two floats count as close when abs(a − b) ≤ tolerance · max(1, abs(a)); everything else must be equal.

    Args:
        name: of the dataset.
        first: the file that is taken as right.
        second: the other one.
        tolerance: 0 counts every bit.
    """
    import pyarrow.parquet as pq

    if filecmp.cmp(first, second, shallow=False):
        return Comparison(name=name, verdict=IDENTICAL)
    with pq.ParquetFile(first) as one, pq.ParquetFile(second) as other:
        ours, theirs = one.read(), other.read()
    if ours.schema != theirs.schema:
        columns = sorted(set(map(str, ours.schema)) ^ set(map(str, theirs.schema)))
        return Comparison(name=name, verdict=DIFFERENT, detail=f"its columns: {_listed(columns)}")
    if ours.num_rows != theirs.num_rows:
        return Comparison(name=name, verdict=DIFFERENT, detail=f"{ours.num_rows} rows against {theirs.num_rows}")
    return _compare_rows(name, ours, theirs, tolerance)


def _compare_rows(name: str, first: "pa.Table", second: "pa.Table", tolerance: float) -> Comparison:
    is_differing = np.zeros(first.num_rows, dtype=bool)
    columns: list[str] = []
    largest, where = 0.0, ""
    for column in first.column_names:
        rows, gap = _differing_rows(first[column], second[column], tolerance)
        is_differing |= rows
        if rows.any():
            columns.append(column)
        if gap > largest:
            largest, where = gap, column
    gap_text = f"largest difference {largest:.2g} in {where}" if largest else ""
    if not columns:
        return Comparison(name=name, verdict=CLOSE, detail=gap_text or "the same rows in other bytes")
    text = f"{is_differing.sum()} of {first.num_rows} rows differ, in {_listed(columns)}"
    return Comparison(name=name, verdict=DIFFERENT, detail=f"{text}; {gap_text}" if gap_text else text)


def _differing_rows(first: "pa.ChunkedArray", second: "pa.ChunkedArray", tolerance: float) -> tuple[np.ndarray, float]:
    """Mask of the rows that differ by more than is tolerated [num_rows], and the largest difference of two floats."""
    import pyarrow as pa

    is_list = pa.types.is_list(first.type)
    if not pa.types.is_floating(first.type.value_type if is_list else first.type):
        pairs = zip(first.to_pylist(), second.to_pylist(), strict=True)
        return np.fromiter((a != b for a, b in pairs), dtype=bool, count=len(first)), 0.0
    if not is_list:
        ours, theirs = (column.to_numpy().astype(np.float64) for column in (first, second))
        return _differing_floats(ours, theirs, tolerance)
    rows = np.zeros(len(first), dtype=bool)
    largest = 0.0
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        ours, theirs = (np.asarray(cell.values if cell.is_valid else (), dtype=np.float64) for cell in (a, b))
        if a.is_valid != b.is_valid or len(ours) != len(theirs):
            rows[i] = True
        else:
            is_differing, gap = _differing_floats(ours, theirs, tolerance)
            rows[i], largest = is_differing.any(), max(largest, gap)
    return rows, largest


def _differing_floats(first: np.ndarray, second: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
    """A null is NaN here, equal to a null and to nothing else."""
    gap = np.abs(first - second)
    is_differing = gap > tolerance * np.maximum(1.0, np.abs(first))
    is_differing |= np.isnan(first) != np.isnan(second)
    return is_differing, float(np.nanmax(gap)) if np.isfinite(gap).any() else 0.0


def compare_checkpoints(name: str, first: Path, second: Path, *, tolerance: float | None) -> Comparison:
    """Two manifests and the files they name.

    Args:
        name: of the dataset.
        first: the manifest that is taken as right.
        second: the other one.
        tolerance: as in `compare_tables`, per number of a tensor; None reads no weights, the digests decide.
    """
    ours, theirs = (json.loads(path.read_text("utf-8")) for path in (first, second))
    other_metadata = sorted(
        key
        for key in {**ours["metadata"], **theirs["metadata"]}
        if ours["metadata"].get(key) != theirs["metadata"].get(key)
    )
    digests = [{file: entry["sha256"] for file, entry in manifest["files"].items()} for manifest in (ours, theirs)]
    files = sorted(file for file in {*digests[0], *digests[1]} if digests[0].get(file) != digests[1].get(file))
    if not files and not other_metadata:
        return Comparison(name=name, verdict=IDENTICAL)
    tensors = files and all(file.endswith(".safetensors") for file in files) and digests[0].keys() == digests[1].keys()
    if tolerance is None or other_metadata or not tensors:
        return Comparison(name=name, verdict=DIFFERENT, detail=f"its {_listed([*files, *other_metadata])}")
    folders = [
        Path(os.path.normpath(path.parent / manifest["folder"])) for path, manifest in ((first, ours), (second, theirs))
    ]
    if not all((folder / file).is_file() for folder in folders for file in files):
        detail = f"its {_listed(files)}; by how much nobody can say, because the weights are gone"
        return Comparison(name=name, verdict=DIFFERENT, detail=detail)
    gaps = dict(gap for file in files for gap in _tensor_gaps(*(folder / file for folder in folders)))
    return _compare_tensors(name, gaps, tolerance)


def _compare_tensors(name: str, gaps: Mapping[str, tuple[float, float]], tolerance: float) -> Comparison:
    where = max(gaps, key=lambda tensor: gaps[tensor][0])
    beyond = sum(1 for _, relative in gaps.values() if not relative <= tolerance)
    detail = f"largest difference {gaps[where][0]:.2g} in {where}"
    if beyond:
        return Comparison(
            name=name, verdict=DIFFERENT, detail=f"{beyond} of {len(gaps)} changed tensors are beyond; {detail}"
        )
    return Comparison(name=name, verdict=CLOSE, detail=detail)


def _tensor_gaps(first: Path, second: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    """Tensor → largest absolute difference, and the largest one over max(1, abs(a)); infinite for other shapes."""
    from safetensors import safe_open

    with safe_open(first, framework="pt") as ours, safe_open(second, framework="pt") as theirs:
        names = {*ours.keys(), *theirs.keys()}
        for name in sorted(names):
            if name not in ours.keys() or name not in theirs.keys():  # noqa: SIM118 - not a mapping
                yield name, (float("inf"), float("inf"))
                continue
            a, b = ours.get_tensor(name).double(), theirs.get_tensor(name).double()
            if a.shape != b.shape:
                yield name, (float("inf"), float("inf"))
            elif a.numel():
                gap = (a - b).abs()
                yield name, (float(gap.max()), float((gap / a.abs().clamp(min=1.0)).max()))


def compare_bytes(name: str, first: Path, second: Path) -> Comparison:
    """Two files of any kind."""
    if filecmp.cmp(first, second, shallow=False):
        return Comparison(name=name, verdict=IDENTICAL)
    return Comparison(name=name, verdict=DIFFERENT, detail="its bytes")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
