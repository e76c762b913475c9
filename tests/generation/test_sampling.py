"""One step of sampling against plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from paced_rl.generation.sampling import draw_uniforms, sample_tokens

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=8)
UNIFORM = st.floats(0, 1, exclude_max=True)


def slow_sample(logits: list[float], temperature: float, uniform: float) -> tuple[int, float, float]:
    """Token, its probability, and the distance of the uniform number from the nearest boundary between two tokens."""
    largest = max(logits)
    weights = [math.exp((logit - largest) / temperature) for logit in logits]
    probabilities = [weight / sum(weights) for weight in weights]
    boundaries = [sum(probabilities[: index + 1]) for index in range(len(logits))]
    token = next((index for index, boundary in enumerate(boundaries) if boundary > uniform), len(logits) - 1)
    return token, probabilities[token], min(abs(uniform - boundary) for boundary in boundaries)


@given(LOGITS, st.floats(0.1, 5), UNIFORM)
def test_a_sampled_token_follows_the_inverse_cdf(logits: list[float], temperature: float, uniform: float) -> None:
    token, probability, distance = slow_sample(logits, temperature, uniform)
    tokens, log_probs = sample_tokens(torch.tensor([logits]), temperature, torch.tensor([uniform], dtype=torch.float64))
    if distance > 1e-5:  # nearer than float32 rounding, either side is right
        assert tokens.tolist() == [token]
        assert log_probs.item() == pytest.approx(math.log(probability), abs=2e-5)


@given(LOGITS)
@example([0.0, 1e-30])  # different logits, equal log-probabilities
def test_greedy_takes_the_likeliest_token_and_its_log_prob_at_temperature_one(logits: list[float]) -> None:
    tokens, log_probs = sample_tokens(torch.tensor([logits]), 0, torch.zeros(1, dtype=torch.float64))
    assert logits[int(tokens)] == max(logits)
    expected = max(logits) - math.log(math.fsum(math.exp(logit) for logit in logits))
    assert log_probs.item() == pytest.approx(expected, abs=2e-5)


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]])
    extremes = [0.0, 0.5 - 2**-53, 0.5, 1 - 2**-53]
    tokens, log_probs = sample_tokens(logits.expand(4, -1), 1.0, torch.tensor(extremes, dtype=torch.float64))
    assert tokens.tolist() == [1, 1, 3, 3]
    assert log_probs.tolist() == pytest.approx([math.log(0.5)] * 4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_show_in_the_log_probs(temperature: float) -> None:
    logits = torch.tensor([[0.0, math.nan, 1.0], [0.0, 0.0, 0.0]])
    tokens, log_probs = sample_tokens(logits, temperature, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert log_probs.isfinite().tolist() == [False, True]
    assert all(0 <= token < 3 for token in tokens.tolist())


def test_uniform_streams_depend_on_their_own_seed_alone() -> None:
    together = draw_uniforms([5, 2**63 - 1, 5], 4)
    assert (together[0] == together[2]).all()
    assert (together[0] != together[1]).all()
    assert (draw_uniforms([2**63 - 1], 9)[0, :4] == together[1]).all()
    assert (together[0] == np.random.Generator(np.random.Philox(5)).random(4)).all()
