"""The decode loop against full forward passes, against `model.generate`, and against itself in other batches."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from paced_rl.generation import get_generator
from paced_rl.policies import LoadedPolicy
from paced_rl.types import Checkpoint, Completion, FinishReason, GenerationRequest, SamplingSettings

SETTINGS = SamplingSettings(temperature=1.0, max_new_tokens=24)
TEXTS = ("3 5 7>24:", "1:", "12 20 4 4>50:", "3 5 7>24:", "9 9>18:", "1 2 3 4 5 6 7 8 9 10>55:", "2:")


def make_requests(policy: LoadedPolicy, group_size: int = 6) -> list[GenerationRequest]:
    """Prompts of 2 to 24 tokens, one of them twice, with different seeds everywhere."""
    return [
        GenerationRequest(
            prompt_token_ids=tuple(policy.tokenizer.encode(text, add_special_tokens=False)),
            seeds=tuple(1000 * index + sample for sample in range(group_size)),
        )
        for index, text in enumerate(TEXTS)
    ]


def generate(
    checkpoint: Checkpoint,
    requests: list[GenerationRequest],
    settings: SamplingSettings = SETTINGS,
    batch_size: int = 256,
) -> list[tuple[Completion, ...]]:
    generator = get_generator("transformers", device="cpu", dtype="float32", batch_size=batch_size)
    return generator.generate(checkpoint, requests, settings)


def assert_same(left: list[tuple[Completion, ...]], right: list[tuple[Completion, ...]]) -> None:
    assert [len(group) for group in left] == [len(group) for group in right]
    for one, other in zip(sum(left, ()), sum(right, ()), strict=True):
        assert (one.text, one.token_ids, one.finish_reason) == (other.text, other.token_ids, other.finish_reason)
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def full_forward_log_probs(
    policy: LoadedPolicy, prompt: tuple[int, ...], completion: Completion, temperature: float
) -> torch.Tensor:
    """[num tokens, vocabulary]; one sequence, no cache, no padding."""
    with torch.no_grad():
        logits = policy.model(torch.tensor([prompt + completion.token_ids]), use_cache=False).logits[0]
    return torch.log_softmax(logits[len(prompt) - 1 : -1].float() / temperature, dim=-1)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 13])
def test_batch_size_and_group_splits_change_nothing(
    checkpoint: Checkpoint, policy: LoadedPolicy, batch_size: int
) -> None:
    requests = make_requests(policy)
    assert_same(generate(checkpoint, requests, batch_size=batch_size), generate(checkpoint, requests))


def test_order_and_neighbours_change_nothing(checkpoint: Checkpoint, policy: LoadedPolicy) -> None:
    requests = make_requests(policy)
    whole = generate(checkpoint, requests)
    assert_same(generate(checkpoint, requests[::-1])[::-1], whole)
    assert_same(generate(checkpoint, requests[2:4]), whole[2:4])
    halves = [
        GenerationRequest(prompt_token_ids=request.prompt_token_ids, seeds=request.seeds[half])
        for request in requests
        for half in (slice(0, 2), slice(2, None))
    ]
    parts = generate(checkpoint, halves)
    assert_same([first + second for first, second in zip(parts[::2], parts[1::2], strict=True)], whole)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 1.6])
def test_log_probs_are_those_of_a_full_forward_pass(
    checkpoint: Checkpoint, policy: LoadedPolicy, temperature: float
) -> None:
    requests = make_requests(policy, group_size=3)
    groups = generate(checkpoint, requests, SamplingSettings(temperature=temperature, max_new_tokens=24))
    for request, group in zip(requests, groups, strict=True):
        for completion in group:
            reference = full_forward_log_probs(policy, request.prompt_token_ids, completion, temperature or 1.0)
            expected = reference.gather(1, torch.tensor(completion.token_ids)[:, None]).squeeze(1)
            assert completion.log_probs == pytest.approx(expected.tolist(), abs=1e-5)


def test_greedy_is_the_greedy_search_of_transformers(checkpoint: Checkpoint, policy: LoadedPolicy) -> None:
    requests = make_requests(policy, group_size=2)
    groups = generate(checkpoint, requests, SamplingSettings(temperature=0, max_new_tokens=24))
    for request, group in zip(requests, groups, strict=True):
        sequence = policy.model.generate(
            torch.tensor([request.prompt_token_ids]),
            attention_mask=torch.ones(1, len(request.prompt_token_ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=24,
        )
        expected = tuple(sequence[0, len(request.prompt_token_ids) :].tolist())
        assert [completion.token_ids for completion in group] == [expected, expected]


def test_a_completion_ends_with_its_first_eos_or_at_the_limit(checkpoint: Checkpoint, policy: LoadedPolicy) -> None:
    completions = sum(generate(checkpoint, make_requests(policy, group_size=16)), ())
    for completion in completions:
        assert len(completion.token_ids) == len(completion.log_probs)
        assert not set(policy.eos_token_ids) & set(completion.token_ids[:-1])
        if completion.token_ids[-1] in policy.eos_token_ids:
            assert completion.finish_reason is FinishReason.EOS
        else:
            assert completion.finish_reason is FinishReason.LENGTH
            assert len(completion.token_ids) == 24
        visible = [token for token in completion.token_ids if token not in policy.tokenizer.all_special_ids]
        assert completion.text == policy.tokenizer.decode(visible)
    # Otherwise the test above would say nothing.
    assert {completion.finish_reason for completion in completions} == set(FinishReason)


def test_an_eos_in_the_last_place_counts_as_eos(checkpoint: Checkpoint, policy: LoadedPolicy) -> None:
    requests = make_requests(policy, group_size=16)
    ended = next(
        (request.prompt_token_ids, seed, completion)
        for request, group in zip(requests, generate(checkpoint, requests), strict=True)
        for seed, completion in zip(request.seeds, group, strict=True)
        if completion.finish_reason is FinishReason.EOS and len(completion.token_ids) > 1
    )
    prompt, seed, completion = ended
    length = len(completion.token_ids)
    for limit, reason in ((length, FinishReason.EOS), (length - 1, FinishReason.LENGTH)):
        settings = SamplingSettings(temperature=1.0, max_new_tokens=limit)
        ((short,),) = generate(checkpoint, [GenerationRequest(prompt_token_ids=prompt, seeds=(seed,))], settings)
        assert short.token_ids == completion.token_ids[:limit]
        assert short.finish_reason is reason


def test_frequencies_are_the_exact_distribution(checkpoint: Checkpoint, policy: LoadedPolicy) -> None:
    num_samples, temperature = 4000, 1.3
    prompt = tuple(policy.tokenizer.encode("4 5>20:", add_special_tokens=False))
    request = GenerationRequest(prompt_token_ids=prompt, seeds=tuple(range(num_samples)))
    settings = SamplingSettings(temperature=temperature, max_new_tokens=2)
    (group,) = generate(checkpoint, [request], settings, batch_size=1000)
    first = Counter(completion.token_ids[0] for completion in group)
    second_of: dict[int, Counter[int]] = {token: Counter() for token in first}
    for completion in group:
        if len(completion.token_ids) == 2:
            second_of[completion.token_ids[0]][completion.token_ids[1]] += 1
    most_common = max(second_of, key=lambda token: second_of[token].total())
    for prefix, counts in ((prompt, first), ((*prompt, most_common), second_of[most_common])):
        with torch.no_grad():
            logits = policy.model(torch.tensor([prefix])).logits[0, -1].double()
        probabilities = torch.softmax(logits / temperature, dim=-1).numpy()
        assert _goodness_of_fit(counts, probabilities) > 1e-3


def _goodness_of_fit(counts: Counter[int], probabilities: np.ndarray) -> float:
    """p-value of Pearson's chi-square; tokens with an expected count under 5 are taken together."""
    total = counts.total()
    rare = probabilities * total < 5
    observed = np.array([counts[token] for token in range(len(probabilities))], dtype=float)
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(probabilities[~rare], probabilities[rare].sum()) * total
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    return float(stats.chi2.sf(statistic, df=len(expected) - 1))


def test_seeds_alone_decide_and_global_generators_are_left_alone(checkpoint: Checkpoint, policy: LoadedPolicy) -> None:
    requests = make_requests(policy)
    generate(checkpoint, requests[:1])
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    once = generate(checkpoint, requests)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    torch.manual_seed(2)
    assert generate(checkpoint, requests) == once
    for group in once:
        assert len({completion.token_ids for completion in group}) > 1


def test_progress_adds_up_to_all_completions(checkpoint: Checkpoint, policy: LoadedPolicy) -> None:
    finished: list[int] = []
    generator = get_generator("transformers", device="cpu", dtype="float32", batch_size=10)
    generator.generate(checkpoint, make_requests(policy), SETTINGS, on_progress=finished.append)
    assert sum(finished) == 6 * len(TEXTS)
    assert min(finished) > 0
    assert len(finished) > 5


def test_no_requests_and_no_seeds(checkpoint: Checkpoint) -> None:
    assert generate(checkpoint, []) == []
    assert generate(checkpoint, [GenerationRequest(prompt_token_ids=(5,), seeds=())]) == [()]


def test_a_prompt_must_leave_room_for_its_completion(checkpoint: Checkpoint) -> None:
    settings = SamplingSettings(temperature=1.0, max_new_tokens=4)
    fits = GenerationRequest(prompt_token_ids=(5,) * 60, seeds=(1,))
    assert generate(checkpoint, [fits], settings)[0][0].token_ids
    with pytest.raises(ValueError, match="request 1 has 61 tokens; with max_new_tokens=4 it may have at most 60"):
        generate(checkpoint, [fits, GenerationRequest(prompt_token_ids=(5,) * 61, seeds=(1,))], settings)
    with pytest.raises(ValueError, match="request 0 has an empty prompt"):
        generate(checkpoint, [GenerationRequest(prompt_token_ids=(), seeds=(1,))], settings)


@pytest.mark.parametrize(("temperature", "max_new_tokens"), [(-0.5, 4), (float("nan"), 4), (1.0, 0)])
def test_settings_out_of_range_are_refused(checkpoint: Checkpoint, temperature: float, max_new_tokens: int) -> None:
    settings = SamplingSettings(temperature=temperature, max_new_tokens=max_new_tokens)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        generate(checkpoint, [GenerationRequest(prompt_token_ids=(5,), seeds=(1,))], settings)
