"""The corpus of a starter for a dataset of reasoning_gym: nothing held out, wrong answers where they belong."""

from typing import Any

import pytest

from paced_rl.prompts import normalised_text
from paced_rl.prompts.reasoning_gym import reasoning_gym_prompts
from paced_rl.training.starter_entries import check_lines, entry_lines
from paced_rl.types import Split

TASK: dict[str, Any] = {
    "dataset": "chain_sum",
    "config": {"min_terms": 2, "max_terms": 3, "max_digits": 1},
    "template": "{expression}=",
}


def lines_of(**changes: Any) -> list[dict[str, str]]:
    defaults = {"held_out": [], "num_lines": 1000, "mixed_share": 0.4, "random_fraction": 0.5, "seed": 3}
    return entry_lines(**{**TASK, **defaults, **changes})


def value(text: str) -> str:
    tokens = text.removesuffix("=").split()
    signs = [1, *(1 if operator == "+" else -1 for operator in tokens[1::2])]
    return str(sum(sign * int(number) for sign, number in zip(signs, tokens[::2], strict=True)))


def test_solutions_are_right_and_random_answers_are_those_of_other_entries() -> None:
    lines = lines_of()
    assert len(lines) == 1000
    assert all(line["kind"] == "solution" and line["completion"] == value(line["prompt"]) for line in lines[:600])
    mixed = lines[600:]
    drawn = [line for line in mixed if line["kind"] == "random"]
    assert 150 < len(drawn) < 250  # 200 expected, standard deviation 10
    assert {line["completion"] for line in drawn} <= {value(line["prompt"]) for line in lines}
    # Sums of two or three digits: another's answer is right about one time in fourteen.
    assert sum(line["completion"] == value(line["prompt"]) for line in drawn) < len(drawn) / 4
    assert all(line["completion"] == value(line["prompt"]) for line in mixed if line["kind"] == "solution")
    assert lines_of() == lines
    assert lines_of(seed=4) != lines


def test_nothing_held_out_is_shown_whatever_its_spaces() -> None:
    counts = {"num_train": 10, "num_audit": 20, "num_validation": 20, "num_test": 20}
    prompts = reasoning_gym_prompts(**TASK, **counts, verifier="exact_match", seed=3)
    held_out = [prompt.text for prompt in prompts if prompt.split is not Split.TRAIN]
    assert {line["prompt"] for line in lines_of(num_lines=5000)} & set(held_out)  # it would be shown
    shown = {line["prompt"] for line in lines_of(num_lines=5000, held_out=[f" {text} " for text in held_out])}
    assert not {normalised_text(text) for text in shown} & {normalised_text(text) for text in held_out}


def test_a_dataset_of_which_all_is_held_out_is_an_error_and_not_a_loop() -> None:
    digits = {"min_terms": 1, "max_terms": 1, "max_digits": 1}
    with pytest.raises(ValueError, match=r"5000 entries in a row .* are held out .*lower data_preparation\.num_audit"):
        lines_of(config=digits, held_out=[f"{digit}=" for digit in range(10)])
    assert {line["prompt"] for line in lines_of(config=digits, held_out=[f"{digit}=" for digit in range(9)])} == {"9="}


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        ({"prompt": "12345", "completion": "6789"}, "1", r"has 9 characters, and the policy reads 8"),
        (
            {"prompt": "é=", "completion": "1\n"},
            "1",
            r"printable ASCII characters alone, and the corpus has \['\\n', 'é'",
        ),
        ({"prompt": "1=", "completion": "1"}, "1+y=", r"none of the 1 lines of the corpus has, \['y'\].*num_lines"),
    ],
)
def test_a_corpus_that_a_character_policy_cannot_read_is_refused(line: dict[str, str], text: str, message: str) -> None:
    (prompt,) = reasoning_gym_prompts(
        dataset="chain_sum", config={}, template=text + "{question}", verifier="exact_match", num_train=1, num_audit=0,
        num_validation=0, num_test=0, seed=1,
    )  # fmt: skip
    letters = "".join(sorted(set(prompt.text) - set("y")))
    with pytest.raises(ValueError, match=message):
        check_lines([line], [prompt], known_characters=letters, max_tokens=9)
    check_lines([{"prompt": "y=", "completion": "1"}], [prompt], known_characters=letters, max_tokens=9)
