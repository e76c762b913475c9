"""Lines of a starter's corpus from a dataset of reasoning_gym: entries with their own answer, or with another's."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paced_rl.prompts import normalised_text
from paced_rl.prompts.reasoning_gym import MAX_FRUITLESS_TRIES, draw_entries, render_entry
from paced_rl.types import Prompt

MAX_LISTED = 5


def entry_lines(
    *,
    dataset: str,
    config: Mapping[str, Any],
    template: str,
    held_out: Iterable[str],
    num_lines: int,
    mixed_share: float,
    random_fraction: float,
    seed: int,
) -> list[dict[str, str]]:
    """Rendered entries as the dataset draws them, repetitions included, in the order of training.

    In the last `mixed_share` of the lines a `random_fraction` of the answers is that of an earlier entry, drawn
    uniformly, which is right only by chance and looks like an answer.

    Args:
        dataset, config, template: see `reasoning_gym_prompts`.
        held_out: texts that no line may have, up to case and white space.
        num_lines: lines wanted.
        mixed_share, random_fraction: in [0, 1].
        seed: of entries and of answers that are replaced.

    Returns:
        [num_lines] rows with `prompt`, `completion` and `kind`: solution or random.

    Raises:
        ValueError: see `draw_entries` and `render_entry`; or hardly an entry is not held out.
    """
    forbidden = {normalised_text(text) for text in held_out}
    generator = random.Random(seed)
    first_random_line = round(num_lines * (1 - mixed_share))
    answers: list[str] = []
    rows: list[dict[str, str]] = []
    fruitless = 0
    for entry in draw_entries(dataset=dataset, config=config, seed=seed):
        text = render_entry(template, entry)
        fruitless = fruitless + 1 if normalised_text(text) in forbidden else 0
        if fruitless >= MAX_FRUITLESS_TRIES:
            raise ValueError(
                f"{fruitless} entries in a row of reasoning_gym dataset {dataset} are held out for audit, validation "
                "and test: lower data_preparation.num_audit, num_validation and num_test, or widen the configuration"
            )
        if fruitless:
            continue
        is_random = bool(answers) and len(rows) >= first_random_line and generator.random() < random_fraction
        answer = generator.choice(answers) if is_random else entry["answer"]
        rows.append({"prompt": text, "completion": answer, "kind": "random" if is_random else "solution"})
        answers.append(entry["answer"])
        if len(rows) == num_lines:
            break
    return rows


def check_lines(
    lines: Sequence[Mapping[str, str]], prompts: Iterable[Prompt], *, known_characters: str, max_tokens: int
) -> None:
    """Refuses a corpus that a character-level starter cannot be made from.

    Args:
        lines: the corpus.
        prompts: of all splits; the tokenizer is made of the corpus and must know their characters too.
        known_characters: that the tokenizer knows whatever the corpus.
        max_tokens: longest line, one token a character and one for its end.

    Raises:
        ValueError: naming what is too long, is not printable ASCII, or is missing from the corpus.
    """
    hint = "show less of an entry with data_preparation.reasoning_gym.template, or choose another dataset"
    longest = max((line["prompt"] + line["completion"] for line in lines), key=len)
    if len(longest) >= max_tokens:
        raise ValueError(
            f"starter policy: a prompt with its answer has {len(longest)} characters, and the policy reads "
            f"{max_tokens - 1}: {longest[:60]!r}…; {hint}"
        )
    found = set().union(*(line["prompt"] + line["completion"] for line in lines))
    foreign = sorted(character for character in found if not " " <= character <= "~")
    if foreign:
        raise ValueError(
            f"starter policy: its tokenizer knows printable ASCII characters alone, and the corpus has "
            f"{foreign[:MAX_LISTED]}; {hint}"
        )
    missing = sorted(set().union(*(prompt.text for prompt in prompts)) - found - set(known_characters))
    if missing:
        raise ValueError(
            f"starter policy: prompts have characters that none of the {len(lines)} lines of the corpus has, "
            f"{missing[:MAX_LISTED]}: raise starter_policy.num_lines"
        )
