"""One table of one round as a Parquet file: checked against its schema, replaced whole, equal bytes for equal rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from paced_rl.atomic import write_atomically
from paced_rl.datasets.table_cache import is_small, read_table
from paced_rl.datasets.table_contract import PARTITIONS, arrow_tables, conform, drop_partitions, path_partitions
from paced_rl.schemas import TABLES

ROW_GROUP_ROWS = 8192
"""Rows per row group, whatever the chunks they arrive in: that makes the bytes a function of the rows alone, and bounds
what a streamed save holds in memory (8192 embeddings of 4096 float32 are 134 MB)."""

MAX_PREVIEW_CHARACTERS = 200
MAX_PREVIEW_VALUES = 4
"""A longer text or list is cut in Kedro-Viz."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReader:
    """A table on disk that is read batch by batch; what a streaming `ParquetTable` loads."""

    path: Path

    @property
    def schema(self) -> pa.Schema:
        """Columns of the file, without the partition columns of its path."""
        return pq.read_schema(self.path)

    @property
    def num_rows(self) -> int:
        return pq.read_metadata(self.path).num_rows

    def batches(self, columns: Sequence[str] | None = None, batch_size: int = 1024) -> Iterator[pa.RecordBatch]:
        """Reads the file from the start.

        Args:
            columns: names; None takes all.
            batch_size: rows per batch at most.
        """
        names = None if columns is None else list(columns)
        if is_small(self.path):
            table = read_table(self.path)
            yield from (table if names is None else table.select(names)).to_batches(max_chunksize=batch_size)
            return
        with pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(batch_size=batch_size, columns=names)


class ParquetTable(AbstractDataset[pd.DataFrame | pa.Table | pa.RecordBatchReader, pd.DataFrame | TableReader]):
    """A table of `paced_rl.schemas` in one local Parquet file.

    The columns `experiment` and `round` are read from the path (`experiment=<name>/round=<rrrr>/`): loading adds them,
    saving drops them after checking that they agree with the path.
    """

    def __init__(
        self, *, filepath: str, schema: str, streaming: bool = False, metadata: dict[str, Any] | None = None
    ) -> None:
        """
        Args:
            filepath: the Parquet file.
            schema: the table's name in `paced_rl.schemas.TABLES`.
            streaming: load a `TableReader` instead of a DataFrame. Saving takes both kinds of data either way.
            metadata: read by Kedro-Viz (layer, preview_args).

        Raises:
            DatasetError: there is no such table.
        """
        if schema not in TABLES:
            raise DatasetError(f"no table is called {schema!r}; allowed are {sorted(TABLES)}")
        self._filepath = Path(filepath)
        self._table = schema
        self._schema = TABLES[schema]
        self._streaming = streaming
        self.metadata = metadata

    def save(self, data: pd.DataFrame | pa.Table | pa.RecordBatchReader) -> None:
        """Writes the table; on any error the file is what it was before.

        Raises:
            DatasetError: the data breaks the table's schema, or contradicts the path.
        """
        write_atomically(self._filepath, lambda path: self._write(path, data))

    def load(self) -> pd.DataFrame | TableReader:
        """The table as a DataFrame (list columns hold NumPy arrays) or, when streaming, a `TableReader`.

        Raises:
            DatasetError: the file is missing, or is not of the table's schema.
        """
        if self._streaming:
            if not self._exists():
                raise DatasetError(f"table {self._table}: there is no file {self._filepath}")
            return TableReader(path=self._filepath)
        # Under pandas' copy-on-write a shallow copy shares the values until somebody writes, and arrays in cells, which
        # are views of Arrow's memory, cannot be written.
        return read_table(self._filepath, self._table, self._frame).copy(deep=False)

    def preview(self, nrows: int = 5) -> TablePreview:
        """The first rows for Kedro-Viz, with long texts and lists cut."""
        rows: list[dict[str, Any]] = []
        for batch in TableReader(path=self._filepath).batches(batch_size=nrows):
            rows = batch.to_pylist()
            break
        return TablePreview(
            {
                "index": list(range(len(rows))),
                "columns": self._schema.names,
                "data": [[_short(row[name]) for name in self._schema.names] for row in rows],
            }
        )

    def _frame(self, table: pa.Table) -> pd.DataFrame:
        table = conform(table, self._schema, name=self._table)
        for name, value in path_partitions(self._filepath).items():
            table = table.append_column(name, pa.array([value] * table.num_rows, type=PARTITIONS[name]))
        return table.to_pandas(use_threads=not is_small(self._filepath))

    def _write(self, path: Path, data: pd.DataFrame | pa.Table | pa.RecordBatchReader) -> None:
        with pq.ParquetWriter(path, self._schema, compression="zstd") as writer:
            for group in _row_groups(self._conforming(data)):
                writer.write_table(group)

    def _conforming(self, data: pd.DataFrame | pa.Table | pa.RecordBatchReader) -> Iterator[pa.Table]:
        partitions = path_partitions(self._filepath)
        num_rows = 0
        for table in arrow_tables(data, self._schema, name=self._table):
            without = drop_partitions(table, partitions, name=self._table)
            yield conform(without, self._schema, name=self._table, first_row=num_rows)
            num_rows += table.num_rows

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "schema": self._table, "streaming": self._streaming}


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of `ROW_GROUP_ROWS` rows and a rest, each in one chunk."""
    pending: list[pa.Table] = []
    num_pending = 0
    for table in tables:
        pending.append(table)
        num_pending += table.num_rows
        if num_pending < ROW_GROUP_ROWS:
            continue
        joined = pa.concat_tables(pending)
        num_full = num_pending - num_pending % ROW_GROUP_ROWS
        for start in range(0, num_full, ROW_GROUP_ROWS):
            yield joined.slice(start, ROW_GROUP_ROWS).combine_chunks()
        pending = [joined.slice(num_full)]
        num_pending -= num_full
    if num_pending:
        yield pa.concat_tables(pending).combine_chunks()


def _short(value: object) -> object:
    """A cell as Kedro-Viz shows it."""
    if isinstance(value, list) and len(value) > MAX_PREVIEW_VALUES:
        shown = ", ".join(str(x) for x in value[:MAX_PREVIEW_VALUES])
        return f"[{shown}, … {len(value)} values]"
    if isinstance(value, str) and len(value) > MAX_PREVIEW_CHARACTERS:
        return value[:MAX_PREVIEW_CHARACTERS] + "…"
    return value
