"""Comparisons of tables and checkpoints, by differences that were put in by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from paced_rl.inspection.compare import compare_bytes, compare_checkpoints, compare_datasets, compare_tables

ROWS: dict[str, Any] = {
    "rollout_id": ["a", "b", "c"],
    "num_tokens": [1, 2, 3],
    "reward": [1.0, None, 100.0],
    "log_probs": [[-1.0, -2.0], [], [-0.5]],
    "token_ids": [[1, 2], [], [3]],
}


def table(path: Path, **changes: Any) -> Path:
    pq.write_table(pa.table({**ROWS, **changes}), path)
    return path


def test_equal_bytes_are_identical(tmp_path: Path) -> None:
    found = compare_tables("x", table(tmp_path / "a"), table(tmp_path / "b"), tolerance=0)
    assert (found.verdict, found.detail) == ("identical", "")


def test_equal_rows_in_other_bytes_are_close(tmp_path: Path) -> None:
    pq.write_table(pa.table(ROWS), tmp_path / "b", compression="gzip")
    found = compare_tables("x", table(tmp_path / "a"), tmp_path / "b", tolerance=0)
    assert (found.verdict, found.detail) == ("close", "the same rows in other bytes")


@pytest.mark.parametrize(
    ("changes", "tolerance", "verdict", "detail"),
    [
        ({"reward": [1.0, None, 100.005]}, 1e-4, "close", "largest difference 0.005 in reward"),
        (
            {"reward": [1.0, None, 100.005]},
            1e-5,
            "different",
            "1 of 3 rows differ, in reward; largest difference 0.005 in reward",
        ),
        ({"reward": [1.0, 0.0, 100.0]}, 1e-4, "different", "1 of 3 rows differ, in reward"),
        ({"num_tokens": [1, 2, 4]}, 10, "different", "1 of 3 rows differ, in num_tokens"),
        ({"rollout_id": ["a", "b", "C"]}, 10, "different", "1 of 3 rows differ, in rollout_id"),
        ({"token_ids": [[1, 2], [9], [4]]}, 10, "different", "2 of 3 rows differ, in token_ids"),
        ({"log_probs": [[-1.0], [], [-0.5]]}, 10, "different", "1 of 3 rows differ, in log_probs"),
        ({"log_probs": [[-1.0, -2.0], None, [-0.5]]}, 10, "different", "1 of 3 rows differ, in log_probs"),
        ({"log_probs": [[-1.0, -2.5], [], [-0.5]]}, 1, "close", "largest difference 0.5 in log_probs"),
        (
            {"log_probs": [[-1.0, -2.5], [], [-0.5]], "num_tokens": [1, 2, 4]},
            0.1,
            "different",
            "2 of 3 rows differ, in num_tokens, log_probs; largest difference 0.5 in log_probs",
        ),
    ],
)
def test_differences_are_counted_by_row_and_column(
    tmp_path: Path, changes: dict[str, Any], tolerance: float, verdict: str, detail: str
) -> None:
    found = compare_tables("x", table(tmp_path / "a"), table(tmp_path / "b", **changes), tolerance=tolerance)
    assert (found.verdict, found.detail) == (verdict, detail)


def test_lists_that_both_lack_are_equal(tmp_path: Path) -> None:
    lists = [None, None, [-0.5]]
    first = table(tmp_path / "a", log_probs=lists)
    second = table(tmp_path / "b", log_probs=lists, num_tokens=[1, 2, 4])
    found = compare_tables("x", first, second, tolerance=0)
    assert found.detail == "1 of 3 rows differ, in num_tokens"


def test_other_rows_and_other_columns_are_different(tmp_path: Path) -> None:
    first = table(tmp_path / "a")
    pq.write_table(pa.table(ROWS).slice(0, 2), tmp_path / "fewer")
    pq.write_table(pa.table(ROWS).drop_columns(["reward"]), tmp_path / "narrower")
    assert compare_tables("x", first, tmp_path / "fewer", tolerance=1).detail == "3 rows against 2"
    assert "reward" in compare_tables("x", first, tmp_path / "narrower", tolerance=1).detail


@given(
    rows=st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=8),
    tolerance=st.sampled_from([0.0, 0.5, 3.0]),
)
def test_the_number_of_differing_rows_is_that_of_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, float]], tolerance: float
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    for name, values in zip("ab", zip(*rows, strict=True), strict=True):
        pq.write_table(pa.table({"value": pa.array(values, pa.float64())}), folder / name)
    expected = sum(abs(a - b) > tolerance * max(1.0, abs(a)) for a, b in rows)

    found = compare_tables("x", folder / "a", folder / "b", tolerance=tolerance)
    assert (found.verdict == "different") == (expected > 0)
    if expected:
        assert found.detail.startswith(f"{expected} of {len(rows)} rows differ, in value")


def checkpoint(folder: Path, tensors: dict[str, np.ndarray], *, config: str = "{}", version: int = 1) -> Path:
    import hashlib

    (folder / "content").mkdir(parents=True)
    save_file(tensors, folder / "content" / "model.safetensors")
    (folder / "content" / "config.json").write_text(config)
    files = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
        for path in sorted((folder / "content").iterdir())
    }
    manifest = folder / "policy.json"
    manifest.write_text(json.dumps({"folder": "content", "files": files, "metadata": {"policy_version": version}}))
    return manifest


WEIGHTS = {"w": np.array([1.0, 2.0], dtype=np.float32), "b": np.array([0.0], dtype=np.float32)}


def test_weights_are_compared_tensor_by_tensor(tmp_path: Path) -> None:
    first = checkpoint(tmp_path / "a", WEIGHTS)
    near = checkpoint(tmp_path / "b", {**WEIGHTS, "w": np.array([1.0, 2.5], dtype=np.float32)})

    assert compare_checkpoints("policy", first, checkpoint(tmp_path / "c", WEIGHTS), tolerance=0).verdict == "identical"
    close = compare_checkpoints("policy", first, near, tolerance=0.25)
    assert (close.verdict, close.detail) == ("close", "largest difference 0.5 in w")
    far = compare_checkpoints("policy", first, near, tolerance=0.2)
    assert far.verdict == "different"
    assert far.detail == "1 of 2 changed tensors are beyond; largest difference 0.5 in w"
    unread = compare_checkpoints("policy", first, near, tolerance=None)
    assert (unread.verdict, unread.detail) == ("different", "its model.safetensors")


def test_checkpoints_of_other_shapes_files_or_metadata_are_different(tmp_path: Path) -> None:
    first = checkpoint(tmp_path / "a", WEIGHTS)
    shape = checkpoint(tmp_path / "b", {**WEIGHTS, "w": np.ones(3, dtype=np.float32)})
    config = checkpoint(tmp_path / "c", WEIGHTS, config='{"hidden_size": 8}')
    version = checkpoint(tmp_path / "d", WEIGHTS, version=2)
    fewer = checkpoint(tmp_path / "e", {"w": WEIGHTS["w"]})
    for other, expected in (
        (shape, "inf in w"),
        (config, "config.json"),
        (version, "policy_version"),
        (fewer, "inf in b"),
    ):
        found = compare_checkpoints("policy", first, other, tolerance=100.0)
        assert found.verdict == "different"
        assert expected in found.detail


def test_weights_that_are_gone_are_still_told_apart_by_their_digests(tmp_path: Path) -> None:
    first = checkpoint(tmp_path / "a", WEIGHTS)
    same, other = checkpoint(tmp_path / "b", WEIGHTS), checkpoint(tmp_path / "c", {"w": WEIGHTS["b"]})
    (tmp_path / "a" / "content" / "model.safetensors").unlink()
    assert compare_checkpoints("policy", first, same, tolerance=0.1).verdict == "identical"
    assert "weights are gone" in compare_checkpoints("policy", first, other, tolerance=0.1).detail


def test_any_other_file_is_compared_by_bytes(tmp_path: Path) -> None:
    for name, text in {"a": "1", "b": "1", "c": "2"}.items():
        (tmp_path / name).write_text(text)
    assert compare_bytes("x", tmp_path / "a", tmp_path / "b").verdict == "identical"
    assert compare_bytes("x", tmp_path / "a", tmp_path / "c").verdict == "different"


def test_a_dataset_that_only_one_has_is_a_difference_and_one_that_none_has_is_nothing(tmp_path: Path) -> None:
    from paced_rl.datasets.parquet_table import ParquetTable

    datasets = [ParquetTable(filepath=str(tmp_path / name / "verdicts.parquet"), schema="verdicts") for name in "ab"]
    assert compare_datasets("verdicts", *datasets, tolerance=0) is None
    (tmp_path / "b").mkdir()
    table(tmp_path / "b" / "verdicts.parquet")
    found = compare_datasets("verdicts", *datasets, tolerance=0)
    assert found is not None
    assert found.verdict == "different"
    assert f"there is no {tmp_path / 'a'}" in found.detail
