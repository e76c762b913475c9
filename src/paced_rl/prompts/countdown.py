"""Countdown: reach a target from given numbers, each used exactly once, by + - * / and parentheses.

Puzzles come from reasoning_gym's generator (https://github.com/open-thought/reasoning-gym, games/countdown.py), which
draws an expression and asks for its value, so that every puzzle has an answer. Its cost, about a millisecond a puzzle
and more with more numbers, is the symbolic algebra inside the generator.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from string import Formatter

from paced_rl.prompts.identity import prompt_id
from paced_rl.seeds import derive_generator, derive_seed
from paced_rl.types import Prompt, Split

SOURCE = "reasoning_gym/countdown"
VERIFIER = "arithmetic"
PLACEHOLDERS = {"numbers", "target"}
MAX_FRUITLESS_TRIES = 5000
"""Tries without a new puzzle after which the ranges count as exhausted: a few seconds."""
TRIES_PER_FAILURE = 100
"""Expressions that reasoning_gym tries for one puzzle before it gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle:
    """Numbers, target, and one expression that uses each number once and reaches the target."""

    numbers: tuple[int, ...]
    """In the order they are shown."""
    target: int
    expression: str
    """Over + - * /, parentheses and spaces, without unary minus."""

    @property
    def key(self) -> tuple[tuple[int, ...], int]:
        """Equal for puzzles that differ by the order of the numbers or by the expression only."""
        return tuple(sorted(self.numbers)), self.target


def countdown_puzzles(
    *,
    min_numbers: int,
    max_numbers: int,
    min_value: int,
    max_value: int,
    min_target: int,
    max_target: int,
    seed: int,
    count: int,
) -> list[Puzzle]:
    """Exactly `count` different puzzles, in the order in which they were first drawn.

    A function of the ranges and the seed: a smaller count gives the first of the same puzzles, and no global generator
    is consumed. Frequent puzzles (few numbers) come earlier, so shuffle before cutting the list into splits.

    Args:
        min_numbers, max_numbers: how many numbers a puzzle gives.
        min_value, max_value: range of the numbers.
        min_target, max_target: range of the target.
        seed: any integer; neighbouring seeds share no stream.
        count: puzzles wanted.

    Raises:
        ValueError: a range is empty or starts too low, or the ranges have too few puzzles.
    """
    ranges = {"min_numbers": min_numbers, "max_numbers": max_numbers, "min_value": min_value, "max_value": max_value}
    ranges |= {"min_target": min_target, "max_target": max_target}
    _check_ranges(ranges)
    puzzles: dict[tuple[tuple[int, ...], int], Puzzle] = {}
    draws = _draw_puzzles(ranges, derive_seed(seed, "countdown"))
    fruitless = 0
    while len(puzzles) < count:
        puzzle = next(draws)
        if puzzle is not None and puzzle.key not in puzzles:
            puzzles[puzzle.key] = puzzle
            fruitless = 0
            continue
        fruitless += TRIES_PER_FAILURE if puzzle is None else 1
        if fruitless >= MAX_FRUITLESS_TRIES:
            raise ValueError(
                f"only {len(puzzles)} of {count} different countdown puzzles found: {fruitless} tries in a row gave "
                f"nothing new with {ranges}. Ask for fewer prompts, or widen the ranges."
            )
    return list(puzzles.values())


def _check_ranges(ranges: dict[str, int]) -> None:
    for name, lowest in [("numbers", 2), ("value", 1), ("target", 1)]:
        low, high = ranges[f"min_{name}"], ranges[f"max_{name}"]
        if not lowest <= low <= high:
            raise ValueError(
                f"countdown needs {lowest} ≤ min_{name} ≤ max_{name}; got min_{name}={low}, max_{name}={high}"
            )


def _draw_puzzles(ranges: dict[str, int], seed: int) -> Iterator[Puzzle | None]:
    """An endless stream of puzzles with repetitions; None where the generator gave up."""
    from reasoning_gym.games.countdown import CountdownConfig, CountdownDataset

    dataset = CountdownDataset(CountdownConfig(**ranges, seed=seed))
    index = 0
    while True:
        try:
            metadata = dataset[index]["metadata"]
        except ValueError:  # "Failed to generate valid expression": the target was missed too often
            yield None
        else:
            yield Puzzle(
                numbers=tuple(metadata["numbers"]),
                target=metadata["target"],
                expression=without_leading_minus(metadata["expression"]),
            )
        index += 1


def without_leading_minus(expression: str) -> str:
    """The expression with the first added term of every sum moved to its front: `-4 + (7 + 17)/4` → `(7 + 17)/4 - 4`.

    The generator's algebra package orders terms as it likes, and answers have no unary minus.
    """
    terms: list[tuple[str, str]] = []
    sign, term, depth, start = "+", "", 0, 0
    for position, character in enumerate(expression):
        if character == "(":
            depth += 1
            start = position + 1 if depth == 1 else start
        elif character == ")":
            depth -= 1
            term += f"({without_leading_minus(expression[start:position])})" if depth == 0 else ""
        elif depth > 0:
            continue
        elif character in "+-":
            terms += [(sign, term)] if term else []
            sign, term = character, ""
        elif character != " ":
            term += character
    terms.append((sign, term))
    first = next(index for index, (sign, _) in enumerate(terms) if sign == "+")
    return "".join([terms.pop(first)[1], *(f" {sign} {term}" for sign, term in terms)])


def countdown_prompts(
    *,
    min_numbers: int,
    max_numbers: int,
    min_value: int,
    max_value: int,
    min_target: int,
    max_target: int,
    template: str,
    num_train: int,
    num_audit: int,
    num_validation: int,
    num_test: int,
    seed: int,
) -> list[Prompt]:
    """Countdown puzzles as prompts, train first, each puzzle in one split whatever the order of its numbers.

    Splits are drawn at random, so that they are equally hard.

    Args:
        min_numbers, max_numbers, min_value, max_value, min_target, max_target: see `countdown_puzzles`.
        template: with `{numbers}`, joined by single spaces in the order drawn, and `{target}`.
        num_train, num_audit, num_validation, num_test: prompts per split.
        seed: of puzzles and splits.

    Raises:
        ValueError: the template lacks a placeholder or has another, or the ranges do not give enough puzzles.
    """
    _check_template(template)
    counts = {
        Split.TRAIN: num_train,
        Split.AUDIT: num_audit,
        Split.VALIDATION: num_validation,
        Split.TEST: num_test,
    }
    puzzles = countdown_puzzles(
        min_numbers=min_numbers,
        max_numbers=max_numbers,
        min_value=min_value,
        max_value=max_value,
        min_target=min_target,
        max_target=max_target,
        seed=seed,
        count=sum(counts.values()),
    )
    order = derive_generator(seed, "countdown splits").permutation(len(puzzles))
    splits = [split for split, num_prompts in counts.items() for _ in range(num_prompts)]
    return [_prompt(puzzles[index], template, split) for index, split in zip(order, splits, strict=True)]


def _check_template(template: str) -> None:
    try:
        fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(f"countdown template {template!r} is no format string: {error}") from error
    if set(fields) != PLACEHOLDERS:
        raise ValueError(
            f"countdown template must hold {{numbers}} and {{target}} and no other placeholder (write {{{{ for a "
            f"brace); got {template!r} with placeholders {fields}"
        )


def _prompt(puzzle: Puzzle, template: str, split: Split) -> Prompt:
    text = template.format(numbers=" ".join(map(str, puzzle.numbers)), target=puzzle.target)
    arguments = {"numbers": list(puzzle.numbers), "target": puzzle.target}
    return Prompt(
        prompt_id=prompt_id(text, VERIFIER, arguments),
        source=SOURCE,
        split=split,
        text=text,
        reference_answer=puzzle.expression,
        verifier=VERIFIER,
        verifier_arguments=arguments,
        metadata={"num_numbers": len(puzzle.numbers)},
    )
