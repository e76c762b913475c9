"""The starter's corpus and its training."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paced_rl.policies import LoadedPolicy
from paced_rl.starter import build_character_tokenizer, build_tiny_qwen2
from paced_rl.training.starter_training import random_expression, train_starter


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


def test_training_teaches_the_corpus_and_repeats() -> None:
    tokenizer = build_character_tokenizer("0123456789+-*/()>: ")
    prompts = [tokenizer.encode(f"{a} {b}>{a + b}:") for a in range(1, 5) for b in range(1, 5)]
    completions = [[*tokenizer.encode(f"{a}+{b}"), 1] for a in range(1, 5) for b in range(1, 5)]
    runs = []
    for _ in range(2):
        sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "max_positions": 32}
        model = build_tiny_qwen2(tokenizer, **sizes, seed=0)
        policy = LoadedPolicy(model=model, tokenizer=tokenizer, pad_token_id=0, eos_token_ids=(1,))
        done: list[int] = []
        losses = train_starter(
            policy,
            prompts,
            completions,
            num_steps=60,
            batch_size=16,
            learning_rate=2e-2,
            seed=0,
            on_progress=done.append,
        )
        assert sum(done) == len(losses) == 60
        runs.append(losses)

    assert runs[0] == runs[1]
    assert runs[0][0] == pytest.approx(3.18, abs=0.1)  # nats of a uniform choice among 24 tokens
    assert runs[0][-1] < 0.5 * runs[0][0]
