"""A user's rows become prompts, or one error that names every fault."""

import logging
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paced_rl.prompts import (
    PromptFileError,
    SplitOverlapError,
    check_splits_are_disjoint,
    normalised_text,
    prompt_id,
    prompts_from_rows,
)
from paced_rl.types import Prompt, Split


def read(rows: list[dict[str, Any]], **changes: Any) -> list[Prompt]:
    settings = {"num_audit": 0, "num_validation": 0, "num_test": 0, "seed": 0, **changes}
    return prompts_from_rows(rows, source="my.jsonl", default_verifier="arithmetic", **settings)


def row(prompt: str = "3 4>12:", **columns: Any) -> dict[str, Any]:
    return {"prompt": prompt, "reference_answer": "3*4", **columns}


def test_every_column_finds_its_field() -> None:
    full = row(
        split="train",
        verifier="reasoning_gym",
        verifier_arguments='{"target": 12}',
        metadata={"level": 2},
        id="p1",
    )
    prompts = read([full, {"prompt": "b", "reference_answer": "", "split": "validation", "verifier": None}])
    assert prompts == [
        Prompt(
            prompt_id=prompt_id("3 4>12:", "reasoning_gym", {"target": 12}),
            source="my.jsonl",
            split=Split.TRAIN,
            text="3 4>12:",
            reference_answer="3*4",
            verifier="reasoning_gym",
            verifier_arguments={"target": 12},
            metadata={"level": 2, "id": "p1"},
        ),
        Prompt(
            prompt_id=prompt_id("b", "arithmetic", {}),
            source="my.jsonl",
            split=Split.VALIDATION,
            text="b",
            reference_answer="",
            verifier="arithmetic",
            verifier_arguments={},
            metadata={},
        ),
    ]


def test_arguments_may_be_an_object_or_its_json_text() -> None:
    arguments = {"numbers": [3, 4], "target": 12}
    as_object, as_text = (
        read([row(verifier_arguments=value)])[0] for value in [arguments, '{"target": 12,\n "numbers": [3, 4]}']
    )
    assert as_object == as_text
    assert as_object.verifier_arguments == arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "  \n"}, "row 2: prompt is empty"),
        ({"prompt": 3}, "row 2: prompt must be a text; got int: 3"),
        ({"prompt": "\ud800"}, "row 2: prompt is not valid Unicode"),
        ({"reference_answer": None}, "row 2: reference_answer must be a text; got NoneType.*write ''"),
        ({"reference_answer": 12}, "row 2: reference_answer must be a text; got int: 12"),
        ({"split": "dev"}, r"row 2: split must be one of \['train', 'audit', 'validation', 'test'\]; got 'dev'"),
        ({"split": None}, "row 2: split must be one of .*got None"),
        ({"verifier": 1}, "row 2: verifier must be a text"),
        ({"verifier_arguments": "{"}, "row 2: verifier_arguments is not valid JSON"),
        ({"verifier_arguments": "[1]"}, "row 2: verifier_arguments must be a JSON object; got list"),
        ({"verifier_arguments": {"a": float("inf")}}, "row 2: verifier_arguments is not valid JSON"),
        ({"verifier_arguments": '{"a": NaN}'}, "row 2: verifier_arguments is not valid JSON"),
        ({"metadata": {"a": b"bytes"}}, "row 2: metadata is not valid JSON"),
        ({"metadata": 3}, "row 2: metadata must be a JSON object; got int"),
        ({"id": 1.5}, "row 2: id must be a text or an integer; got float"),
        ({"id": "one"}, "row 2: id 'one' is also that of row 1"),
    ],
)
def test_a_faulty_row_is_named(changes: dict[str, Any], message: str) -> None:
    good = row(split="train", id="one")
    with pytest.raises(PromptFileError, match=rf"my\.jsonl: 1 faulty rows, the first 1:\n  {message}"):
        read([good, row("b", split="train", id="two") | changes])


def test_all_faults_come_in_one_error_and_five_are_listed() -> None:
    with pytest.raises(PromptFileError) as caught:
        read([row("")] * 7)
    assert "7 faulty rows, the first 5" in str(caught.value)
    assert "row 5: prompt is empty" in str(caught.value)
    assert "row 6" not in str(caught.value)


def test_missing_columns_are_named_beside_what_was_got_and_wanted(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(
        PromptFileError, match=r"missing columns \['prompt', 'reference_answer'\]; got \['question'\], wanted"
    ):
        read([{"question": "a"}])
    with pytest.raises(PromptFileError, match=r"my\.jsonl has no rows"):
        read([])
    with caplog.at_level(logging.WARNING):
        read([row(subject="algebra")])
    assert "columns ['subject'] are ignored" in caplog.text


def test_exact_duplicates_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    rows = [row(), row("b"), row(), row(verifier_arguments={"target": 1})]
    with caplog.at_level(logging.WARNING):
        prompts = read(rows)
    assert [prompt.text for prompt in prompts] == ["3 4>12:", "b", "3 4>12:"]
    assert "1 exact duplicates of 4 rows dropped" in caplog.text


def test_the_files_own_splits_must_not_share_a_text() -> None:
    with pytest.raises(SplitOverlapError, match="1 prompt texts are in more than one split"):
        read([row("What?", split="train"), row("what? ", split="test")])
    with pytest.raises(PromptFileError, match="nothing to train on"):
        read([row(split="test")])


def test_a_file_without_splits_is_split_in_the_counts_asked_for() -> None:
    rows = [row(f"question {i}") for i in range(20)]
    counts = {"num_audit": 2, "num_validation": 5, "num_test": 3}
    prompts = read(rows, **counts)
    assert Counter(prompt.split.value for prompt in prompts) == {"train": 10, "audit": 2, "validation": 5, "test": 3}
    assert [prompt.text for prompt in prompts] == [r["prompt"] for r in rows]
    assert read(rows, **counts) == prompts
    assert read(rows, **counts, seed=1) != prompts


def test_too_few_rows_for_the_counts_are_refused() -> None:
    rows = [row(f"question {i}") for i in range(5)]
    assert sum(prompt.split is Split.TRAIN for prompt in read(rows, num_test=4)) == 1
    for num_test in [5, 6]:
        with pytest.raises(PromptFileError, match=r"5 different prompts are not enough for .*'test': [56]"):
            read(rows, num_test=num_test)


@given(st.lists(st.sampled_from("abcdef"), min_size=12, max_size=30), st.integers(0, 10))
def test_equal_texts_stay_together_in_a_random_split(texts: list[str], seed: int) -> None:
    rows = [row(text.upper() if i % 2 else text, verifier_arguments={"i": i}) for i, text in enumerate(texts)]
    largest = max(Counter(texts).values())
    try:
        prompts = read(rows, num_validation=largest, seed=seed)
    except PromptFileError:
        # A group may be too large for the room that is left; the error is then the right answer.
        return
    check_splits_are_disjoint(prompts)
    groups = {(normalised_text(prompt.text), prompt.split) for prompt in prompts}
    assert len(groups) == len(set(texts))
