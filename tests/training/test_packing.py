"""Sequences that share prompts: they hold every row once, with the log-probabilities and gradients it has alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import TEMPERATURE, VOCABULARY, log_probs_alone
from transformers import AutoConfig, AutoModelForCausalLM

from paced_rl.training.packing import PackedBatch, pack_batches
from paced_rl.training.scoring import SHARING_MODEL_TYPES, completion_log_probs, shared_length

HIDDEN_SIZE = 16
CPU = torch.device("cpu")


def model_of(model_type: str, **changes: Any) -> Any:
    """A random model of two layers in float64, whose predictions are far from uniform."""
    sizes = {"hidden_size": HIDDEN_SIZE, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        model_type,
        **{**sizes, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": VOCABULARY, "initializer_range": 0.3}
        | {"max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
        | changes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").double().eval()


def batches_of(prompts: Sequence[Any], completions: Sequence[Any], **limits: int) -> list[PackedBatch]:
    limits = {"max_tokens": 10_000, "max_shared_length": 10_000, **limits}
    return list(pack_batches(prompts, completions, **limits, pad_token_id=0, device=CPU))


tokens = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=6)
few_prompts = st.lists(tokens, min_size=1, max_size=3)


@st.composite
def rows(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts that repeat, in any order, each with a completion."""
    prompts = draw(st.lists(st.sampled_from(draw(few_prompts)), min_size=1, max_size=12))
    return prompts, [draw(tokens) for _ in prompts]


def test_a_prompt_is_read_once_for_its_completions() -> None:
    (batch,) = batches_of([[5, 6], [7], [5, 6]], [[2, 3, 1], [4, 1], [8, 1]])

    assert batch.rows.tolist() == [0, 2, 1]
    assert batch.token_ids.tolist() == [[5, 6, 2, 3, 8, 7, 4]]
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 1]]
    assert batch.completion_ids.tolist() == [2, 3, 1, 8, 1, 4, 1]
    assert batch.predictors.tolist() == [1, 2, 3, 1, 4, 5, 6]
    assert batch.completion_mask.tolist() == [[True, True, True], [True, True, False], [True, True, False]]
    assert batch.attention_mask is not None
    assert batch.attention_mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],  # the second completion sees its prompt and not the first completion
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]


@settings(deadline=None)
@given(rows=rows(), max_tokens=st.integers(1, 60), max_shared_length=st.integers(0, 40))
def test_every_row_is_in_one_batch_and_what_predicts_it_stands_before_it(
    rows: tuple[list[list[int]], list[list[int]]], max_tokens: int, max_shared_length: int
) -> None:
    prompts, completions = rows
    batches = batches_of(prompts, completions, max_tokens=max_tokens, max_shared_length=max_shared_length)

    assert sorted(np.concatenate([batch.rows for batch in batches]).tolist()) == list(range(len(prompts)))
    for batch in batches:
        num_sequences, length = batch.token_ids.shape
        assert num_sequences * length <= max_tokens or num_sequences == 1
        assert (batch.attention_mask is None) == (batch.position_ids is None) == (len(batch.rows) == num_sequences)
        first_predictors = batch.predictors[batch.completion_mask.nonzero()[:, 1] == 0]
        num_rows = torch.bincount(first_predictors // length).tolist()
        lengths = (batch.token_ids != 0).sum(1).tolist()
        limit = min(max_tokens, max_shared_length)
        assert all(used <= limit or count == 1 for used, count in zip(lengths, num_rows, strict=True))
        read = batch.token_ids.flatten()[batch.predictors].tolist()
        for row, mask in zip(batch.rows, batch.completion_mask.tolist(), strict=True):
            assert mask == [place < len(completions[row]) for place in range(len(mask))]
        expected = [token for row in batch.rows for token in [prompts[row][-1], *completions[row][:-1]]]
        assert read == expected
        assert batch.completion_ids.tolist() == [token for row in batch.rows for token in completions[row]]


@settings(deadline=None)
@given(rows=rows())
def test_without_a_limit_no_token_is_read_twice(rows: tuple[list[list[int]], list[list[int]]]) -> None:
    prompts, completions = rows
    (batch,) = batches_of(prompts, completions)
    distinct = {tuple(prompt) for prompt in prompts}

    assert batch.token_ids.shape == (1, sum(map(len, distinct)) + sum(len(y) - 1 for y in completions))


@pytest.mark.parametrize("max_shared_length", [0, 20, 1000])
@pytest.mark.parametrize("model_type", SHARING_MODEL_TYPES)
def test_rows_that_share_a_sequence_are_as_each_alone(model_type: str, max_shared_length: int) -> None:
    model, draw = model_of(model_type), np.random.default_rng(max_shared_length)
    distinct = [draw.integers(1, VOCABULARY, size=length) for length in (1, 4, 4, 7)]
    prompts = [distinct[index] for index in draw.integers(len(distinct), size=14)]
    completions = [draw.integers(1, VOCABULARY, size=draw.integers(1, 9)) for _ in prompts]
    alone = [
        log_probs_alone(model, prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)
    ]
    torch.stack([values.sum() ** 2 for values in alone]).sum().backward()
    expected = gradients_of(model)
    model.zero_grad(set_to_none=True)

    # transformers normalises in float32, whatever the model's type.
    for batch in batches_of(prompts, completions, max_tokens=60, max_shared_length=max_shared_length):
        log_probs = completion_log_probs(model, batch, temperature=TEMPERATURE)
        for row, values in zip(batch.rows, log_probs, strict=True):
            torch.testing.assert_close(values[: len(completions[row])], alone[row], rtol=1e-5, atol=1e-5)
            assert (values[len(completions[row]) :] == 0).all()
        log_probs.sum(1).square().sum().backward()
    torch.testing.assert_close(gradients_of(model), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def gradients_of(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def test_only_models_of_plain_attention_share_sequences() -> None:
    assert {shared_length(model_of(name)) for name in SHARING_MODEL_TYPES if name != "mistral"} == {HIDDEN_SIZE // 2}
    assert shared_length(model_of("mistral", sliding_window=None)) == HIDDEN_SIZE // 2
    assert shared_length(model_of("mistral", sliding_window=4)) == 0
    assert shared_length(model_of("gemma2", sliding_window=4)) == 0


@pytest.mark.parametrize("model_type", ["mistral", "gemma2"])
def test_models_with_a_window_are_scored_row_by_row(model_type: str) -> None:
    model = model_of(model_type, sliding_window=3)  # gemma2 also changes its logits after the projection
    prompts, completions = [[5, 6, 7], [5, 6, 7], [4]], [[2, 3, 9, 8, 1], [3, 1], [9, 9, 1]]
    (batch,) = batches_of(prompts, completions, max_shared_length=shared_length(model))
    log_probs = completion_log_probs(model, batch, temperature=TEMPERATURE)

    assert batch.attention_mask is None
    for row, values in zip(batch.rows, log_probs, strict=True):
        alone = log_probs_alone(model, np.array(prompts[row]), np.array(completions[row]))
        torch.testing.assert_close(values[: len(completions[row])], alone, rtol=1e-5, atol=1e-5)


def test_the_model_keeps_all_its_logits_for_others() -> None:
    model = model_of("qwen2")
    (batch,) = batches_of([[5, 6]], [[2, 99]])  # 99 is no token of the vocabulary
    with pytest.raises(IndexError):
        completion_log_probs(model, batch, temperature=1.0)

    assert model(input_ids=batch.token_ids).logits.shape == (1, 3, VOCABULARY)
