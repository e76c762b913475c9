"""What a table must be before it is written and after it is read: its schema's columns, types, no nulls, no NaN.

The rules here hold for every table; the rules of one table are in `conf/base/expectations/<table>.json`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from kedro.io import DatasetError

PARTITIONS: Mapping[str, pa.DataType] = {"experiment": pa.string(), "round": pa.int64()}
"""Columns that live in the path (`experiment=<name>/round=<rrrr>/`) and not in the file."""

_ANY_LIST = pa.list_(pa.float64())

NUM_NAMED_ROWS = 5
"""Rows an error names, so that it stays readable."""


def path_partitions(path: Path) -> dict[str, str | int]:
    """Partition values in a path, e.g. {"experiment": "paced", "round": 3}; other folders are ignored."""
    found: dict[str, str | int] = {}
    for segment in path.parent.parts:
        name, separator, value = segment.partition("=")
        if separator and name in PARTITIONS:
            found[name] = int(value) if name == "round" else value
    return found


def arrow_tables(
    data: pd.DataFrame | pa.Table | pa.RecordBatchReader, schema: pa.Schema, *, name: str
) -> Iterator[pa.Table]:
    """The data as one Arrow table, or as one per batch of a reader, of which only one is in memory at a time.

    Raises:
        DatasetError: another type, or a pandas column of mixed types.
    """
    if isinstance(data, pd.DataFrame):
        list_columns = {field.name for field in schema if pa.types.is_list(field.type)}
        columns = [_from_pandas(column, label in list_columns, name=name) for label, column in data.items()]
        yield pa.table(columns, names=[str(label) for label in data])
    elif isinstance(data, pa.Table):
        yield data
    elif isinstance(data, pa.RecordBatchReader):
        yield data.schema.empty_table()  # a reader without batches still has its columns checked
        for batch in data:
            yield pa.Table.from_batches([batch])
    else:
        raise DatasetError(
            f"table {name}: got {type(data).__name__}; allowed are pandas.DataFrame, pyarrow.Table and "
            "pyarrow.RecordBatchReader"
        )


def _from_pandas(column: pd.Series, is_list: bool, *, name: str) -> pa.Array | pa.ChunkedArray:
    # Rows of one list column may hold Python lists and arrays of several types. Arrow refuses such a mix unless told a
    # type, and told an integer type it cuts 1.5 to 1; float64 holds every token id and float32, and the cast back in
    # `conform` refuses what is not a whole number.
    try:
        return pa.array(column, type=_ANY_LIST if is_list else None, from_pandas=True)
    except pa.ArrowException as error:
        raise DatasetError(f"table {name}: column {column.name} mixes types or has a wrong one: {error}") from error


def drop_partitions(table: pa.Table, partitions: Mapping[str, str | int], *, name: str) -> pa.Table:
    """The table without the columns that its path already says.

    Raises:
        DatasetError: such a column holds anything but the path's value.
    """
    for column, value in partitions.items():
        if column not in table.column_names:
            continue
        values = set(pc.unique(table.column(column)).to_pylist())
        if not values <= {value}:
            raise DatasetError(
                f"table {name}: column {column} holds {sorted(map(str, values))[:NUM_NAMED_ROWS]}, but the path it is "
                f"saved to says {value!r}; drop the column or set it to {value!r}"
            )
        table = table.drop_columns([column])
    return table


def conform(table: pa.Table, schema: pa.Schema, *, name: str, first_row: int = 0) -> pa.Table:
    """The table with exactly the columns and types of `schema`, in its order.

    A cast changes neither a value nor a kind: 1.5 does not become 1, and 1 does not become "1". Floats must be finite,
    alone and in lists: NaN is written as null, and only where the schema allows one.

    Args:
        table: columns in any order.
        schema: one of `paced_rl.schemas`.
        name: of the table, for errors.
        first_row: number of the table's first row in the whole stream, for errors.

    Raises:
        DatasetError: names the table, the column, what was got and the first rows concerned.
    """
    got, wanted = table.column_names, schema.names
    if sorted(got) != sorted(wanted):
        missing = [column for column in wanted if column not in got]
        unexpected = sorted({column for column in got if column not in wanted or got.count(column) > 1})
        raise DatasetError(
            f"table {name}: missing columns {missing}, unexpected or repeated columns {unexpected}; "
            f"its schema has {wanted}"
        )
    columns = []
    for field in schema:
        column = _cast(table.column(field.name), field, name=name)
        _check_values(column, field, name=name, first_row=first_row)
        columns.append(column)
    return pa.table(columns, schema=schema)


def _cast(column: pa.ChunkedArray, field: pa.Field, *, name: str) -> pa.ChunkedArray:
    if column.type == field.type:
        return column
    if not _is_same_kind(column.type, field.type):
        raise DatasetError(f"table {name}: column {field.name} is {column.type}; its schema says {field.type}")
    try:
        return column.cast(field.type, safe=True)
    except pa.ArrowInvalid as error:
        raise DatasetError(
            f"table {name}: column {field.name} cannot become {field.type} without loss: {error}"
        ) from error


def _is_same_kind(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether a cast keeps the meaning: number to number, text to text, list to list; nulls fit everything."""
    if pa.types.is_dictionary(source):
        source = source.value_type
    if pa.types.is_null(source):
        return True
    if pa.types.is_list(target):
        is_list = pa.types.is_list(source) or pa.types.is_large_list(source) or pa.types.is_fixed_size_list(source)
        return is_list and _is_same_kind(source.value_type, target.value_type)
    if pa.types.is_string(target):
        return pa.types.is_string(source) or pa.types.is_large_string(source) or pa.types.is_string_view(source)
    return pa.types.is_integer(source) or pa.types.is_floating(source)


def _check_values(column: pa.ChunkedArray, field: pa.Field, *, name: str, first_row: int) -> None:
    """Refuses nulls where the schema has none, nulls inside lists, and floats that are not finite."""
    bad_rows: dict[str, list[int]] = {}
    # Chunk by chunk: `indices_nonzero` of an array with no chunk at all, which is what an empty table holds, kills the
    # process (https://github.com/apache/arrow/issues/51018), and joined chunks may be more than 2³¹ list values.
    for chunk in column.chunks:
        for problem, rows in _bad_rows(chunk, field).items():
            bad_rows.setdefault(problem, []).extend(first_row + row for row in rows)
        first_row += len(chunk)
    for problem, rows in bad_rows.items():
        if rows:
            shown = rows[:NUM_NAMED_ROWS]
            raise DatasetError(
                f"table {name}: column {field.name} {problem} in {len(rows)} rows, first in rows {shown}"
            )


def _bad_rows(chunk: pa.Array, field: pa.Field) -> dict[str, list[int]]:
    """Problem → rows of the chunk that have it."""
    found: dict[str, list[int]] = {}
    if not field.nullable and chunk.null_count:
        found["is null or NaN"] = pc.indices_nonzero(pc.is_null(chunk)).to_pylist()
    if pa.types.is_floating(field.type):
        is_finite = pc.is_finite(chunk)
        if is_finite.false_count:
            found["is infinite or NaN"] = pc.indices_nonzero(pc.invert(is_finite)).to_pylist()
    if pa.types.is_list(field.type):
        values = pc.list_flatten(chunk)
        is_floating = pa.types.is_floating(values.type)
        is_good = pc.fill_null(pc.is_finite(values), False) if is_floating else pc.is_valid(values)
        if is_good.false_count:
            rows = pc.filter(pc.list_parent_indices(chunk), pc.invert(is_good))
            found["holds a value that is null, infinite or NaN"] = pc.unique(rows).to_pylist()
    return found
