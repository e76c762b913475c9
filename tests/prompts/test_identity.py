"""Names of prompts, and when two texts are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paced_rl.prompts import normalised_text, prompt_id

ARGUMENTS = {"numbers": [3, 4], "target": 12}


def test_the_id_is_pinned() -> None:
    """A change of the hash would rename every prompt of every experiment."""
    assert prompt_id("3 4>12:", "arithmetic", ARGUMENTS) == "79cf110b3f98c128"


def test_the_id_depends_on_everything_that_decides_rewards_and_on_nothing_else() -> None:
    name = prompt_id("3 4>12:", "arithmetic", ARGUMENTS)
    assert prompt_id("3 4>12:", "arithmetic", {"target": 12, "numbers": [3, 4]}) == name
    others = {
        prompt_id("3 4>12: ", "arithmetic", ARGUMENTS),
        prompt_id("3 4>12:", "reasoning_gym", ARGUMENTS),
        prompt_id("3 4>12:", "arithmetic", {"numbers": [4, 3], "target": 12}),
        prompt_id("3 4>12:", "arithmetic", {"numbers": [3, 4], "target": "12"}),
        prompt_id("3 4>12:", "arithmetic", {}),
    }
    assert len(others | {name}) == 6


@given(st.text(), st.text(), st.dictionaries(st.text(), st.integers() | st.text()))
def test_every_id_has_sixteen_hex_digits(text: str, verifier: str, arguments: dict[str, int | str]) -> None:
    name = prompt_id(text, verifier, arguments)
    assert len(name) == 16
    assert int(name, 16) >= 0


@pytest.mark.parametrize(("arguments", "error"), [({"a": float("nan")}, ValueError), ({"a": {1}}, TypeError)])
def test_arguments_without_a_json_form_are_refused(arguments: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        prompt_id("x", "arithmetic", arguments)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("What is 2+2?", "  what IS\n\t2+2? "),
        ("ﬁve²", "five2"),  # compatibility characters
        ("Straße", "STRASSE"),
        ("e\u0301", "É"),  # combining accent
        ("a\u00a0b", "a b"),
    ],
)
def test_texts_that_differ_in_form_only_are_equal(left: str, right: str) -> None:
    assert normalised_text(left) == normalised_text(right)


def test_texts_that_differ_are_not_equal() -> None:
    assert len({normalised_text(text) for text in ["3 4>12:", "34>12:", "4 3>12:", "3 4>12"]}) == 4


@given(st.text())
def test_white_space_is_single_and_inside(text: str) -> None:
    result = normalised_text(text)
    assert result == " ".join(result.split())
