"""Prompts from the rows of a user's file.

Columns: `prompt` and `reference_answer` (texts; the answer may be empty), and optionally `split` (train, audit,
validation or test), `verifier` (a name), `verifier_arguments` and `metadata` (an object, or JSON text of one) and `id`
(a text or an integer, unique; kept in the metadata). Other columns are ignored.
"""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from paced_rl.prompts.identity import normalised_text, prompt_id
from paced_rl.prompts.splits import check_splits_are_disjoint
from paced_rl.seeds import derive_generator
from paced_rl.types import Prompt, Split

logger = logging.getLogger(__name__)

REQUIRED = ("prompt", "reference_answer")
OPTIONAL = ("split", "verifier", "verifier_arguments", "metadata", "id")
MAX_LISTED = 5


class PromptFileError(ValueError):
    """The rows cannot be turned into prompts; names every fault, and the first rows that have it."""


def prompts_from_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    source: str,
    default_verifier: str,
    num_audit: int,
    num_validation: int,
    num_test: int,
    seed: int,
) -> list[Prompt]:
    """The rows as prompts, exact duplicates within a split dropped and counted in the log.

    With a `split` column every row must name its split, and the counts are not used. Without one the rows are split
    at random into the given counts, train taking what is left; rows with the same normalised text stay together.

    Args:
        rows: one mapping per row, column name → value; row 1 is the first.
        source: name of the file, for `Prompt.source` and the errors.
        default_verifier: of rows that name none.
        num_audit, num_validation, num_test: prompts per split where the file has no `split` column.
        seed: of that split.

    Raises:
        PromptFileError: no rows, missing columns, faulty rows (all of them in one error), or nothing left for train.
        SplitOverlapError: the file's own splits share a text.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    _check_columns(columns, num_rows=len(rows), source=source)
    has_splits = "split" in columns

    prompts: dict[tuple[str, Split], Prompt] = {}
    problems: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            prompt = _prompt(row, source=source, default_verifier=default_verifier, has_splits=has_splits)
        except PromptFileError as error:
            problems.append(f"row {number}: {error}")
        else:
            prompts.setdefault((prompt.prompt_id, prompt.split), prompt)
    problems += _repeated_ids(rows)
    if problems:
        raise PromptFileError(f"{source}: {_listed(problems)}")
    if len(prompts) < len(rows):
        logger.warning("%s: %d exact duplicates of %d rows dropped", source, len(rows) - len(prompts), len(rows))

    result = list(prompts.values())
    if not has_splits:
        counts = {Split.AUDIT: num_audit, Split.VALIDATION: num_validation, Split.TEST: num_test}
        result = _split_at_random(result, counts, seed=seed, source=source)
    check_splits_are_disjoint(result)
    if not any(prompt.split is Split.TRAIN for prompt in result):
        raise PromptFileError(f"{source}: no row of {len(rows)} has the split 'train'; there is nothing to train on")
    return result


def _check_columns(columns: list[str], *, num_rows: int, source: str) -> None:
    if num_rows == 0:
        raise PromptFileError(f"{source} has no rows")
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise PromptFileError(
            f"{source}: missing columns {missing}; got {columns}, wanted {list(REQUIRED)} and optionally "
            f"{list(OPTIONAL)}. Rename the columns of the file."
        )
    ignored = [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]
    if ignored:
        logger.warning("%s: columns %s are ignored; known are %s", source, ignored, [*REQUIRED, *OPTIONAL])


def _prompt(row: Mapping[str, Any], *, source: str, default_verifier: str, has_splits: bool) -> Prompt:
    text = _text(row, "prompt")
    if not text.strip():
        raise PromptFileError("prompt is empty")
    verifier = default_verifier if row.get("verifier") is None else _text(row, "verifier")
    arguments = _object(row, "verifier_arguments")
    metadata = _object(row, "metadata")
    row_id = row.get("id")
    if row_id is not None:
        if isinstance(row_id, bool) or not isinstance(row_id, str | int):
            raise PromptFileError(f"id must be a text or an integer; got {type(row_id).__name__}")
        metadata = {**metadata, "id": row_id}
    return Prompt(
        prompt_id=prompt_id(text, verifier, arguments),
        source=source,
        split=_split(row) if has_splits else Split.TRAIN,
        text=text,
        reference_answer=_text(row, "reference_answer"),
        verifier=verifier,
        verifier_arguments=arguments,
        metadata=metadata,
    )


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        hint = "; write '' where there is no answer" if value is None and column == "reference_answer" else ""
        raise PromptFileError(f"{column} must be a text; got {type(value).__name__}: {value!r:.60}{hint}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, which JSON can escape and no table can store
        raise PromptFileError(f"{column} is not valid Unicode: {error}") from error
    return value


def _split(row: Mapping[str, Any]) -> Split:
    value = row.get("split")
    allowed = [split.value for split in Split]
    if value not in allowed:
        raise PromptFileError(f"split must be one of {allowed}; got {value!r:.60}")
    return Split(value)


def _object(row: Mapping[str, Any], column: str) -> dict[str, Any]:
    """The object in a column, given as such or as JSON text; empty where there is none."""
    value = row.get(column)
    if value is None:
        return {}
    try:
        # Written and read again, so that only what JSON can hold gets in, as the type it will be read back with.
        value = json.loads(value if isinstance(value, str) else json.dumps(value, allow_nan=False))
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PromptFileError(f"{column} is not valid JSON: {error}; got {row[column]!r:.60}") from error
    if not isinstance(value, dict):
        raise PromptFileError(f"{column} must be a JSON object; got {type(value).__name__}: {value!r:.60}")
    return value


def _repeated_ids(rows: list[Mapping[str, Any]]) -> list[str]:
    counts = Counter(str(row["id"]) for row in rows if row.get("id") is not None)
    first: dict[str, int] = {}
    problems = []
    for number, row in enumerate(rows, start=1):
        name = str(row.get("id"))
        if counts[name] > 1 and row.get("id") is not None and first.setdefault(name, number) != number:
            problems.append(f"row {number}: id {name!r} is also that of row {first[name]}")
    return problems


def _listed(problems: list[str]) -> str:
    """The first problems, one a line, after how many there are."""
    lines = "\n  ".join(problems[:MAX_LISTED])
    return f"{len(problems)} faulty rows, the first {min(len(problems), MAX_LISTED)}:\n  {lines}"


def _split_at_random(prompts: list[Prompt], counts: Mapping[Split, int], *, seed: int, source: str) -> list[Prompt]:
    """The prompts with splits, in their order; groups of equal normalised text go whole into the first with room."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        groups[normalised_text(prompt.text)].append(index)
    members = list(groups.values())
    room = dict(counts)
    splits = [Split.TRAIN] * len(prompts)
    for position in derive_generator(seed, "file splits").permutation(len(members)):
        group = members[position]
        split = next((split for split, free in room.items() if free >= len(group)), Split.TRAIN)
        if split is not Split.TRAIN:
            room[split] -= len(group)
        for index in group:
            splits[index] = split
    if any(room.values()) or Split.TRAIN not in splits:
        wanted = {split.value: number for split, number in counts.items()}
        raise PromptFileError(
            f"{source}: {len(prompts)} different prompts are not enough for {wanted} and at least one for train; lower "
            "num_audit, num_validation and num_test, or give more prompts"
        )
    return [replace(prompt, split=split) for prompt, split in zip(prompts, splits, strict=True)]
