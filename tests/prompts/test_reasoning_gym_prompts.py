"""Prompts from datasets of reasoning_gym: right answers, one split each, a function of the seed, clear refusals."""

import json
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest

from paced_rl.prompts import check_splits_are_disjoint, normalised_text
from paced_rl.prompts.reasoning_gym import draw_entries, reasoning_gym_prompts, render_entry
from paced_rl.types import Prompt, Split, VerdictStatus
from paced_rl.verifiers.exact_match import ExactMatchVerifier
from paced_rl.verifiers.reasoning_gym import ReasoningGymVerifier

SUMS: dict[str, Any] = {
    "dataset": "chain_sum",
    "config": {"min_terms": 2, "max_terms": 4, "max_digits": 2},
    "template": "{expression}=",
    "verifier": "reasoning_gym",
}
COUNTS = {"num_train": 40, "num_audit": 10, "num_validation": 10, "num_test": 5}


@pytest.fixture(scope="module")
def verifier() -> Iterator[ReasoningGymVerifier]:
    """One for all datasets: its worker takes seconds to start."""
    verifier = ReasoningGymVerifier(timeout_seconds=10.0, memory_bytes=2 * 1024**3)
    yield verifier
    verifier.close()


def prompts_of(**changes: Any) -> list[Prompt]:
    return reasoning_gym_prompts(**{**SUMS, **COUNTS, "seed": 7, **changes})


def test_a_sum_s_answer_is_its_value_and_its_parts_are_told() -> None:
    prompts = prompts_of()
    for prompt in prompts:
        expression = prompt.text.removesuffix("=")
        tokens = expression.split()
        value = int(tokens[0])
        for operator, number in zip(tokens[1::2], tokens[2::2], strict=True):
            value += int(number) if operator == "+" else -int(number)
        assert prompt.reference_answer == str(value)
        assert prompt.metadata["num_terms"] == len(tokens[::2])
        assert (prompt.source, prompt.verifier) == ("reasoning_gym/chain_sum", "reasoning_gym")
    assert [prompt.split for prompt in prompts] == [
        split
        for split, number in zip((Split.TRAIN, Split.AUDIT, Split.VALIDATION, Split.TEST), COUNTS.values(), strict=True)
        for _ in range(number)
    ]
    check_splits_are_disjoint(prompts)
    assert len({prompt.text for prompt in prompts}) == len({prompt.prompt_id for prompt in prompts}) == 65


def test_answers_with_one_spelling_may_be_matched_as_texts() -> None:
    for prompt in prompts_of(verifier="exact_match"):
        assert (prompt.verifier, prompt.verifier_arguments) == ("exact_match", {"answer": prompt.reference_answer})
        assert ExactMatchVerifier().verify(prompt.reference_answer, prompt.verifier_arguments).reward == 1.0


@pytest.mark.parametrize(
    ("dataset", "template"),
    [("chain_sum", "{expression}="), ("spell_backward", "{word}>"), ("simple_equations", "{question}")],
)
def test_the_verifier_accepts_each_prompt_s_own_answer_and_no_other(
    dataset: str, template: str, verifier: ReasoningGymVerifier
) -> None:
    for prompt in prompts_of(dataset=dataset, template=template, config={}, num_train=2, num_audit=0):
        verifier.check_arguments(prompt.verifier_arguments)
        assert json.loads(json.dumps(prompt.verifier_arguments)) == prompt.verifier_arguments
        assert verifier.verify(prompt.reference_answer, prompt.verifier_arguments).status is VerdictStatus.RIGHT
        assert verifier.verify("nothing", prompt.verifier_arguments).reward == 0.0


def test_prompts_are_a_function_of_the_seed_and_consume_no_global_generator() -> None:
    random.seed(0)
    np.random.seed(0)
    before = random.getstate(), np.random.get_state()[1].copy()
    first = prompts_of()
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert prompts_of() == first
    # Entry i of reasoning_gym is drawn from seed + i: neighbouring seeds must not give the same entries.
    shared = {prompt.text for prompt in prompts_of(seed=8)} & {prompt.text for prompt in first}
    assert len(shared) < 10


def test_the_stream_goes_on_beyond_a_dataset_s_own_size_and_repeats_no_chunk() -> None:
    # word_ladder refuses indices beyond its size; chain_sum's second chunk must not be its first.
    entries = list(islice(draw_entries(dataset="chain_sum", config={}, seed=1), 2001))
    assert len({entry["question"] for entry in entries}) > 1800
    assert entries[1000]["question"] != entries[0]["question"]


def test_an_exhausted_dataset_is_an_error_and_not_a_loop() -> None:
    tiny = {"min_terms": 1, "max_terms": 1, "min_digits": 1, "max_digits": 1}  # the ten digits
    counts = {"num_train": 8, "num_audit": 0, "num_validation": 1}
    prompts = prompts_of(config=tiny, **counts, num_test=1)
    assert {normalised_text(prompt.text) for prompt in prompts} == {f"{digit}=" for digit in range(10)}
    with pytest.raises(ValueError, match=r"only 10 of 11 different prompts found: 5000 entries in a row .*chain_sum"):
        prompts_of(config=tiny, **counts, num_test=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "chain_sums"}, r"no dataset 'chain_sums'; nearest: chain_sum"),
        ({"config": {"max_term": 3}}, r"no settings \['max_term'\] .*allowed in .*max_terms, min_digits"),
        ({"config": {"seed": 3}}, r"no settings \['seed'\]"),
        ({"config": {"min_terms": 5, "max_terms": 3}}, r"refuses .*max_terms must be >= min_terms"),
        ({"config": {"max_terms": "many"}}, r"refuses .*max_terms.*many.*TypeError"),
        ({"template": "{expresion}="}, r"got \['expresion'\]; an entry has .*expression"),
        ({"template": "sum="}, r"must hold fields of an entry .*got none; an entry has"),
        ({"template": "{expression.__class__}"}, r"got \['expression.__class__'\]"),
        ({"template": "{expression"}, r"no format string for an entry: expected '}'"),
        ({"template": "{expression:d}"}, r"no format string for an entry: Unknown format code"),
        ({"dataset": "rush_hour", "config": {}, "template": "{question}"}, r"own answer None no score in place of 1"),
        ({"dataset": "rearc", "config": {}, "template": "{question}"}, r"own answer '.*' 0\.05 in place of 1"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_what_can(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompts_of(**changes)


def test_a_template_may_mix_text_question_and_metadata() -> None:
    entry = {"question": "Q?", "answer": "1", "metadata": {"n": 3, "words": ["a", "b"]}}
    assert render_entry("{{{n:02d}}} {question} {words}", entry) == "{03} Q? ['a', 'b']"
