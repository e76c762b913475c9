"""Scores a file of completions with one verifier, line by line."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from paced_rl.atomic import write_atomically
from paced_rl.types import Verdict
from paced_rl.verifiers import get_verifier
from paced_rl.verifiers.protocol import Verifier

ADDED_KEYS = ("status", "reward", "extracted_answer", "seconds")
"""What a line of the output has beside the keys of its input line."""


def score_file(
    verifier: str, input_path: Path, output_path: Path, *, timeout_seconds: float, memory_bytes: int
) -> dict[str, int]:
    """Scores every line of a JSONL file and writes them, in the same order, with the verdict added.

    A line is an object with `completion` (text) and the verifier's own arguments, e.g.
    `{"completion": "3*4+12", "numbers": [3, 4, 12], "target": 24}`; other keys are repeated and not read.
    The output appears whole or not at all, and may replace the input.

    Args:
        verifier: one of `paced_rl.verifiers.VERIFIER_NAMES`.
        input_path: UTF-8, one object per line, no empty lines.
        output_path: overwritten; missing folders are made.
        timeout_seconds: see `get_verifier`.
        memory_bytes: see `get_verifier`.

    Returns:
        The number of lines per status.

    Raises:
        ValueError: an unknown verifier, or a malformed line, with its number, before anything is written.
        OSError: the input cannot be read or the output cannot be written.
    """
    counts: Counter[str] = Counter()
    with closing(get_verifier(verifier, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes)) as judge:
        rows = [
            _read_line(line, f"{input_path}, line {number}", judge)
            for number, line in enumerate(input_path.read_bytes().removesuffix(b"\n").split(b"\n"), start=1)
        ]

        def write(sibling: Path) -> None:
            with sibling.open("w", encoding="ascii") as output:
                for row in rows:
                    start = time.perf_counter()
                    verdict = judge.verify(row["completion"], _arguments(row, judge))
                    counts[verdict.status.value] += 1
                    output.write(_format_line(row, verdict, time.perf_counter() - start))

        write_atomically(output_path, write)
    return dict(counts)


def _arguments(row: Mapping[str, Any], judge: Verifier) -> dict[str, Any]:
    return {name: row[name] for name in judge.argument_names if name in row}


def _format_line(row: Mapping[str, Any], verdict: Verdict, seconds: float) -> str:
    added = (verdict.status.value, verdict.reward, verdict.extracted_answer, round(seconds, 6))
    # ASCII, because a completion may hold lone surrogates, which UTF-8 cannot.
    return json.dumps({**row, **dict(zip(ADDED_KEYS, added, strict=True))}) + "\n"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _read_line(line: bytes, where: str, judge: Verifier) -> dict[str, Any]:
    """One line of the input.

    Raises:
        ValueError: it is not an object with a text `completion` and good arguments; starts with `where`.
    """
    try:
        row = json.loads(line.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not a line of JSON ({error}): {line[:80]!r}. Correct the line.") from error
    if not isinstance(row, dict) or not isinstance(row.get("completion"), str):
        raise ValueError(
            f"{where}: must be an object with the key `completion`, a text, and {', '.join(judge.argument_names)}; "
            f"got {line[:80]!r}. Correct the line."
        )
    if taken := [name for name in ADDED_KEYS if name in row]:
        raise ValueError(f"{where}: the keys {taken} are those the scores are written to. Rename them in the input.")
    try:
        judge.check_arguments(_arguments(row, judge))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return row
