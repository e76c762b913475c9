"""Top-k and top-p against plain loops, and sampling from what they keep against the trainer's own figures."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from paced_rl.generation.sampling import sample_tokens
from paced_rl.generation.transformers_backend import TransformersGenerator
from paced_rl.generation.truncation import keep_likeliest
from paced_rl.policies import LoadedPolicy
from paced_rl.training.scoring import score_completions
from paced_rl.types import Checkpoint, GenerationRequest, SamplingSettings

LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=8)


def slow_kept(logits: list[float], top_k: int, top_p: float) -> tuple[set[int], float]:
    """Tokens kept, and how near the decision about any of them was."""
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    if top_k:
        order = [token for token in order if logits[token] >= logits[order[min(top_k, len(order)) - 1]]]
    weights = [math.exp(logits[token]) for token in order]
    kept, reached, nearest = [], 0.0, math.inf
    for token, weight in zip(order, weights, strict=True):
        if kept and top_p < 1:
            nearest = min(nearest, abs(reached - top_p))
            if reached >= top_p:
                break
        kept.append(token)
        reached += weight / sum(weights)
    return set(kept), nearest


@given(LOGITS, st.integers(0, 9), st.floats(0.01, 1))
@example([0.0, 0.0, 0.0, -1.0], 2, 1.0)  # three tie for two places
@example([math.log(0.5), math.log(0.3), math.log(0.2)], 0, 0.6)
def test_the_likeliest_tokens_are_kept(logits: list[float], top_k: int, top_p: float) -> None:
    expected, nearest = slow_kept(logits, top_k, top_p)
    kept = keep_likeliest(torch.tensor([logits, logits]), top_k=top_k, top_p=top_p)
    found = kept[0][kept[0].isfinite()]
    if nearest > 1e-5:  # nearer than float32's rounding, either side is right; of tokens that tie, either one is
        assert sorted(found.tolist()) == sorted(torch.tensor([logits[token] for token in expected]).tolist())
    assert torch.equal(kept[0], kept[1])
    assert len(found) > 0


def test_all_tokens_stay_without_a_limit() -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert keep_likeliest(logits, top_k=0, top_p=1.0) is logits


def test_tokens_are_drawn_from_the_renormalised_rest() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(400, -1)
    uniforms = torch.linspace(0, 1, 401, dtype=torch.float64)[:-1]
    tokens, log_probs = sample_tokens(logits, 1.0, uniforms, top_k=3, top_p=0.8)

    # Of the three likeliest, with 0.95 together, the first two have 0.84 of it.
    assert torch.bincount(tokens).tolist() == [250, 150]
    for token, expected in ((0, 0.5 / 0.8), (1, 0.3 / 0.8)):
        assert log_probs[tokens == token].exp().tolist() == pytest.approx([expected] * int((tokens == token).sum()))


def test_greedy_reads_no_limit() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    plain = sample_tokens(logits, 0, torch.zeros(1, dtype=torch.float64))
    assert plain == sample_tokens(logits, 0, torch.zeros(1, dtype=torch.float64), top_k=1, top_p=0.1)
    assert plain[1].item() < 0  # at temperature 1, and not of the one token that is left


@pytest.mark.parametrize(("top_k", "top_p"), [(4, 1.0), (0, 0.7), (5, 0.8)])
def test_the_sampler_reports_what_the_trainer_finds(
    checkpoint: Checkpoint, policy: LoadedPolicy, top_k: int, top_p: float
) -> None:
    settings = SamplingSettings(temperature=1.2, max_new_tokens=12, top_k=top_k, top_p=top_p)
    requests = [GenerationRequest(prompt_token_ids=(5, 6, 7 + i), seeds=tuple(range(i, i + 4))) for i in range(6)]
    groups = TransformersGenerator(device="cpu", dtype="float32", batch_size=16).generate(
        checkpoint, requests, settings
    )
    completions = [completion for group in groups for completion in group]
    prompts = [request.prompt_token_ids for request in requests for _ in request.seeds]

    def score(**cut: float) -> list[np.ndarray]:
        sequences = [completion.token_ids for completion in completions]
        return score_completions(policy, prompts, sequences, temperature=1.2, max_tokens_per_forward=512, **cut)

    for completion, values, whole in zip(completions, score(top_k=top_k, top_p=top_p), score(), strict=True):
        assert completion.log_probs == pytest.approx(values.tolist(), abs=1e-4)
        assert (values >= whole - 1e-6).all()  # a kept token gains what the others lose
    assert {completion.token_ids for completion in completions} != {groups[0][0].token_ids}


def test_a_token_that_the_trainer_would_have_left_out_keeps_a_probability(policy: LoadedPolicy) -> None:
    prompt, completion = (5, 6, 7), (2, 3, 4)
    scored = score_completions(
        policy, [prompt], [completion], temperature=1.0, max_tokens_per_forward=64, top_k=1, top_p=1.0
    )[0]
    logits = policy.model(torch.tensor([prompt + completion])).logits[0].detach().double()
    for step, token in enumerate(completion):
        row = logits[len(prompt) - 1 + step]
        others = row.max() if row.argmax() != token else torch.tensor(-math.inf)
        assert scored[step] == pytest.approx(float(row[token] - torch.logaddexp(row[token], others)), abs=1e-5)


@pytest.mark.parametrize(("top_k", "top_p"), [(-1, 1.0), (0, 0.0), (0, 1.5)])
def test_limits_out_of_range_are_refused(checkpoint: Checkpoint, top_k: int, top_p: float) -> None:
    settings = SamplingSettings(temperature=1.0, max_new_tokens=4, top_k=top_k, top_p=top_p)
    generator = TransformersGenerator(device="cpu", dtype="float32", batch_size=4)
    with pytest.raises(ValueError, match="top_p must be above 0 and at most 1 and top_k at least 0"):
        generator.generate(checkpoint, [GenerationRequest(prompt_token_ids=(5,), seeds=(1,))], settings)
