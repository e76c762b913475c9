"""How rows are cut into steps and passes, and that padding and cutting change no log-probability."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import TEMPERATURE, log_probs_alone, make_examples

from paced_rl.policies import LoadedPolicy
from paced_rl.starter import build_character_tokenizer, build_tiny_qwen2
from paced_rl.training.batches import pad_batch, split_microbatches, split_minibatches
from paced_rl.training.scoring import score_completions


@given(
    num_rows=st.integers(1, 200),
    num_minibatches=st.integers(1, 50),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 5),
)
def test_minibatches_hold_every_row_once_in_nearly_equal_parts(
    num_rows: int, num_minibatches: int, seed: int, epoch: int
) -> None:
    parts = split_minibatches(num_rows, num_minibatches, seed=seed, epoch=epoch)
    sizes = [len(part) for part in parts]

    assert sorted(np.concatenate(parts).tolist()) == list(range(num_rows))
    assert len(parts) == min(num_rows, num_minibatches)
    assert max(sizes) - min(sizes) <= 1
    again = split_minibatches(num_rows, num_minibatches, seed=seed, epoch=epoch)
    assert all(np.array_equal(part, other) for part, other in zip(parts, again, strict=True))


def test_each_epoch_and_seed_has_its_own_shuffle() -> None:
    orders = {
        tuple(split_minibatches(50, 1, seed=seed, epoch=epoch)[0].tolist()) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 4


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=60), max_tokens=st.integers(1, 300))
def test_micro_batches_stay_under_the_budget(lengths: list[int], max_tokens: int) -> None:
    array = np.array(lengths)
    parts = split_microbatches(array, max_tokens=max_tokens)

    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    for part in parts:
        assert len(part) * array[part].max() <= max_tokens or len(part) == 1
    for part, following in pairwise(parts):
        assert array[part].max() <= array[following].min()
        assert (len(part) + 1) * array[following].min() > max_tokens  # no part could have taken one row more


def test_padding_stands_on_the_right_and_outside_the_mask() -> None:
    batch = pad_batch([[5, 6], [7, 8, 9]], [[1, 2, 3], [4]], pad_token_id=0, device="cpu")

    assert batch.token_ids.tolist() == [[5, 6, 1, 2, 3], [7, 8, 9, 4, 0]]
    assert batch.start == 2
    assert batch.completion_ids.tolist() == [[1, 2, 3], [9, 4, 0]]
    assert batch.completion_mask.tolist() == [[True, True, True], [False, True, False]]


@pytest.fixture(scope="module")
def policy() -> LoadedPolicy:
    tokenizer = build_character_tokenizer("0123456789+-")
    sizes = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24, "max_positions": 64}
    model = build_tiny_qwen2(tokenizer, **sizes, seed=3, initializer_range=0.2)
    return LoadedPolicy(model=model, tokenizer=tokenizer, pad_token_id=0, eos_token_ids=(1,))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), budget=st.sampled_from([1, 25, 60, 10_000]))
def test_scores_are_those_of_each_completion_alone(policy: LoadedPolicy, seed: int, budget: int) -> None:
    examples = make_examples(policy.model, seed=seed)
    done: list[int] = []
    scored = score_completions(
        policy,
        examples.prompts,
        examples.completions,
        temperature=TEMPERATURE,
        max_tokens_per_forward=budget,
        on_progress=done.append,
    )

    assert sum(done) == len(scored) == len(examples.prompts)
    for values, prompt, completion in zip(scored, examples.prompts, examples.completions, strict=True):
        with torch.no_grad():
            alone = log_probs_alone(policy.model, prompt, completion).numpy()
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, alone, atol=2e-5)
        assert (values <= 0).all()
