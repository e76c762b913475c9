"""Verifier `arithmetic`: an expression over given numbers, each used exactly once, that reaches a target.

Grammar, over ASCII characters only:

    expression := product (("+" | "-") product)*
    product    := factor (("*" | "/") factor)*
    factor     := number | "(" expression ")"
    number     := "0" | [1-9][0-9]*

with spaces (U+0020 and nothing else) allowed around every token. There is no unary minus, no power, no decimal point
and no leading zero. Arithmetic is exact (`fractions.Fraction`), and nothing is ever handed to an interpreter.

Bounded by construction: a text longer than MAX_CHARS, parentheses deeper than MAX_DEPTH or a number longer than
MAX_DIGITS does not parse, so neither time nor memory nor recursion depends on what a policy writes.

Verdicts: text outside the grammar is UNPARSEABLE; other numbers than the given ones, another value than the target and
a division by zero are WRONG; the rest is RIGHT.

The canonical form (`extracted_answer`) counts distinct answers. Spellings that differ by spaces, redundant parentheses
or the order of operands of + and * have the same one, and so have `a-(b-c)` and `a-b+c`, `a/(b/c)` and `a*c/b`: chains
are flattened, then sorted. Distributivity and arithmetic identities (1·x, x+0) are not applied: `3*1` and `3/1` are two
answers. Wherever an expression has a value, its canonical form has the same one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from paced_rl.types import Verdict, VerdictStatus
from paced_rl.verifiers.protocol import check_argument_names

MAX_CHARS = 256
"""Several times the longest useful answer to a six-number puzzle."""
MAX_DEPTH = 32
"""Nested parentheses; each level costs three Python frames, far below the interpreter's 1000."""
MAX_DIGITS = 12
"""Per number, in the answer and in the arguments."""
MAX_NUMBERS = 64
"""Given numbers; 64 of two digits fill most of MAX_CHARS."""

_TEXT = re.compile(r"[-+*/()0-9 ]*")
_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_NUMBER = re.compile(rf"0|[1-9][0-9]{{0,{MAX_DIGITS - 1}}}")


@dataclass(frozen=True, slots=True)
class Sum:
    """A chain of + and -."""

    terms: tuple[tuple[int, "Node"], ...]
    """(+1 or -1, operand); two at least, the first with +1."""


@dataclass(frozen=True, slots=True)
class Product:
    """A chain of * and /."""

    factors: tuple[tuple[int, "Node"], ...]
    """(+1 for multiplied or -1 for divided, operand); two at least, the first with +1."""


Node: TypeAlias = int | Sum | Product


class _ParseError(Exception):
    """The text is outside the grammar or its bounds; never leaves this module."""


class _Parser:
    """Recursive descent over a list of tokens, at most MAX_DEPTH levels deep."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0

    def parse(self) -> Node:
        node = self._expression()
        if self._position != len(self._tokens):
            raise _ParseError
        return node

    def _take(self, allowed: str) -> str | None:
        """The next token if it is one of the characters of `allowed`."""
        if self._position < len(self._tokens) and self._tokens[self._position] in allowed:
            self._position += 1
            return self._tokens[self._position - 1]
        return None

    def _expression(self) -> Node:
        terms: list[tuple[int, Node]] = [(1, self._product())]
        while operator := self._take("+-"):
            terms.append((1 if operator == "+" else -1, self._product()))
        return Sum(tuple(terms)) if len(terms) > 1 else terms[0][1]

    def _product(self) -> Node:
        factors: list[tuple[int, Node]] = [(1, self._factor())]
        while operator := self._take("*/"):
            factors.append((1 if operator == "*" else -1, self._factor()))
        return Product(tuple(factors)) if len(factors) > 1 else factors[0][1]

    def _factor(self) -> Node:
        if self._take("("):
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise _ParseError
            node = self._expression()
            if not self._take(")"):
                raise _ParseError
            self._depth -= 1
            return node
        if self._position == len(self._tokens) or not _NUMBER.fullmatch(self._tokens[self._position]):
            raise _ParseError
        self._position += 1
        return int(self._tokens[self._position - 1])


def parse_expression(text: str) -> Node | None:
    """The tree of `text`, or None where it is outside the grammar or its bounds."""
    if len(text) > MAX_CHARS or not _TEXT.fullmatch(text):
        return None
    try:
        return _Parser(_TOKEN.findall(text)).parse()
    except _ParseError:
        return None


def evaluate(node: Node) -> Fraction | None:
    """The exact value, or None where the expression divides by zero anywhere."""
    if isinstance(node, int):
        return Fraction(node)
    total = Fraction(0) if isinstance(node, Sum) else Fraction(1)
    for direction, operand in node.terms if isinstance(node, Sum) else node.factors:
        value = evaluate(operand)
        if value is None:
            return None
        if isinstance(node, Sum):
            total += direction * value
        elif direction == 1:
            total *= value
        elif value == 0:
            return None
        else:
            total /= value
    return total


def used_numbers(node: Node) -> list[int]:
    """Every number of the expression, ascending, with repetitions."""
    if isinstance(node, int):
        return [node]
    operands = node.terms if isinstance(node, Sum) else node.factors
    return sorted(number for _, operand in operands for number in used_numbers(operand))


def canonical_form(node: Node) -> str:
    """One spelling for all expressions that differ by spaces, redundant parentheses or the order of operands.

    Operands that are added (multiplied) come first, those subtracted (divided by) after; each part shortest first,
    then by character. It parses, and is its own canonical form.
    """
    if isinstance(node, int):
        return str(node)
    if isinstance(node, Sum):
        return _join([(d, canonical_form(operand)) for d, operand in _flat_terms(node)], "+", "-")
    factors = [
        (d, f"({canonical_form(operand)})" if isinstance(operand, Sum) else canonical_form(operand))
        for d, operand in _flat_factors(node)
    ]
    return _join(factors, "*", "/")


def _flat_terms(node: Sum) -> list[tuple[int, Node]]:
    """The terms with inner sums spliced in: a − (b − c) becomes a − b + c."""
    flat: list[tuple[int, Node]] = []
    for direction, operand in node.terms:
        inner = _flat_terms(operand) if isinstance(operand, Sum) else [(1, operand)]
        flat.extend((direction * inner_direction, term) for inner_direction, term in inner)
    return flat


def _flat_factors(node: Product) -> list[tuple[int, Node]]:
    """The factors with inner products spliced in: a / (b / c) becomes a / b * c."""
    flat: list[tuple[int, Node]] = []
    for direction, operand in node.factors:
        inner = _flat_factors(operand) if isinstance(operand, Product) else [(1, operand)]
        flat.extend((direction * inner_direction, factor) for inner_direction, factor in inner)
    return flat


def _join(operands: list[tuple[int, str]], forward: str, backward: str) -> str:
    """The operands in sorted order; the first of a chain is never subtracted or divided by, so one forward exists."""

    def ordered(direction: int) -> list[str]:
        return sorted((text for d, text in operands if d == direction), key=lambda text: (len(text), text))

    return forward.join(ordered(1)) + "".join(backward + text for text in ordered(-1))


def _check_integer(name: str, value: Any, *, minimum: int) -> None:
    limit = 10**MAX_DIGITS
    # Not isinstance: bool is an int to Python, and `true` in a prompt file is a mistake.
    if type(value) is not int or not minimum <= value < limit:
        shown = "one far longer" if isinstance(value, int) and value.bit_length() > MAX_CHARS else repr(value)[:80]
        raise ValueError(
            f"verifier arithmetic: {name} must be an integer from {minimum} to {limit - 1}, got {shown}. "
            "Correct the prompt's verifier_arguments."
        )


class ArithmeticVerifier:
    """The verifier `arithmetic`; see the module's docstring. Runs in this process and holds nothing."""

    argument_names = ("numbers", "target")

    def check_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Refuses anything but `numbers`, a list of 1 to MAX_NUMBERS non-negative integers, and `target`, an integer.

        Raises:
            ValueError: naming the argument, what was got and what is allowed.
        """
        check_argument_names("arithmetic", arguments, self.argument_names)
        numbers = arguments["numbers"]
        if not isinstance(numbers, list | tuple) or not 1 <= len(numbers) <= MAX_NUMBERS:
            raise ValueError(
                f"verifier arithmetic: numbers must be a list of 1 to {MAX_NUMBERS} integers, "
                f"got {repr(numbers)[:80]}. Correct the prompt's verifier_arguments."
            )
        for index, number in enumerate(numbers):
            _check_integer(f"numbers[{index}]", number, minimum=0)
        _check_integer("target", arguments["target"], minimum=1 - 10**MAX_DIGITS)

    def verify(self, completion: str, arguments: Mapping[str, Any]) -> Verdict:
        """The verdict on `completion`; the canonical form is given for wrong answers too.

        Args:
            completion: any text.
            arguments: have passed `check_arguments`.
        """
        node = parse_expression(completion)
        if node is None:
            return Verdict(status=VerdictStatus.UNPARSEABLE, reward=0.0, extracted_answer=None)
        is_right = used_numbers(node) == sorted(arguments["numbers"]) and evaluate(node) == arguments["target"]
        return Verdict(
            status=VerdictStatus.RIGHT if is_right else VerdictStatus.WRONG,
            reward=1.0 if is_right else 0.0,
            extracted_answer=canonical_form(node),
        )

    def close(self) -> None:
        """Nothing to end."""
