"""Parquet tables: the schema is kept both ways, bytes depend on rows alone, the path carries experiment and round."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kedro.io import DatasetError
from table_examples import ROWS, example_table

from paced_rl.datasets import parquet_table
from paced_rl.datasets.parquet_table import ParquetTable, TableReader
from paced_rl.schemas import TABLES


def _dataset(folder: Path, table: str, *, experiment: str = "paced", number: int = 3, **kwargs: Any) -> ParquetTable:
    path = folder / f"experiment={experiment}" / f"round={number:04d}" / f"{table}.parquet"
    return ParquetTable(filepath=str(path), schema=table, **kwargs)


def _path(dataset: ParquetTable) -> Path:
    return Path(dataset._describe()["filepath"])


@pytest.mark.parametrize("table", sorted(TABLES))
def test_every_table_round_trips_with_rows_and_without(table: str, tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, table)
    assert not dataset.exists()
    dtypes = []
    for rows in (ROWS[table], []):
        expected = example_table(table, rows)
        dataset.save(expected.to_pandas())
        assert pq.ParquetFile(_path(dataset)).read().equals(expected)
        loaded = dataset.load()
        assert list(loaded["experiment"]) == ["paced"] * len(rows)
        assert list(loaded["round"]) == [3] * len(rows)
        pd.testing.assert_frame_equal(loaded.drop(columns=["experiment", "round"]), expected.to_pandas())
        dtypes.append(loaded.dtypes.to_dict())
        dataset.save(loaded)  # what was loaded can be saved again, partition columns and all
        assert pq.ParquetFile(_path(dataset)).read().equals(expected)
    assert dtypes[0] == dtypes[1]
    assert dtypes[0]["round"] == np.int64
    assert dataset.exists()


def test_what_is_done_to_a_loaded_table_does_not_show_in_the_next_load(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, "prompt_embeddings")
    dataset.save(pd.DataFrame({"embedding": [[1.5, 2.0], [3.0, 4.0]], "split": "train", "prompt_id": ["p0", "p1"]}))
    first = dataset.load()
    assert isinstance(first, pd.DataFrame)
    first["round"] += 1
    first.loc[0, "prompt_id"] = "mine"
    first["more"] = 1
    first.columns = [name.upper() for name in first.columns]
    with pytest.raises(ValueError, match="read-only"):
        first["EMBEDDING"].iloc[0][0] = 9.0
    with pytest.raises(ValueError, match="read-only"):
        first["MORE"].to_numpy()[0] = 2
    second = dataset.load()
    assert isinstance(second, pd.DataFrame)
    assert list(second.columns) == ["prompt_id", "split", "embedding", "experiment", "round"]
    assert second["prompt_id"].to_list() == ["p0", "p1"]
    assert second["round"].to_list() == [3, 3]
    assert [list(x) for x in second["embedding"]] == [[1.5, 2.0], [3.0, 4.0]]


def test_python_lists_arrays_and_any_column_order_are_taken(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, "prompt_embeddings")
    embeddings = [np.array([1.5, 2.0]), [3], np.array([0.25], dtype=np.float32), []]
    ids = ["p0", "p1", "p2", "p3"]
    dataset.save(pd.DataFrame({"embedding": embeddings, "split": "train", "prompt_id": ids}))
    loaded = dataset.load()
    assert list(loaded.columns) == ["prompt_id", "split", "embedding", "experiment", "round"]
    assert [list(x) for x in loaded["embedding"]] == [[1.5, 2.0], [3.0], [0.25], []]
    assert loaded["embedding"][0].dtype == np.float32
    tokens = _dataset(tmp_path, "rollouts")
    tokens.save(_rollouts(completion_token_ids=[np.array([2**31 - 1, 7]), np.array([1, 2], dtype=np.int32)]))
    assert [list(x) for x in tokens.load()["completion_token_ids"]] == [[2**31 - 1, 7], [1, 2]]
    with pytest.raises(DatasetError, match="completion_token_ids cannot become list"):
        tokens.save(_rollouts(completion_token_ids=[[2**31], [1]]))


def _rollouts(**columns: Any) -> pd.DataFrame:
    return example_table("rollouts").to_pandas().assign(**columns)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (_rollouts().drop(columns=["seed"]), r"table rollouts: missing columns \['seed'\]"),
        (_rollouts(extra=1), r"unexpected or repeated columns \['extra'\]"),
        (_rollouts(num_tokens=[3, None]), r"column num_tokens is null or NaN in 1 rows, first in rows \[1\]"),
        (_rollouts(completion=[None, None]), r"column completion is null or NaN in 2 rows, first in rows \[0, 1\]"),
        (_rollouts(sampling_temperature=[np.nan, 1.0]), r"sampling_temperature is null or NaN .* rows \[0\]"),
        (_rollouts(sampling_temperature=[1.0, np.inf]), r"sampling_temperature is infinite or NaN .* rows \[1\]"),
        (_rollouts(num_tokens=[1.5, 2.0]), "column num_tokens cannot become int32 without loss"),
        (_rollouts(num_tokens=[2**40, 2]), "column num_tokens cannot become int32 without loss"),
        (_rollouts(num_tokens=["3", "3"]), "column num_tokens is .*string; its schema says int32"),
        (_rollouts(completion=[1, 2]), "column completion is int64; its schema says string"),
        (_rollouts(completion=[1, "a"]), "column completion mixes types"),
        (_rollouts(sampling_temperature=[True, False]), "sampling_temperature is bool"),
        (_rollouts(completion_token_ids=[[1.5], [2]]), "completion_token_ids cannot become list"),
        (_rollouts(completion_token_ids=[np.array([1.5]), [2]]), "completion_token_ids cannot become list"),
        (_rollouts(completion_token_ids=[["7"], [2]]), "column completion_token_ids mixes types or has a wrong one"),
        (pd.concat([_rollouts(), _rollouts(seed=1)[["seed"]]], axis=1), r"repeated columns \['seed'\]"),
        (_rollouts(completion_token_ids=[3, 4]), "column completion_token_ids mixes types or has a wrong one"),
        (_rollouts(completion_token_ids=[[1], [None]]), r"completion_token_ids holds a value that is null.*\[1\]"),
        (_rollouts(sampler_log_probs=[[-1.0], [-1.0, np.nan]]), r"sampler_log_probs holds a value .*NaN .*\[1\]"),
        (_rollouts(sampler_log_probs=[[], [-np.inf, np.inf]]), r"sampler_log_probs holds a value .* 1 rows.*\[1\]"),
        (_rollouts(sampler_log_probs=[[-1e300], []]), r"sampler_log_probs holds a value .*\[0\]"),
        (_rollouts(sampler_log_probs=[None, [-1.0]]), r"sampler_log_probs is null or NaN .*\[0\]"),
        (_rollouts(round=[3, 4]), r"column round holds \['3', '4'\], but the path it is saved to says 3"),
        (_rollouts(experiment="other"), r"column experiment holds \['other'\].*'paced'"),
    ],
)
def test_what_breaks_the_schema_is_named_and_not_written(frame: pd.DataFrame, message: str, tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, "rollouts")
    dataset.save(_rollouts())
    before = _path(dataset).read_bytes()
    with pytest.raises(DatasetError, match=message):
        dataset.save(frame)
    assert _path(dataset).read_bytes() == before
    assert list(_path(dataset).parent.iterdir()) == [_path(dataset)]


def test_nan_in_an_arrow_table_is_refused_where_a_null_is_allowed(tmp_path: Path) -> None:
    table = example_table("verdicts")
    column = pa.array([1.0, float("nan"), None, None])
    broken = table.set_column(table.schema.get_field_index("reward"), "reward", column)
    with pytest.raises(DatasetError, match=r"reward is infinite or NaN in 1 rows, first in rows \[1\]"):
        _dataset(tmp_path, "verdicts").save(broken)


def test_the_matching_partition_columns_are_dropped_in_any_type(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, "rollouts")
    dataset.save(_rollouts(round=pd.Categorical([3, 3]), experiment=pd.Categorical(["paced", "paced"])))
    assert pq.read_schema(_path(dataset)).names == TABLES["rollouts"].names
    flat = ParquetTable(filepath=str(tmp_path / "corpus.parquet"), schema="starter_corpus")
    flat.save(example_table("starter_corpus"))
    assert list(flat.load().columns) == ["prompt", "completion", "kind"]
    with pytest.raises(DatasetError, match=r"unexpected or repeated columns \['round'\]"):
        flat.save(flat.load().assign(round=1))


def test_a_whole_study_reads_as_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "rollouts"
    for experiment in ("paced", "uniform"):
        for number in (1, 2, 10):
            _dataset(folder, "rollouts", experiment=experiment, number=number).save(example_table("rollouts"))
    (folder / "experiment=paced" / "round=0001" / ".rollouts.parquet.tmp-1").write_bytes(b"left by a killed process")
    study = pd.read_parquet(folder)
    assert len(study) == 12
    assert sorted({(str(e), int(r)) for e, r in zip(study["experiment"], study["round"], strict=True)}) == [
        (experiment, number) for experiment in ("paced", "uniform") for number in (1, 2, 10)
    ]
    assert set(TABLES["rollouts"].names) < set(study.columns)


def test_equal_rows_give_equal_bytes_in_every_form(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, "rollouts")
    table = example_table("rollouts")
    frame = table.to_pandas()
    frame.index = pd.Index(["x", "y"])
    frame.attrs["note"] = "not part of the rows"
    written = set()
    for data in (table, frame, frame[frame.columns[::-1]], table.to_reader(max_chunksize=1), dataset):
        dataset.save(data.load() if data is dataset else data)
        written.add(_path(dataset).read_bytes())
    assert len(written) == 1
    assert set(pq.read_schema(_path(dataset)).metadata or {}) == set()


@given(cuts=st.lists(st.integers(0, 50), max_size=8), rows_per_group=st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_bytes_do_not_depend_on_the_chunks_rows_arrive_in(
    cuts: list[int], rows_per_group: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("chunks")
    rows = [{"prompt_id": f"p{i}", "split": "train", "embedding": [float(i)] * (i % 3)} for i in range(50)]
    whole = example_table("prompt_embeddings", rows)
    edges = [0, *sorted(cuts), 50]
    pieces = [whole.slice(low, high - low) for low, high in pairwise(edges)]
    batches = [batch for piece in pieces for batch in piece.to_batches()]
    dataset = _dataset(folder, "prompt_embeddings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_table, "ROW_GROUP_ROWS", rows_per_group)
        written = set()
        for data in (whole, pa.concat_tables(pieces), pa.RecordBatchReader.from_batches(whole.schema, batches)):
            dataset.save(data)
            written.add(_path(dataset).read_bytes())
    assert len(written) == 1
    assert pq.ParquetFile(_path(dataset)).read().equals(whole)
    assert pq.ParquetFile(_path(dataset)).num_row_groups == -(-50 // rows_per_group)


def test_a_stream_is_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_table, "ROW_GROUP_ROWS", 100)
    schema = TABLES["prompt_embeddings"]
    vector = [0.5] * 1000

    def batches() -> Any:
        for index in range(50):
            rows = [{"prompt_id": f"{index}-{i}", "split": "train", "embedding": vector} for i in range(100)]
            yield pa.RecordBatch.from_pylist(rows, schema=schema)

    dataset = _dataset(tmp_path, "prompt_embeddings", streaming=True)
    peak = 0
    before = pa.total_allocated_bytes()

    def watched() -> Any:
        nonlocal peak
        for batch in batches():
            peak = max(peak, pa.total_allocated_bytes() - before)
            yield batch

    dataset.save(pa.RecordBatchReader.from_batches(schema, watched()))
    whole = 50 * 100 * 1000 * 4
    assert peak < whole / 4
    reader = dataset.load()
    assert isinstance(reader, TableReader)
    assert reader.num_rows == 5000
    assert reader.schema.equals(schema)
    read = list(reader.batches(columns=["prompt_id"], batch_size=64))
    assert max(batch.num_rows for batch in read) == 64
    assert read[0].schema.names == ["prompt_id"]
    assert sum(batch.num_rows for batch in reader.batches()) == 5000


def test_a_bad_batch_late_in_a_stream_keeps_the_old_file(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, "prompt_embeddings")
    good = example_table("prompt_embeddings")
    dataset.save(good)
    rows = [*ROWS["prompt_embeddings"], {"prompt_id": "p9", "split": "train", "embedding": [float("nan")]}]
    bad = example_table("prompt_embeddings", rows)
    with pytest.raises(DatasetError, match=r"embedding holds .* in 1 rows, first in rows \[2\]"):
        dataset.save(bad.to_reader(max_chunksize=1))
    assert pq.ParquetFile(_path(dataset)).read().equals(good)
    wrong = pa.RecordBatchReader.from_batches(pa.schema({"x": pa.int64()}), [])
    with pytest.raises(DatasetError, match="missing columns"):
        dataset.save(wrong)
    dataset.save(pa.RecordBatchReader.from_batches(good.schema, []))
    assert len(dataset.load()) == 0


def test_a_file_of_another_schema_is_refused_and_of_wider_types_is_read(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    dataset = ParquetTable(filepath=str(path), schema="starter_corpus")
    with pytest.raises(DatasetError, match="corpus"):
        dataset.load()
    pq.write_table(pa.table({"prompt": ["a"], "completion": ["b"]}), path)
    with pytest.raises(DatasetError, match=r"table starter_corpus: missing columns \['kind'\]"):
        dataset.load()
    pd.DataFrame({"kind": ["k"], "prompt": ["a"], "completion": ["b"]}).to_parquet(path)
    assert dataset.load().to_dict("records") == [{"prompt": "a", "completion": "b", "kind": "k"}]


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no table is called 'rollout'; allowed are \[.*'rollouts'"):
        ParquetTable(filepath="x.parquet", schema="rollout")
    with pytest.raises(DatasetError, match=r"table rollouts: got list; allowed are pandas\.DataFrame"):
        _dataset(tmp_path, "rollouts").save([1])  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="there is no file"):
        _dataset(tmp_path, "rollouts", streaming=True).load()


def test_a_failing_disk_keeps_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _dataset(tmp_path, "rollouts")
    dataset.save(example_table("rollouts"))
    before = _path(dataset).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DatasetError, match=r"no space left on device while writing .* untouched"):
        dataset.save(example_table("rollouts", []))
    assert _path(dataset).read_bytes() == before


def test_the_preview_is_short_and_of_the_type_kedro_viz_knows(tmp_path: Path) -> None:
    import inspect
    import json

    dataset = _dataset(tmp_path, "verdicts")
    dataset.save(example_table("verdicts"))
    preview = dataset.preview(nrows=3)
    assert inspect.signature(dataset.preview).return_annotation.__name__ == "TablePreview"
    assert preview["columns"] == TABLES["verdicts"].names
    assert preview["index"] == [0, 1, 2]
    assert preview["data"][2] == ["r2", "p0", "arithmetic", "unparseable", 0.0, None]
    long = _dataset(tmp_path, "prompt_embeddings")
    row = {"prompt_id": "p" * 500, "split": "train", "embedding": [0.5] * 64}
    long.save(example_table("prompt_embeddings", [row]))
    (cells,) = long.preview()["data"]
    assert cells[2] == "[0.5, 0.5, 0.5, 0.5, … 64 values]"
    assert len(cells[0]) == 201
    json.dumps([preview, long.preview()], allow_nan=False)
    long.save(example_table("prompt_embeddings", []))
    assert long.preview()["data"] == []
