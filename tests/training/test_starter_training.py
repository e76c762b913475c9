"""The starter's training."""

import pytest

from paced_rl.policies import LoadedPolicy
from paced_rl.starter import build_character_tokenizer, build_tiny_qwen2
from paced_rl.training.starter_training import train_starter


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
            [*prompts * 60, prompts[0]],
            [*completions * 60, completions[0]],
            batch_size=16,
            learning_rate=2e-2,
            on_progress=done.append,
        )
        assert len(losses) == 60
        assert sum(done) == 60 * 16, "a line that fills no batch is left over"
        runs.append(losses)

    assert runs[0] == runs[1]
    assert runs[0][0] == pytest.approx(3.18, abs=0.1)  # nats of a uniform choice among 24 tokens
    assert runs[0][-1] < 0.5 * runs[0][0]
