"""Truncated importance weights between the sampler and the trainer."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_language_model import (
    BEHAVIOUR,
    COMPLETION_MASK,
    REWARDS,
    draw_parameters,
    toy_sequence_log_prob,
    toy_token_log_probs,
)

from paced_rl.objectives.sampler_correction import truncated_sequence_weight, truncated_token_weight

MASK = torch.tensor([[True, True], [True, False]])
BEHAVIOUR_LOG_PROBS = torch.tensor([[math.log(0.6), math.log(0.5)], [math.log(0.9), 7.0]], dtype=torch.float64)
SAMPLER_LOG_PROBS = torch.tensor([[math.log(0.2), math.log(0.8)], [math.log(0.6), torch.nan]], dtype=torch.float64)


def test_token_weights_by_hand():
    """0.6/0.2 = 3 is cut to 2; 0.5/0.8 and 0.9/0.6 stay; beyond the end it is 1."""
    weight, is_capped = truncated_token_weight(BEHAVIOUR_LOG_PROBS, SAMPLER_LOG_PROBS, MASK, cap=2.0)
    torch.testing.assert_close(weight, torch.tensor([[2.0, 0.625], [1.5, 1.0]], dtype=torch.float64))
    assert is_capped.tolist() == [[True, False], [False, False]]


def test_sequence_weights_by_hand():
    """3 · 0.625 = 1.875 and 1.5."""
    weight, is_capped = truncated_sequence_weight(BEHAVIOUR_LOG_PROBS, SAMPLER_LOG_PROBS, MASK, cap=1.6)
    torch.testing.assert_close(weight, torch.tensor([1.6, 1.5], dtype=torch.float64))
    assert is_capped.tolist() == [True, False]


def test_long_completions_do_not_overflow():
    behaviour = torch.zeros(1, 5000)
    weight, is_capped = truncated_sequence_weight(behaviour, behaviour - 1, torch.ones(1, 5000).bool(), cap=2.0)
    assert weight.tolist() == [pytest.approx(2.0)]
    assert is_capped.tolist() == [True]


@given(
    gaps=st.lists(st.floats(-3, 3), min_size=1, max_size=6),
    cap=st.floats(1, 5),
)
def test_weights_are_between_0_and_the_cap_and_agree_on_one_token(gaps, cap):
    behaviour = torch.tensor(gaps, dtype=torch.float64)[:, None]
    mask = torch.ones_like(behaviour, dtype=torch.bool)
    of_tokens, tokens_capped = truncated_token_weight(behaviour, torch.zeros_like(behaviour), mask, cap=cap)
    of_sequences, sequences_capped = truncated_sequence_weight(behaviour, torch.zeros_like(behaviour), mask, cap=cap)
    assert torch.equal(of_tokens[:, 0], of_sequences)
    assert torch.equal(tokens_capped[:, 0], sequences_capped)
    assert of_sequences.tolist() == pytest.approx([min(math.exp(gap), cap) for gap in gaps])


def test_weighted_rewards_of_another_sampler_average_to_the_behaviour_policys():
    """Enumerated: Σ π_sampler · (π_old/π_sampler) · r = E over π_old of r, with a cap that cuts nothing off."""
    behaviour, sampler = toy_sequence_log_prob(BEHAVIOUR), toy_sequence_log_prob(draw_parameters(3))
    mask = torch.ones(len(REWARDS), 1, dtype=torch.bool)
    weight, is_capped = truncated_sequence_weight(behaviour[:, None], sampler[:, None], mask, cap=1e9)
    assert not is_capped.any()
    torch.testing.assert_close((sampler.exp() * weight * REWARDS).sum(), (behaviour.exp() * REWARDS).sum())


def test_a_truncated_samplers_rewards_average_to_those_of_the_completions_it_can_draw():
    """Enumerated: a sampler of the two likeliest tokens, renormalised, weighs Σ π_old · r over what it keeps."""
    kept = torch.ones(3, 3, dtype=torch.bool).scatter(1, BEHAVIOUR.argmin(dim=1, keepdim=True), False)
    sampler = toy_token_log_probs(BEHAVIOUR.masked_fill(~kept, -torch.inf))
    behaviour = toy_token_log_probs(BEHAVIOUR)
    can_draw = torch.where(COMPLETION_MASK, sampler, 0.0).sum(-1).isfinite()
    assert 0 < int(can_draw.sum()) < len(REWARDS)
    rows = (behaviour[can_draw], sampler[can_draw], COMPLETION_MASK[can_draw])
    weight, _ = truncated_sequence_weight(*rows, cap=1.0)  # the cap cuts nothing off: no weight is above 1
    probability = torch.where(rows[2], rows[1], 0.0).sum(-1).exp()
    torch.testing.assert_close(probability.sum(), torch.tensor(1.0, dtype=torch.float64))
    expected = (toy_sequence_log_prob(BEHAVIOUR).exp() * REWARDS)[can_draw].sum()
    torch.testing.assert_close((probability * weight * REWARDS[can_draw]).sum(), expected)
