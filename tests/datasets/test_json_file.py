from pathlib import Path

import pytest
from kedro.io import DatasetError

from paced_rl.datasets.json_file import JsonFile


def test_equal_content_gives_equal_bytes_and_comes_back(tmp_path: Path) -> None:
    first, second = (JsonFile(filepath=str(tmp_path / name / "file.json")) for name in "ab")
    assert not first.exists()
    first.save({"b": [1.5, None], "a": {"z": "é", "y": True}})
    second.save({"a": {"y": True, "z": "é"}, "b": [1.5, None]})
    assert first.load() == {"a": {"y": True, "z": "é"}, "b": [1.5, None]}
    assert (tmp_path / "a/file.json").read_bytes() == (tmp_path / "b/file.json").read_bytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file.json"]


def test_what_json_cannot_say_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    dataset = JsonFile(filepath=str(tmp_path / "file.json"))
    dataset.save({"a": 1})
    with pytest.raises(DatasetError, match="not JSON compliant"):
        dataset.save({"a": float("nan")})
    assert dataset.load() == {"a": 1}
