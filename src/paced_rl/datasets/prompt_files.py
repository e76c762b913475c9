"""Reads a user's prompt file, JSON Lines or Parquet, into rows; what the rows must hold is `paced_rl.prompts.files`."""

import json
from pathlib import Path
from typing import Any

SUFFIXES = (".jsonl", ".parquet")
MAX_LISTED = 5


class PromptFileReadError(ValueError):
    """A prompt file is missing, of another format, or damaged."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl or .parquet file, in order; row i of a .jsonl file is its line i.

    Raises:
        PromptFileReadError: no such file, another extension, malformed lines (the first 5 are listed), no Parquet.
    """
    if path.suffix not in SUFFIXES:
        raise PromptFileReadError(f"prompt file {path} must end in one of {SUFFIXES}; got {path.suffix!r}")
    if not path.is_file():
        raise PromptFileReadError(f"prompt file {path} does not exist (looked at {path.absolute()})")
    return _read_parquet(path) if path.suffix == ".parquet" else _read_json_lines(path)


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    rows, problems = [], []
    # Split at line feeds alone: JSON texts may hold other line separators, such as U+2028.
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:  # malformed JSON, or bytes that are not UTF-8
            problems.append(f"line {number}: {error}")
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            problems.append(f"line {number}: must be a JSON object; got {type(row).__name__}")
    if problems:
        listed = "\n  ".join(problems[:MAX_LISTED])
        raise PromptFileReadError(
            f"{path}: {len(problems)} malformed lines, the first {min(len(problems), MAX_LISTED)}:\n  {listed}"
        )
    return rows


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not the dataset reader: that one would add columns from `name=value` folders in the path.
        with pq.ParquetFile(path) as file:
            rows: list[dict[str, Any]] = file.read().to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise PromptFileReadError(f"{path} cannot be read as Parquet: {error}") from error
    return rows
