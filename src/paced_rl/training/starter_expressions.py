"""Expressions for the starter's corpus: some reach the target by construction, others by chance at most."""

import random
from collections.abc import Sequence

from paced_rl.verifiers.arithmetic import evaluate, parse_expression

MAX_TRIES = 100_000
"""For one line; with four numbers up to 9 and targets up to 24, one in four fits."""


def random_expression(numbers: Sequence[int], generator: random.Random) -> str:
    """An expression that uses each number once and hits a given target only by chance."""
    terms = [(str(number), 3) for number in numbers]
    generator.shuffle(terms)
    while len(terms) > 1:
        position = generator.randrange(len(terms) - 1)
        (left, left_rank), (right, right_rank) = terms[position : position + 2]
        operator = generator.choice("+-*/")
        rank = 1 if operator in "+-" else 2
        if left_rank < rank:
            left = f"({left})"
        if right_rank < rank or (right_rank == rank and operator in "-/"):
            right = f"({right})"
        terms[position : position + 2] = [(left + operator + right, rank)]
    return terms[0][0]


def draw_expression(
    *,
    min_numbers: int,
    max_numbers: int,
    min_value: int,
    max_value: int,
    min_target: int,
    max_target: int,
    generator: random.Random,
) -> tuple[list[int], int, str]:
    """Numbers, a target, and an expression that reaches it; far cheaper than `countdown_puzzles`, and with repetitions.

    n numbers are drawn with weight n − 1, the number of operations, because more of them are harder to learn. Given
    that, numbers and expression are random under the condition that the value is a whole number in the target's range.

    Args:
        min_numbers, max_numbers, min_value, max_value, min_target, max_target: see `countdown_puzzles`.
        generator: is consumed.

    Raises:
        ValueError: expressions of that many numbers hardly ever have such a value.
    """
    sizes = range(min_numbers, max_numbers + 1)
    (num_numbers,) = generator.choices(sizes, weights=[size - 1 for size in sizes])
    for _ in range(MAX_TRIES):
        numbers = [generator.randint(min_value, max_value) for _ in range(num_numbers)]
        expression = random_expression(numbers, generator)
        node = parse_expression(expression)
        value = None if node is None else evaluate(node)
        if value is not None and value.denominator == 1 and min_target <= value <= max_target:
            return numbers, int(value), expression
    raise ValueError(
        f"none of {MAX_TRIES} expressions of {num_numbers} numbers from {min_value} to {max_value} has a value from "
        f"{min_target} to {max_target}: change data_preparation.countdown.min_numbers, or widen the ranges"
    )
