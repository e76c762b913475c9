"""Prompts from any dataset of reasoning_gym (https://github.com/open-thought/reasoning-gym), made on the spot.

An entry is a question, one right answer, and metadata. The verifier is the dataset's own scorer in the sandbox
(`paced_rl.verifiers.reasoning_gym`) or, for answers with one spelling, `exact_match`. The template says what of an
entry the policy reads: `{question}`, in English, or fields of its metadata, such as chain_sum's `{expression}`, for a
policy that has only learned to read those.
"""

import difflib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from string import Formatter
from typing import Any

from paced_rl.prompts.identity import normalised_text, prompt_id
from paced_rl.seeds import derive_generator, derive_seed
from paced_rl.types import Prompt, Split

CHUNK_SIZE = 1000
"""Entries that one dataset object gives before the next one takes over: some lay all of theirs out when made, some end
at their size, and none promises that entry i is the same at another size."""
MAX_FRUITLESS_TRIES = 5000
"""Entries in a row without a new text after which the dataset counts as exhausted."""
OURS = {"seed", "size"}
"""Fields of every dataset's configuration that are set here."""
RIGHT_SCORE = 1.0
"""What a scorer gives a full solution."""

Entry = Mapping[str, Any]
"""`question`, `answer` and `metadata`, as JSON has them: its lists were tuples, its keys are texts."""


def draw_entries(*, dataset: str, config: Mapping[str, Any], seed: int) -> Iterator[Entry]:
    """An endless stream of entries, with repetitions: a function of the arguments, and no global generator is consumed.

    Args:
        dataset: a name that reasoning_gym knows.
        config: fields of that dataset's configuration, without `seed` and `size`.
        seed: any integer; neighbouring seeds share no stream, although reasoning_gym draws entry i from seed + i.

    Raises:
        ValueError: there is no such dataset, it refuses the configuration, or an entry cannot be written as JSON.
    """
    from reasoning_gym.factory import DATASETS

    if dataset not in DATASETS:
        near = difflib.get_close_matches(dataset, DATASETS, n=3)
        raise ValueError(
            f"reasoning_gym has no dataset {dataset!r:.80}; nearest: {', '.join(near) or 'none'}. All "
            f"{len(DATASETS)} names: python -c 'import reasoning_gym.factory as f; print(*f.DATASETS)'"
        )
    return _draw(dataset, config, seed)


def _draw(dataset: str, config: Mapping[str, Any], seed: int) -> Iterator[Entry]:
    chunk = 0
    while True:
        # Some datasets hand their seed to NumPy, which takes 32 bits.
        source = _create(dataset, config, derive_seed(seed, "reasoning_gym", dataset, chunk) % 2**32)
        for index in range(CHUNK_SIZE):
            try:
                yield json.loads(json.dumps(source[index], allow_nan=False))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"reasoning_gym dataset {dataset}: entry {index} cannot be made, or be written as JSON ({error}). "
                    "Choose another dataset, or change data_preparation.reasoning_gym.config"
                ) from error
        chunk += 1


def _create(dataset: str, config: Mapping[str, Any], seed: int) -> Any:
    from dataclasses import fields

    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    known = sorted({field.name for field in fields(DATASETS[dataset][1])} - OURS)
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise ValueError(
            f"reasoning_gym dataset {dataset} has no settings {unknown} (the project sets seed and size); allowed in "
            f"data_preparation.reasoning_gym.config: {', '.join(known)}"
        )
    try:
        return reasoning_gym.create_dataset(dataset, seed=seed, size=CHUNK_SIZE, **config)
    except (AssertionError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"reasoning_gym dataset {dataset} refuses data_preparation.reasoning_gym.config = {dict(config)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def render_entry(template: str, entry: Entry) -> str:
    """The template with the question and the metadata of the entry filled in.

    Raises:
        ValueError: the template is no format string, or has other fields.
    """
    values = {**entry["metadata"], "question": entry["question"]}
    try:
        used = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
        unknown = [name for name in used if name not in values]
        if used and not unknown:
            return template.format(**values)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"data_preparation.reasoning_gym.template {template!r} is no format string for an entry: {error}"
        ) from error
    raise ValueError(
        f"data_preparation.reasoning_gym.template {template!r} must hold fields of an entry in braces, and no others "
        f"(write {{{{ for a brace); got {unknown or 'none'}; an entry has {', '.join(sorted(values))}"
    )


def reasoning_gym_prompts(
    *,
    dataset: str,
    config: Mapping[str, Any],
    template: str,
    verifier: str,
    num_train: int,
    num_audit: int,
    num_validation: int,
    num_test: int,
    seed: int,
) -> list[Prompt]:
    """Entries as prompts, train first, each text once, up to case and white space.

    Splits are drawn at random, so that they are equally hard: easy entries, of which there are few, come early.

    Args:
        dataset, config: see `draw_entries`.
        template: see `render_entry`.
        verifier: `reasoning_gym`, or `exact_match` where an answer has one spelling.
        num_train, num_audit, num_validation, num_test: prompts per split.
        seed: of entries and splits.

    Raises:
        ValueError: see `draw_entries` and `render_entry`; the dataset has too few entries, or its scorer does not give
            an entry's own answer 1, without which no completion would be right.
    """
    splits = [Split.TRAIN] * num_train + [Split.AUDIT] * num_audit
    splits += [Split.VALIDATION] * num_validation + [Split.TEST] * num_test
    entries: dict[str, Entry] = {}
    fruitless = 0
    for entry in draw_entries(dataset=dataset, config=config, seed=seed):
        text = normalised_text(render_entry(template, entry))
        fruitless = fruitless + 1 if text in entries else 0
        if fruitless >= MAX_FRUITLESS_TRIES:
            raise ValueError(
                f"only {len(entries)} of {len(splits)} different prompts found: {fruitless} entries in a row of "
                f"reasoning_gym dataset {dataset} gave no new text with config {dict(config)} and template "
                f"{template!r}. Ask for fewer prompts, widen the configuration, or show more of an entry"
            )
        if text not in entries:
            _check_own_answer(dataset, entry)
            entries[text] = entry
        if len(entries) == len(splits):
            break
    found = list(entries.values())
    order = derive_generator(seed, "reasoning_gym splits").permutation(len(found))
    return [
        _prompt(dataset, template, verifier, found[index], split) for index, split in zip(order, splits, strict=True)
    ]


@functools.cache
def _scorer(dataset: str) -> Callable[[str, Entry], float]:
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn(dataset)


def _check_own_answer(dataset: str, entry: Entry) -> None:
    answer = entry["answer"]
    score = _scorer(dataset)(answer.strip(), entry) if isinstance(answer, str) else None
    if score != RIGHT_SCORE:
        raise ValueError(
            f"reasoning_gym dataset {dataset}: its scorer gives the entry's own answer {answer!r:.80} "
            f"{'no score' if score is None else score} in place of {RIGHT_SCORE:g}, after the way through JSON that "
            "every prompt takes, so nothing could be learned from it. Choose another dataset"
        )


def _prompt(dataset: str, template: str, verifier: str, entry: Entry, split: Split) -> Prompt:
    text = render_entry(template, entry)
    answer = entry["answer"].strip()
    arguments = {"answer": answer} if verifier == "exact_match" else {"dataset": dataset, "entry": entry}
    return Prompt(
        prompt_id=prompt_id(text, verifier, arguments),
        source=f"reasoning_gym/{dataset}",
        split=split,
        text=text,
        reference_answer=entry["answer"],
        verifier=verifier,
        verifier_arguments=arguments,
        metadata={name: value for name, value in entry["metadata"].items() if isinstance(value, int | float)},
    )
