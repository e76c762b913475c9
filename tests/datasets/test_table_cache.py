"""The memory of small tables: never anything but what the file holds now."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paced_rl.datasets import table_cache
from paced_rl.datasets.parquet_table import TableReader
from paced_rl.datasets.table_cache import read_table


def write(path: Path, values: list[int]) -> Path:
    pq.write_table(pa.table({"value": values, "name": [str(value) for value in values]}), path)
    return path


def test_an_unchanged_file_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [1, 2, 3])
    first = read_table(path)
    assert first["value"].to_pylist() == [1, 2, 3]
    assert read_table(path) is first


def test_a_replaced_file_is_read_again_even_with_the_same_size_and_modification_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [1, 2, 3])
    read_table(path)
    status = path.stat()
    other = write(tmp_path / "b.parquet", [3, 2, 1])
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert other.stat().st_size == status.st_size
    other.replace(path)
    assert read_table(path)["value"].to_pylist() == [3, 2, 1]


def test_a_file_that_is_overwritten_in_place_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [1, 2, 3])
    read_table(path)
    content = write(tmp_path / "b.parquet", [3, 2, 1]).read_bytes()
    path.write_bytes(content)
    assert read_table(path)["value"].to_pylist() == [3, 2, 1]


def test_a_deleted_file_is_missed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [1])
    read_table(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_table(path)


def test_views_of_a_file_are_kept_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [1, 2])
    names = read_table(path, "names", lambda table: table.select(["name"]))
    assert names.column_names == ["name"]
    assert read_table(path).column_names == ["value", "name"]
    assert read_table(path, "names", lambda table: pytest.fail("made again")) is names


def test_no_more_tables_than_allowed_are_kept_and_the_one_used_last_stays(tmp_path: Path) -> None:
    first = write(tmp_path / "first.parquet", [0])
    kept = read_table(first)
    for number in range(table_cache.MAX_TABLES - 1):
        read_table(write(tmp_path / f"{number}.parquet", [number]))
    assert read_table(first) is kept
    for number in range(table_cache.MAX_TABLES):
        read_table(write(tmp_path / f"{number}.parquet", [number]))
    assert read_table(first) is not kept


def test_a_large_file_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [1, 2, 3])
    monkeypatch.setattr(table_cache, "MAX_FILE_BYTES", 10)
    first = read_table(path)
    assert read_table(path) is not first
    assert read_table(path).equals(first)


def test_a_small_file_that_holds_a_large_table_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [1] * 1000)
    monkeypatch.setattr(table_cache, "MAX_TABLE_BYTES", 100)
    assert read_table(path) is not read_table(path)


@pytest.mark.parametrize("columns", [None, ["value"]])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_a_reader_gives_the_same_batches_from_memory_as_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: list[str] | None, batch_size: int
) -> None:
    reader = TableReader(path=write(tmp_path / "a.parquet", list(range(20))))
    from_memory = list(reader.batches(columns, batch_size))
    monkeypatch.setattr(table_cache, "MAX_FILE_BYTES", 10)
    from_file = list(reader.batches(columns, batch_size))
    assert [batch.num_rows for batch in from_memory] == [batch.num_rows for batch in from_file]
    assert from_memory == from_file
