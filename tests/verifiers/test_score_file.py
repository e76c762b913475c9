"""Scoring a file, as a function and as a command."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from paced_rl.commands.score import score
from paced_rl.verifiers.score_file import score_file

LIMITS: dict[str, Any] = {"timeout_seconds": 5.0, "memory_bytes": 2 * 1024**3}
GOOD = '{"completion": "3*8", "numbers": [3, 8], "target": 24, "id": 7, "note": "\\u00e9\\ud800"}'


def _write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_lines_are_repeated_in_order_with_the_verdict_added(tmp_path: Path) -> None:
    source = _write(
        tmp_path / "in.jsonl",
        GOOD,
        '{"target": 24, "numbers": [3, 8], "completion": "8 + 3"}',
        '{"completion": "", "numbers": [1], "target": 1}',
    )
    counts = score_file("arithmetic", source, tmp_path / "out.jsonl", **LIMITS)
    assert counts == {"right": 1, "wrong": 1, "unparseable": 1}
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all(row.pop("seconds") >= 0 for row in rows)
    assert rows == [
        {**json.loads(GOOD), "status": "right", "reward": 1.0, "extracted_answer": "3*8"},
        {
            "target": 24,
            "numbers": [3, 8],
            "completion": "8 + 3",
            "status": "wrong",
            "reward": 0.0,
            "extracted_answer": "3+8",
        },
        {
            "completion": "",
            "numbers": [1],
            "target": 1,
            "status": "unparseable",
            "reward": 0.0,
            "extracted_answer": None,
        },
    ]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.jsonl", "out.jsonl"]


def test_a_last_line_without_a_newline_counts_and_the_output_may_replace_the_input(tmp_path: Path) -> None:
    path = tmp_path / "both.jsonl"
    path.write_text(GOOD + "\n" + GOOD)
    assert score_file("arithmetic", path, path, **LIMITS) == {"right": 2}
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"completion": 3, "numbers": [3, 8], "target": 24}',
        '{"completion": "3*8", "numbers": [3, 8]}',
        '{"completion": "3*8", "numbers": [3, "8"], "target": 24}',
        '{"completion": "3*8", "numbers": [3, 8], "target": NaN}',
        '{"completion": "3*8", "numbers": [3, 8], "target": ' + "9" * 5000 + "}",
        '{"completion": "3*8", "numbers": [3, 8], "target": 24, "reward": 1}',
        "[" * 100_000,
        "\udcff",
    ],
    ids=range(13),
)
def test_a_malformed_line_is_named_and_nothing_is_written(tmp_path: Path, bad: str) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(f"{GOOD}\n{bad}\n{GOOD}\n".encode("utf-8", errors="surrogateescape"))
    output.write_text("kept")
    with pytest.raises(ValueError, match=r"in.jsonl, line 2: "):
        score_file("arithmetic", source, output, **LIMITS)
    assert output.read_text() == "kept"
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_file_is_a_malformed_first_line(tmp_path: Path) -> None:
    source = _write(tmp_path / "in.jsonl")
    with pytest.raises(ValueError, match="line 1"):
        score_file("arithmetic", source, tmp_path / "out.jsonl", **LIMITS)


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    source, output = _write(tmp_path / "in.jsonl", GOOD), tmp_path / "folder"
    output.mkdir()
    with pytest.raises(OSError, match="folder"):
        score_file("arithmetic", source, output, **LIMITS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "in.jsonl"]


def test_the_command_scores_and_sums_up(tmp_path: Path) -> None:
    source, output = _write(tmp_path / "in.jsonl", GOOD, GOOD), tmp_path / "out.jsonl"
    arguments = ["--verifier", "arithmetic", "--input", str(source), "--output", str(output)]
    result = CliRunner().invoke(score, arguments)
    assert result.exit_code == 0, result.output
    assert "2 completions scored: 2 right" in result.output
    assert len(output.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("verifier", "options", "message"),
    [
        ("aritmetic", [], "Did you mean arithmetic"),
        ("arithmetic", ["--timeout-seconds", "-1"], "timeout_seconds"),
        ("reasoning_gym", [], "line 1"),
    ],
)
def test_the_command_fails_with_one_message(tmp_path: Path, verifier: str, options: list[str], message: str) -> None:
    source, output = _write(tmp_path / "in.jsonl", GOOD), tmp_path / "out.jsonl"
    arguments = ["--verifier", verifier, "--input", str(source), "--output", str(output), *options]
    result = CliRunner().invoke(score, arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not output.exists()
