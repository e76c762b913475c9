"""JSON Lines and Parquet files become the same rows."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paced_rl.datasets.prompt_files import PromptFileReadError, read_rows
from paced_rl.prompts import prompts_from_rows

ROWS = [
    {"prompt": "3 4>12:", "reference_answer": "3*4", "verifier_arguments": {"numbers": [3, 4], "target": 12}},
    {"prompt": "é\u2028²", "reference_answer": "", "verifier_arguments": {"numbers": [1, 2], "target": 3}},
]
JSON_LINES = (
    '{"prompt": "3 4>12:", "reference_answer": "3*4", "verifier_arguments": {"numbers": [3, 4], "target": 12}}\n'
    '{"prompt": "é\u2028²", "reference_answer": "", "verifier_arguments": {"numbers": [1, 2], "target": 3}}\n'
)


def test_both_formats_give_the_same_rows_and_prompts(tmp_path: Path) -> None:
    folder = tmp_path / "split=test"  # a folder that looks like a partition adds no column
    folder.mkdir()
    (folder / "a.jsonl").write_text(JSON_LINES, encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
    assert read_rows(folder / "a.jsonl") == read_rows(folder / "a.parquet") == ROWS
    prompts = prompts_from_rows(
        read_rows(folder / "a.parquet"),
        source="a.parquet",
        default_verifier="arithmetic",
        num_audit=0,
        num_validation=1,
        num_test=0,
        seed=0,
    )
    assert sorted(prompt.split for prompt in prompts) == ["train", "validation"]


@pytest.mark.parametrize("content", ["\ufeff" + JSON_LINES, JSON_LINES.rstrip("\n"), JSON_LINES.replace("\n", "\r\n")])
def test_byte_order_marks_and_line_ends_do_not_matter(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content.encode())
    assert read_rows(path) == ROWS


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert read_rows(tmp_path / "a.jsonl") == []


def test_malformed_lines_are_listed_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n\n[1]\n"\xff"\n' + b"x\n" * 5)
    with pytest.raises(PromptFileReadError) as caught:
        read_rows(path)
    message = str(caught.value)
    assert "9 malformed lines, the first 5" in message
    assert "line 2: Expecting value" in message
    assert "line 3: Expecting value" in message
    assert "line 4: must be a JSON object; got list" in message
    assert "line 5: 'utf-8' codec" in message
    assert "line 1:" not in message
    assert "line 7:" not in message


def test_a_file_that_is_missing_foreign_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptFileReadError, match=r"a\.jsonl does not exist \(looked at /"):
        read_rows(tmp_path / "a.jsonl")
    with pytest.raises(PromptFileReadError, match=r"must end in one of \('\.jsonl', '\.parquet'\); got '\.csv'"):
        read_rows(tmp_path / "a.csv")
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(PromptFileReadError, match=r"a\.parquet cannot be read as Parquet"):
        read_rows(tmp_path / "a.parquet")
