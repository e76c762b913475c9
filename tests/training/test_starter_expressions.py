"""Expressions of the starter's corpus."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paced_rl.training.starter_expressions import draw_expression, random_expression
from paced_rl.types import VerdictStatus
from paced_rl.verifiers.arithmetic import ArithmeticVerifier

RANGES = {
    "min_numbers": 2,
    "max_numbers": 4,
    "min_value": 1,
    "max_value": 9,
    "min_target": 1,
    "max_target": 24,
}


@given(numbers=st.lists(st.integers(1, 20), min_size=1, max_size=5), seed=st.integers(0, 2**32))
def test_an_expression_uses_every_number_once(numbers: list[int], seed: int) -> None:
    expression = random_expression(numbers, random.Random(seed))

    assert sorted(int(number) for number in re.findall(r"\d+", expression)) == sorted(numbers)
    assert len(re.findall(r"[-+*/]", expression)) == len(numbers) - 1
    compile(expression, "expression", "eval")  # parentheses and operators stand where they may
    assert expression == random_expression(numbers, random.Random(seed))


def test_parentheses_stand_only_where_they_change_the_value() -> None:
    expressions = {random_expression([2, 3, 5], random.Random(seed)) for seed in range(2000)}

    assert expressions >= {"2+3*5", "2*(3+5)", "2-(3-5)", "2/(3*5)", "2+3+5"}
    assert not expressions & {"(2+3)+5", "2+(3*5)", "(2*3)+5", "(2*3)*5", "((2+3))*5"}


def test_a_drawn_expression_reaches_its_target_within_the_ranges() -> None:
    generator = random.Random(1)
    verifier = ArithmeticVerifier()
    drawn = [draw_expression(**RANGES, generator=generator) for _ in range(600)]

    for numbers, target, expression in drawn:
        assert verifier.verify(expression, {"numbers": numbers, "target": target}).status is VerdictStatus.RIGHT
        assert all(1 <= number <= 9 for number in numbers)
        assert 1 <= target <= 24
    counts = Counter(len(numbers) for numbers, _, _ in drawn)
    assert set(counts) == {2, 3, 4}
    # One, two and three operations: 100, 200 and 300 of 600, each within five standard deviations.
    assert all(abs(counts[size] - 100 * (size - 1)) < 60 for size in counts)
    assert draw_expression(**RANGES, generator=random.Random(1)) == drawn[0]


def test_ranges_that_no_expression_meets_are_refused() -> None:
    impossible = {**RANGES, "max_numbers": 2, "min_target": 82, "max_target": 90}  # 9·9 is 81
    with pytest.raises(ValueError, match=r"none of 100000 expressions of 2 numbers from 1 to 9 .* from 82 to 90"):
        draw_expression(**impossible, generator=random.Random(0))
