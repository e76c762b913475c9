"""Embeddings of prompts against one forward pass per prompt."""

from typing import Literal

import numpy as np
import pytest
import torch

from paced_rl.embeddings import embed_prompts
from paced_rl.policies import LoadedPolicy
from paced_rl.starter import build_character_tokenizer, build_tiny_qwen2

NUM_LAYERS, HIDDEN_SIZE = 3, 16
PROMPTS = [[5], [2, 3, 4, 5, 6, 7], [9, 8], [4, 4, 4], [10, 3, 2, 11, 6]]


@pytest.fixture(scope="module")
def policy() -> LoadedPolicy:
    tokenizer = build_character_tokenizer("0123456789+-")
    sizes = {"num_layers": NUM_LAYERS, "num_heads": 2, "intermediate_size": 24, "max_positions": 32}
    model = build_tiny_qwen2(tokenizer, hidden_size=HIDDEN_SIZE, **sizes, seed=4, initializer_range=0.2)
    return LoadedPolicy(model=model, tokenizer=tokenizer, pad_token_id=0, eos_token_ids=(1,))


def embed(policy: LoadedPolicy, *, layer: int = -1, pooling: Literal["last", "mean"] = "last", batch_size: int = 2):
    return list(embed_prompts(policy, PROMPTS, layer=layer, pooling=pooling, batch_size=batch_size))


def states_alone(policy: LoadedPolicy, prompt: list[int], layer: int) -> np.ndarray:
    """Hidden states [tokens, E] of a prompt without a batch."""
    with torch.no_grad():
        outputs = policy.model(input_ids=torch.tensor([prompt]), output_hidden_states=True)
    return outputs.hidden_states[layer][0].numpy()


@pytest.mark.parametrize("layer", [0, 1, NUM_LAYERS, -1, -NUM_LAYERS - 1])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_an_embedding_is_that_of_the_prompt_alone(
    policy: LoadedPolicy, layer: int, pooling: Literal["last", "mean"]
) -> None:
    matrix = np.concatenate(embed(policy, layer=layer, pooling=pooling))

    for embedding, prompt in zip(matrix, PROMPTS, strict=True):
        states = states_alone(policy, prompt, layer)
        expected = states[-1] if pooling == "last" else states.mean(0)
        np.testing.assert_allclose(embedding, expected, atol=1e-5)


def test_layer_0_is_the_token_embedding(policy: LoadedPolicy) -> None:
    table = policy.model.get_input_embeddings().weight.detach().numpy()
    matrix = np.concatenate(embed(policy, layer=0))
    np.testing.assert_array_equal(matrix, table[[prompt[-1] for prompt in PROMPTS]])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batches_come_in_order_and_change_nothing(policy: LoadedPolicy, batch_size: int) -> None:
    parts = embed(policy, batch_size=batch_size)

    assert [len(part) for part in parts] == [
        min(batch_size, len(PROMPTS) - begin) for begin in range(0, len(PROMPTS), batch_size)
    ]
    assert all(part.dtype == np.float32 and part.shape[1] == HIDDEN_SIZE for part in parts)
    np.testing.assert_allclose(np.concatenate(parts), np.concatenate(embed(policy, batch_size=1)), atol=1e-5)


def test_no_prompts_have_no_embeddings(policy: LoadedPolicy) -> None:
    assert list(embed_prompts(policy, [], layer=-1, pooling="last", batch_size=4)) == []


@pytest.mark.parametrize("layer", [NUM_LAYERS + 1, -NUM_LAYERS - 2])
def test_a_layer_that_is_not_there_is_refused(policy: LoadedPolicy, layer: int) -> None:
    with pytest.raises(ValueError, match=rf"embedding_layer = {layer}: .* has 4 hidden states, so -4 to 3 are allowed"):
        embed(policy, layer=layer)
