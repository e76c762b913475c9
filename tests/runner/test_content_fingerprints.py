"""Digests of files and folders follow their bytes; parameters have one text whatever form they come in."""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.io import MemoryDataset, Version
from kedro_datasets.json import JSONDataset
from pydantic import BaseModel

from paced_rl.runner.content_fingerprints import FileDigests, canonical_json, installed_versions, local_path

LONG_AGO = 1_000_000_000


class Inner(BaseModel):
    rate: float = 0.5


class Outer(BaseModel):
    size: int = 2
    inner: Inner = Inner()


@dataclass(frozen=True)
class Plain:
    size: int
    inner: Inner


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=10,
)


@given(value=st.dictionaries(st.text(), JSON_VALUES))
def test_the_order_of_keys_does_not_count(value: dict) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


def test_models_dataclasses_and_mappings_have_one_text() -> None:
    expected = canonical_json({"inner": {"rate": 0.5}, "size": 2})
    assert canonical_json(Outer()) == expected
    assert canonical_json(Plain(size=2, inner=Inner())) == expected
    assert canonical_json({"a": [Outer()]}) == f'{{"a": [{expected}]}}'
    assert canonical_json(Outer(size=3)) != expected


def test_a_value_that_json_cannot_say_is_named() -> None:
    with pytest.raises(TypeError, match="holds a complex"):
        canonical_json({"a": 1j})


def test_a_file_has_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert FileDigests().digest(path) == hashlib.sha256(b"abc").hexdigest()
    assert FileDigests().digest(tmp_path / "none") is None
    assert FileDigests().digest(path / "below a file") is None


def test_an_edit_within_one_tick_of_the_clock_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a")
    stamp = time.time_ns() + 10**9  # not in the past, so that something may still be written under it
    digests = FileDigests()
    for content in (b"a", b"b"):
        with path.open("r+b") as file:
            file.write(content)
        os.utime(path, ns=(stamp, stamp))
        assert digests.digest(path) == hashlib.sha256(content).hexdigest()


def test_a_settled_file_is_hashed_once(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    os.utime(path, (LONG_AGO, LONG_AGO))
    digests = FileDigests()
    first = digests.digest(path)
    # Other bytes under the same size, time and inode: only a digest that is remembered can still be the first one.
    with path.open("r+b") as file:
        file.write(b"xyz")
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert digests.digest(path) == first
    os.utime(path, (LONG_AGO + 1, LONG_AGO + 1))
    assert digests.digest(path) == hashlib.sha256(b"xyz").hexdigest()


def test_a_folder_follows_names_and_contents_and_not_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("1")
    before = FileDigests().digest(tmp_path)
    (tmp_path / ".node.record.json").write_text("{}")
    assert FileDigests().digest(tmp_path) == before
    (tmp_path / "sub" / "a").rename(tmp_path / "sub" / "b")
    renamed = FileDigests().digest(tmp_path)
    (tmp_path / "sub" / "b").write_text("2")
    assert len({before, renamed, FileDigests().digest(tmp_path)}) == 3


def test_only_plain_local_files_have_a_path(tmp_path: Path) -> None:
    path = (tmp_path / "a.json").as_posix()
    assert local_path(JSONDataset(filepath=path)) == Path(path)
    assert local_path(JSONDataset(filepath=path, version=Version(None, None))) is None
    assert local_path(JSONDataset(filepath="memory://a.json")) is None
    assert local_path(MemoryDataset(1)) is None
    assert local_path(None) is None


def test_versions_name_what_is_not_installed() -> None:
    versions = installed_versions()
    assert versions.keys() == {"python", "torch", "transformers", "peft", "vllm", "numpy", "pyarrow", "reasoning_gym"}
    assert versions["numpy"].count(".") == 2
