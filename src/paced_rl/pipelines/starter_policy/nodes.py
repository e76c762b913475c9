"""Makes a starter policy for a generated task from nothing: corpus, tokenizer, random weights, pre-training."""

import random

import pandas as pd

from paced_rl.parameters import DataPreparationParameters, StarterPolicyParameters
from paced_rl.progress import progress_bar
from paced_rl.schemas import STARTER_CORPUS
from paced_rl.seeds import derive_seed
from paced_rl.types import CheckpointFiles, Split

CHARACTERS = "0123456789 +-*/()>:"
"""Every character of countdown's default template and of an answer; others that a corpus has come after these."""
MAX_POSITIONS = 128


def make_starter_corpus(
    data_preparation: DataPreparationParameters, starter_policy: StarterPolicyParameters, seed: int
) -> pd.DataFrame:
    """Prompts with answers, in the order of training; none of them is in the audit, validation or test split.

    In the last part of the corpus some answers are right only by chance: a policy that knows more than it says.

    Raises:
        ValueError: the source is a file, for which no answers can be made, or see `entry_lines`.
    """
    if data_preparation.source == "countdown":
        rows = _countdown_lines(data_preparation, starter_policy, seed)
    elif data_preparation.source == "reasoning_gym":
        rows = _entry_lines(data_preparation, starter_policy, seed)
    else:
        raise ValueError(
            f"no starter policy can be made for data_preparation.source = {data_preparation.source!r}: its corpus "
            "needs more prompts and answers than a file holds. Set countdown or reasoning_gym"
        )
    return pd.DataFrame(rows, columns=STARTER_CORPUS.names)


def _countdown_lines(
    data_preparation: DataPreparationParameters, starter_policy: StarterPolicyParameters, seed: int
) -> list[dict[str, str]]:
    """Puzzles with expressions.

    A line draws how many numbers, the numbers, and an expression over them; the expression's value is the target, so
    that every answer of a puzzle is shown as often as chance finds it.
    """
    from paced_rl.prompts.countdown import countdown_prompts
    from paced_rl.training.starter_expressions import draw_expression, random_expression

    task = data_preparation.countdown
    prompts = countdown_prompts(**task.model_dump(), **data_preparation.split_sizes, seed=derive_seed(seed, "prompts"))
    held_out = {
        (tuple(sorted(prompt.verifier_arguments["numbers"])), prompt.verifier_arguments["target"])
        for prompt in prompts
        if prompt.split != Split.TRAIN
    }
    generator = random.Random(derive_seed(seed, "starter_corpus"))
    first_random_line = round(starter_policy.num_lines * (1 - starter_policy.mixed_share))
    ranges = task.model_dump(exclude={"template"})
    rows: list[dict[str, str]] = []
    while len(rows) < starter_policy.num_lines:
        numbers, target, answer = draw_expression(**ranges, generator=generator)
        if (tuple(sorted(numbers)), target) in held_out:
            continue
        is_random = len(rows) >= first_random_line and generator.random() < starter_policy.random_fraction
        rows.append(
            {
                "prompt": task.template.format(numbers=" ".join(map(str, numbers)), target=target),
                "completion": random_expression(numbers, generator) if is_random else answer,
                "kind": "random" if is_random else "solution",
            }
        )
    return rows


def _entry_lines(
    data_preparation: DataPreparationParameters, starter_policy: StarterPolicyParameters, seed: int
) -> list[dict[str, str]]:
    """Entries of a reasoning_gym dataset with their answers."""
    from paced_rl.prompts.reasoning_gym import reasoning_gym_prompts
    from paced_rl.training.starter_entries import check_lines, entry_lines

    task = data_preparation.reasoning_gym.model_dump()
    prompts = reasoning_gym_prompts(**task, **data_preparation.split_sizes, seed=derive_seed(seed, "prompts"))
    lines = entry_lines(
        dataset=task["dataset"],
        config=task["config"],
        template=task["template"],
        held_out=[prompt.text for prompt in prompts if prompt.split != Split.TRAIN],
        num_lines=starter_policy.num_lines,
        mixed_share=starter_policy.mixed_share,
        random_fraction=starter_policy.random_fraction,
        seed=derive_seed(seed, "starter_corpus"),
    )
    check_lines(lines, prompts, known_characters=CHARACTERS, max_tokens=MAX_POSITIONS)
    return lines


def train_starter_policy(
    starter_corpus: pd.DataFrame, starter_policy: StarterPolicyParameters, seed: int
) -> tuple[CheckpointFiles, pd.DataFrame]:
    """A Hugging Face folder with the trained policy, and its loss per step."""
    from paced_rl.policies import LoadedPolicy
    from paced_rl.starter import build_character_tokenizer, build_tiny_qwen2, folder_files
    from paced_rl.training.starter_training import train_starter

    others = set().union(*starter_corpus["prompt"], *starter_corpus["completion"]) - set(CHARACTERS)
    tokenizer = build_character_tokenizer(CHARACTERS + "".join(sorted(others)))
    model = build_tiny_qwen2(
        tokenizer,
        hidden_size=starter_policy.hidden_size,
        num_layers=starter_policy.num_layers,
        num_heads=starter_policy.num_heads,
        intermediate_size=starter_policy.intermediate_size,
        max_positions=MAX_POSITIONS,
        seed=derive_seed(seed, "starter_weights"),
    )
    prompts = tokenizer(starter_corpus["prompt"].to_list())["input_ids"]
    answers = tokenizer(starter_corpus["completion"].to_list())["input_ids"]
    with progress_bar("starter policy", len(prompts)) as advance:
        losses = train_starter(
            LoadedPolicy(model=model, tokenizer=tokenizer, pad_token_id=0, eos_token_ids=(tokenizer.eos_token_id,)),
            prompts,
            [[*answer, tokenizer.eos_token_id] for answer in answers],
            batch_size=starter_policy.batch_size,
            learning_rate=starter_policy.learning_rate,
            on_progress=advance,
        )
    curve = pd.DataFrame({"step": range(1, len(losses) + 1), "loss": losses})
    return CheckpointFiles(files=folder_files(model, tokenizer), metadata={"policy_version": 0}), curve
