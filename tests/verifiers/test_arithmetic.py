"""The arithmetic verifier against a Fraction reference, Python's own parser, hand-computed values and hostile text."""

import re
from fractions import Fraction
from itertools import permutations
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paced_rl.types import VerdictStatus
from paced_rl.verifiers.arithmetic import (
    MAX_CHARS,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_NUMBERS,
    ArithmeticVerifier,
    canonical_form,
    evaluate,
    parse_expression,
    used_numbers,
)

VERIFIER = ArithmeticVerifier()
RIGHT, WRONG, UNPARSEABLE = VerdictStatus.RIGHT, VerdictStatus.WRONG, VerdictStatus.UNPARSEABLE

# A tree is an int, or (operator, left, right); it is evaluated and written by code that shares nothing with ours.
Tree = int | tuple[str, Any, Any]
TREES = st.recursive(st.integers(0, 30), lambda inner: st.tuples(st.sampled_from("+-*/"), inner, inner), max_leaves=8)


def _reference_value(tree: Tree) -> Fraction | None:
    if isinstance(tree, int):
        return Fraction(tree)
    left, right = _reference_value(tree[1]), _reference_value(tree[2])
    if left is None or right is None or (tree[0] == "/" and right == 0):
        return None
    return {"+": left.__add__, "-": left.__sub__, "*": left.__mul__, "/": left.__truediv__}[tree[0]](right)


def _reference_numbers(tree: Tree) -> list[int]:
    return [tree] if isinstance(tree, int) else sorted(_reference_numbers(tree[1]) + _reference_numbers(tree[2]))


def _fully_parenthesised(tree: Tree) -> str:
    if isinstance(tree, int):
        return str(tree)
    return f"({_fully_parenthesised(tree[1])}{tree[0]}{_fully_parenthesised(tree[2])})"


def _minimally_parenthesised(tree: Tree) -> str:
    """With the parentheses precedence and left association ask for, and a space around every operator."""
    if isinstance(tree, int):
        return str(tree)
    operator, left, right = tree
    rank = {"+": 1, "-": 1, "*": 2, "/": 2}

    def wrapped(operand: Tree, *, is_right: bool) -> str:
        text = _minimally_parenthesised(operand)
        if isinstance(operand, int) or rank[operand[0]] > rank[operator]:
            return text
        return f"( {text} )" if is_right or rank[operand[0]] < rank[operator] else text

    return f"{wrapped(left, is_right=False)} {operator} {wrapped(right, is_right=True)}"


def _commuted(tree: Tree, random: Any) -> Tree:
    """The tree with the operands of some + and * exchanged."""
    if isinstance(tree, int):
        return tree
    left, right = _commuted(tree[1], random), _commuted(tree[2], random)
    return (tree[0], right, left) if tree[0] in "+*" and random.random() < 0.5 else (tree[0], left, right)


def _parsed(text: str) -> Any:
    node = parse_expression(text)
    assert node is not None, text
    return node


def _canonical(text: str) -> str:
    return canonical_form(_parsed(text))


@given(TREES)
def test_trees_have_the_reference_value_and_numbers(tree: Tree) -> None:
    for text in (_fully_parenthesised(tree), _minimally_parenthesised(tree)):
        node = _parsed(text)
        assert evaluate(node) == _reference_value(tree)
        assert used_numbers(node) == _reference_numbers(tree)


@given(TREES, st.integers(-50, 50))
def test_verdict_follows_from_value_and_numbers(tree: Tree, other: int) -> None:
    text, numbers, value = _minimally_parenthesised(tree), _reference_numbers(tree), _reference_value(tree)
    for target in (other, 7 if value is None else int(value)):
        verdict = VERIFIER.verify(text, {"numbers": numbers[::-1], "target": target})
        assert verdict.status is (RIGHT if value == target else WRONG)
        assert verdict.reward == (1.0 if value == target else 0.0)
        one_more = VERIFIER.verify(text, {"numbers": [*numbers, 1], "target": target})
        assert one_more.status is WRONG
        assert one_more.extracted_answer == verdict.extracted_answer == _canonical(text)


@given(TREES, st.randoms(use_true_random=False))
def test_canonical_form_ignores_order_parentheses_and_spaces(tree: Tree, random: Any) -> None:
    canonical = _canonical(_fully_parenthesised(tree))
    other = _commuted(tree, random)
    spaced = re.sub(r"([-+*/()])", lambda m: " " * random.randrange(3) + m[1], _fully_parenthesised(other))
    assert len(spaced) > MAX_CHARS or _canonical(spaced) == canonical
    assert _canonical(_minimally_parenthesised(other)) == canonical
    assert _canonical(f"(({_minimally_parenthesised(other)}))") == canonical


@given(TREES)
def test_canonical_form_is_its_own_and_keeps_value_and_numbers(tree: Tree) -> None:
    text = _minimally_parenthesised(tree)
    canonical = _canonical(text)
    assert _canonical(canonical) == canonical
    assert used_numbers(_parsed(canonical)) == _reference_numbers(tree)
    assert len(canonical) <= len(text)
    value = _reference_value(tree)
    if value is not None:
        assert evaluate(_parsed(canonical)) == value


def test_operand_orders_of_a_chain_have_one_form_and_different_expressions_keep_theirs() -> None:
    assert {_canonical("+".join(order)) for order in permutations(["1", "20", "3*4", "(5-6)"])} == {"1+5+20+3*4-6"}
    assert {_canonical("*".join(order)) for order in permutations(["2", "10", "(3+1)"])} == {"2*10*(1+3)"}
    texts = ["1-2", "2-1", "1/2", "2/1", "3*1", "3/1", "(1+2)*3", "1*3+2*3", "1+2*3", "3*2-1", "(1-2)*(3-4)"]
    assert len({_canonical(text) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "canonical", "value"),
    [
        ("0", "0", Fraction(0)),
        ("((7))", "7", Fraction(7)),
        ("2-(3-4)", "2+4-3", Fraction(3)),
        ("2-(3-(4-5))", "2+4-3-5", Fraction(-2)),
        ("2/(3/4)", "2*4/3", Fraction(8, 3)),
        ("2/(3/4/5)", "2*4*5/3", Fraction(40, 3)),
        ("8/4/2", "8/2/4", Fraction(1)),
        ("10-4-3", "10-3-4", Fraction(3)),
        ("(3+1)*(2+5)", "(1+3)*(2+5)", Fraction(28)),
        ("1/3+1/3+1/3", "1/3+1/3+1/3", Fraction(1)),
        ("2/(1/0)", "0*2/1", None),
        ("0/(5-5)", "0/(5-5)", None),
        ("1+1/0", "1+1/0", None),
    ],
)
def test_hand_computed(text: str, canonical: str, value: Fraction | None) -> None:
    assert _canonical(text) == canonical
    assert evaluate(_parsed(text)) == value


def test_division_by_zero_is_wrong_even_where_the_flattened_chain_has_the_target_as_value() -> None:
    assert VERIFIER.verify("2/(1/0)", {"numbers": [0, 1, 2], "target": 0}).status is WRONG


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        ("3*8", RIGHT),
        (" 8 * ( 3 ) ", RIGHT),
        ("8*3*1", WRONG),
        ("24", WRONG),
        ("8", WRONG),
        ("8+8+8", WRONG),
        ("8*3-0", WRONG),
        ("8*8/8*3", WRONG),
    ],
)
def test_each_number_is_used_exactly_once(completion: str, status: VerdictStatus) -> None:
    assert VERIFIER.verify(completion, {"numbers": [3, 8], "target": 24}).status is status


UNPARSEABLE_TEXTS = [
    "",
    " ",
    "\x00",
    "3*8\x00",
    "3*8\n",
    "3\t*8",
    "3\u00a0*8",
    "-3*8",
    "+3*8",
    "3*-8",
    "3**8",
    "3^8",
    "3 8",
    "3.0*8",
    "3e1",
    "03*8",
    "00",
    "0x3*8",
    "3*8=24",
    "(3*8",
    "3*8)",
    "()",
    "(3)(8)",
    "3(8)",
    "3*",
    "*3",
    "3+*8",
    "９*3",  # fullwidth
    "٣*8",  # Arabic-Indic
    "3²",
    "3×8",
    "3−8",  # U+2212
    "\ud800",
    "9**9**9",
    "__import__('os').system('true')",
    "eval('3*8')",
    "1" * (MAX_DIGITS + 1),
    "9" * 1_000_000,
    "3*8" + " " * 1_000_000,
    "(" * 100_000 + "3*8" + ")" * 100_000,
    "(" * 100_000,
    "(" * (MAX_DEPTH + 1) + "3*8" + ")" * (MAX_DEPTH + 1),
    "1+" * MAX_CHARS,
]


@pytest.mark.parametrize("text", UNPARSEABLE_TEXTS, ids=range(len(UNPARSEABLE_TEXTS)))
def test_text_outside_the_grammar_is_unparseable(text: str) -> None:
    verdict = VERIFIER.verify(text, {"numbers": [3, 8], "target": 24})
    assert (verdict.status, verdict.reward, verdict.extracted_answer) == (UNPARSEABLE, 0.0, None)


def test_the_bounds_themselves_are_allowed() -> None:
    assert evaluate(_parsed("(" * MAX_DEPTH + "3*8" + ")" * MAX_DEPTH)) == 24
    assert evaluate(_parsed("1" * MAX_DIGITS)) == int("1" * MAX_DIGITS)
    assert evaluate(_parsed("3*8" + " " * (MAX_CHARS - 3))) == 24
    # Depth is of nesting, not of parentheses in the text.
    assert evaluate(_parsed("+".join(["(1)"] * (MAX_DEPTH + 5)))) == MAX_DEPTH + 5


@pytest.mark.parametrize("operator", ["*", "/", "-", "+", "/(1/"])
def test_the_largest_answers_stay_bounded(operator: str) -> None:
    """The worst value has about as many digits as the text has characters, and the canonical form is no longer."""
    closing = ")" if "(" in operator else ""
    num_chained = min((MAX_CHARS - 1) // (1 + len(operator + closing)), MAX_DEPTH)
    text = operator.join(["9"] * num_chained) + closing * (num_chained - 1)
    value = evaluate(_parsed(text))
    assert value is not None
    assert len(str(value)) <= 2 * MAX_CHARS
    assert len(_canonical(text)) <= MAX_CHARS


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=300), st.text("0123456789+-*/() ", max_size=300), st.text("12+-*/()", max_size=12)))
@example("1+2")
@example("(1)")
def test_random_text_never_raises_and_agrees_with_python(text: str) -> None:
    verdict = VERIFIER.verify(text, {"numbers": [1, 2], "target": 3})
    assert verdict.status in (RIGHT, WRONG, UNPARSEABLE)
    assert (verdict.extracted_answer is None) == (verdict.status is UNPARSEABLE)
    if verdict.extracted_answer is not None:
        assert len(verdict.extracted_answer) <= len(text) <= MAX_CHARS
    if verdict.status is RIGHT:
        # Whatever we call right is Python source with that value: the grammar is a subset of Python's.
        assert re.fullmatch(r"[-+*/()0-9 ]+", text)
        assert eval(text.strip()) == pytest.approx(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"missing: \['numbers', 'target'\]"),
        ({"numbers": [1]}, r"missing: \['target'\]"),
        ({"numbers": [1], "target": 1, "tolerance": 0}, r"unknown: \['tolerance'\]"),
        ([1, 2], "must be an object"),
        (None, "must be an object"),
        ({"numbers": [], "target": 1}, "list of 1 to"),
        ({"numbers": [1] * (MAX_NUMBERS + 1), "target": 1}, "list of 1 to"),
        ({"numbers": "12", "target": 1}, "list of 1 to"),
        ({"numbers": {"1": 1}, "target": 1}, "list of 1 to"),
        ({"numbers": [1, "2"], "target": 1}, r"numbers\[1\] must be an integer.*'2'"),
        ({"numbers": [1, 2.0], "target": 1}, r"numbers\[1\] must be an integer"),
        ({"numbers": [True], "target": 1}, r"numbers\[0\] must be an integer.*True"),
        ({"numbers": [-1], "target": 1}, r"numbers\[0\] must be an integer from 0"),
        ({"numbers": [10**MAX_DIGITS], "target": 1}, r"numbers\[0\]"),
        ({"numbers": [10**100_000], "target": 1}, "far longer"),
        ({"numbers": [1], "target": None}, "target must be an integer.*None"),
        ({"numbers": [1], "target": float("nan")}, "target must be an integer.*nan"),
        ({"numbers": [1], "target": "24"}, "target must be an integer"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VERIFIER.check_arguments(arguments)


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"numbers": [0, 5], "target": -5}, "0-5"),
        ({"numbers": (0,), "target": 0}, "0"),
        ({"numbers": [10**MAX_DIGITS - 1], "target": 10**MAX_DIGITS - 1}, "9" * MAX_DIGITS),
        ({"numbers": [1] * MAX_NUMBERS, "target": MAX_NUMBERS}, "+".join("1" * MAX_NUMBERS)),
    ],
)
def test_good_arguments_pass_and_can_be_answered(arguments: dict[str, Any], right: str) -> None:
    VERIFIER.check_arguments(arguments)
    assert VERIFIER.verify(right, arguments).status is VerdictStatus.RIGHT
