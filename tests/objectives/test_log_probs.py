"""Log-probabilities of tokens and completions."""

import math

import pytest
import torch
from toy_language_model import draw_parameters, toy_sequence_log_prob

from paced_rl.objectives.log_probs import mean_token_log_prob, sequence_log_prob, token_log_probs


def _random_case(seed: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64) * 3
    return logits.to(dtype), torch.randint(5, (3, 4), generator=generator)


def test_token_log_probs_by_hand():
    logits = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]])
    result = token_log_probs(logits, torch.tensor([[1, 0]]), temperature=1.0)
    torch.testing.assert_close(result, torch.tensor([[math.log(0.75), math.log(0.5)]]))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_token_log_probs_equal_a_loop(temperature):
    logits, token_ids = _random_case(0)
    result = token_log_probs(logits, token_ids, temperature=temperature)
    for b in range(3):
        for t in range(4):
            weights = [math.exp(x / temperature) for x in logits[b, t].tolist()]
            expected = math.log(weights[int(token_ids[b, t])] / sum(weights))
            assert result[b, t].item() == pytest.approx(expected, abs=1e-12)


def test_token_log_probs_gradient():
    logits, token_ids = _random_case(1)
    assert torch.autograd.gradcheck(lambda x: token_log_probs(x, token_ids, temperature=0.7), logits.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_token_log_probs_are_float32_and_exact_for_the_rounded_logits(dtype):
    logits, token_ids = _random_case(2, dtype)
    result = token_log_probs(logits, token_ids, temperature=0.7)
    assert result.dtype == torch.float32
    exact = token_log_probs(logits.double(), token_ids, temperature=0.7)
    torch.testing.assert_close(result.double(), exact, atol=1e-5, rtol=1e-5)


def test_token_log_probs_keep_logits_that_differ_by_a_constant_and_are_huge():
    logits, token_ids = _random_case(3)
    shifted = token_log_probs(logits + 1e4, token_ids, temperature=1.0)
    torch.testing.assert_close(shifted, token_log_probs(logits, token_ids, temperature=1.0), atol=1e-9, rtol=0)


def test_token_log_probs_of_a_forbidden_token_leave_the_others_alone():
    logits = torch.tensor([[[0.0, -torch.inf, 0.0]]], requires_grad=True)
    result = token_log_probs(logits, torch.tensor([[0]]), temperature=1.0)
    result.sum().backward()
    assert result.item() == pytest.approx(math.log(0.5))
    torch.testing.assert_close(logits.grad, torch.tensor([[[0.5, 0.0, -0.5]]]))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_token_log_probs_refuse_a_temperature(temperature):
    logits, token_ids = _random_case(4)
    with pytest.raises(ValueError, match="must be above 0"):
        token_log_probs(logits, token_ids, temperature=temperature)


def test_token_log_probs_refuse_the_id_that_cross_entropy_ignores():
    logits, token_ids = _random_case(5)
    token_ids[1, 2] = -100
    with pytest.raises(IndexError, match="-100"):
        token_log_probs(logits, token_ids, temperature=1.0)


def test_sequence_is_the_sum_and_mean_is_the_mean():
    values = torch.tensor([[-1.0, -2.0, -4.0], [-3.0, -5.0, -7.0], [-1.0, -1.0, -1.0]])
    mask = torch.tensor([[True, True, True], [False, True, False], [False, False, False]])
    assert sequence_log_prob(values, mask).tolist() == [-7.0, -5.0, 0.0]
    torch.testing.assert_close(mean_token_log_prob(values, mask), torch.tensor([-7 / 3, -5.0, 0.0]))


@pytest.mark.parametrize("function", [sequence_log_prob, mean_token_log_prob])
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf])
def test_what_is_under_the_mask_changes_neither_value_nor_gradient(function, garbage):
    values = torch.tensor([[-1.0, -2.0, garbage], [garbage, -5.0, garbage]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, True, False]])
    clean = values.detach().nan_to_num(0, 0, 0).requires_grad_()
    for x in (values, clean):
        function(x, mask).square().sum().backward()
    assert torch.equal(function(values, mask), function(clean, mask))
    assert torch.equal(values.grad, clean.grad)
    assert torch.equal(values.grad[~mask], torch.zeros(3))


@pytest.mark.parametrize("function", [sequence_log_prob, mean_token_log_prob])
def test_padding_permutation_and_batch_split_change_nothing(function):
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(6))
    mask = torch.rand(5, 3, generator=torch.Generator().manual_seed(7)) < 0.6
    whole = function(values, mask)
    padding = torch.full((5, 2), torch.nan)
    padded = function(torch.cat([values, padding], 1), torch.cat([mask, torch.zeros(5, 2, dtype=torch.bool)], 1))
    torch.testing.assert_close(padded, whole)
    order = torch.tensor([3, 0, 4, 2, 1])
    assert torch.equal(function(values[order], mask[order]), whole[order])
    assert torch.equal(torch.cat([function(values[:2], mask[:2]), function(values[2:], mask[2:])]), whole)


@pytest.mark.parametrize("function", [sequence_log_prob, mean_token_log_prob])
def test_masked_gradients(function):
    values = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(8), requires_grad=True)
    mask = torch.tensor([[True, True, False, False], [True] * 4, [True, False, False, False]])
    assert torch.autograd.gradcheck(lambda x: function(x, mask), values)


def test_completions_of_the_toy_model_have_probability_one_together():
    total = toy_sequence_log_prob(draw_parameters(0)).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-14)
