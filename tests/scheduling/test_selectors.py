"""Selectors against slow references and against what an epoch promises."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paced_rl.scheduling import nearest, uniform_positions
from paced_rl.seeds import derive_generator

# Eighths are exact in binary, so that ties are many and exact.
EIGHTHS = st.integers(0, 8).map(lambda numerator: numerator / 8)


def nearest_by_full_sort(estimates: list[float], target: float, count: int) -> list[int]:
    return sorted(range(len(estimates)), key=lambda index: (abs(estimates[index] - target), index))[:count]


def draws_one_by_one(total: int, seed: int, stream: str, phase: int, block: int, num_draws: int) -> list[int]:
    """The documented rule in plain lists: the whole sequence from its beginning, one epoch after the other."""
    sequence = derive_generator(seed, stream, "epoch", 0).permutation(total).tolist()
    epoch = 1
    while len(sequence) < num_draws:
        permutation = derive_generator(seed, stream, "epoch", epoch).permutation(total).tolist()
        filled = (len(sequence) - phase) % block
        tail = sequence[len(sequence) - filled :]
        head = [prompt for prompt in permutation if prompt not in tail][: block - filled]
        sequence += head + [prompt for prompt in permutation if prompt not in head]
        epoch += 1
    return sequence[:num_draws]


@given(st.lists(st.one_of(EIGHTHS, st.floats(0, 1)), min_size=1, max_size=60), EIGHTHS, st.data())
def test_nearest_is_a_full_sort(estimates: list[float], target: float, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(estimates)))
    selected = nearest(np.array(estimates), target_accuracy=target, num_prompts=count)
    assert selected.tolist() == nearest_by_full_sort(estimates, target, count)


def test_nearest_by_hand() -> None:
    estimates = np.array([0.5, 0.25, 1.0, 0.75, 0.5, 0.0])
    # Distances 0, ¼, ½, ¼, 0, ½; the third place is a tie between 1 and 3.
    assert nearest(estimates, target_accuracy=0.5, num_prompts=3).tolist() == [0, 4, 1]


def test_nearest_of_equal_estimates_is_the_first_indices() -> None:
    assert nearest(np.full(100_000, 0.5), target_accuracy=0.2, num_prompts=5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nearest_refuses_what_is_not_finite(bad: float) -> None:
    with pytest.raises(ValueError, match=r"2 of 4 .* not finite.*\[1, 3\]"):
        nearest(np.array([0.1, bad, 0.2, bad]), target_accuracy=0.5, num_prompts=1)


def test_nearest_refuses_more_than_there_are() -> None:
    with pytest.raises(ValueError, match=r"num_prompts = 4.*\[0, 3\]"):
        nearest(np.zeros(3), target_accuracy=0.5, num_prompts=4)


@settings(deadline=None)
@given(st.integers(1, 25), st.integers(0, 3), st.data())
def test_uniform_positions_follow_the_plain_rule(total: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, total))
    start = data.draw(st.integers(0, 5 * total))
    drawn = uniform_positions(total, experiment_seed=seed, stream="s", start=start, count=count)
    reference = draws_one_by_one(total, seed, "s", start % count, count, start + count)
    assert drawn.tolist() == reference[start:]
    assert len(set(drawn.tolist())) == count


@settings(deadline=None)
@given(st.integers(1, 25), st.integers(0, 3), st.data())
def test_tiling_calls_draw_every_prompt_once_per_epoch(total: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, total))
    rounds = range(-(-3 * total // count))
    sequence = np.concatenate(
        [uniform_positions(total, experiment_seed=seed, stream="s", start=r * count, count=count) for r in rounds]
    )
    for epoch in range(3):
        assert sorted(sequence[epoch * total : (epoch + 1) * total].tolist()) == list(range(total))


def test_first_epoch_by_hand() -> None:
    expected = derive_generator(5, "s", "epoch", 0).permutation(10)
    drawn = uniform_positions(10, experiment_seed=5, stream="s", start=2, count=6)
    assert drawn.tolist() == expected[2:8].tolist()


def test_streams_and_seeds_differ() -> None:
    draws = {
        tuple(uniform_positions(50, experiment_seed=seed, stream=stream, start=0, count=20).tolist())
        for seed in (0, 1)
        for stream in ("audit", "uniform")
    }
    assert len(draws) == 4


def test_each_place_of_a_straddling_call_is_uniform() -> None:
    """χ² of every single place over 4,000 seeds: the rule against repeats must not favour any prompt."""
    total, count, num_seeds = 7, 5, 4000
    draws = np.stack(
        [uniform_positions(total, experiment_seed=s, stream="s", start=5, count=count) for s in range(num_seeds)]
    )
    for place in range(count):
        counts = np.bincount(draws[:, place], minlength=total)
        chi_square = ((counts - num_seeds / total) ** 2 / (num_seeds / total)).sum()
        assert chi_square < 22.46  # 99.9 % quantile at 6 degrees of freedom; the seeds are fixed


def test_no_repeat_at_a_million_prompts_across_an_epoch() -> None:
    total = 1_000_000
    drawn = uniform_positions(total, experiment_seed=0, stream="s", start=total - 100_000, count=300_000)
    assert np.unique(drawn).size == 300_000


@pytest.mark.parametrize(
    ("start", "count", "message"),
    [(0, 4, "count = 4 is above num_prompts_total = 3"), (-1, 2, "start = -1"), (0, -2, "count = -2")],
)
def test_uniform_positions_refuse(start: int, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        uniform_positions(3, experiment_seed=0, stream="s", start=start, count=count)


def test_nothing_asked_nothing_drawn() -> None:
    assert uniform_positions(3, experiment_seed=0, stream="s", start=7, count=0).tolist() == []


def test_nearest_with_exact_estimates_reaches_the_oracle() -> None:
    """With perfect estimates nobody can choose better: the mean p(1 − p) of the choice is the largest possible."""
    accuracies = derive_generator(1, "accuracies").beta(0.4, 0.8, size=2000)
    chosen = accuracies[nearest(accuracies, target_accuracy=0.5, num_prompts=64)]
    best = np.sort(accuracies * (1 - accuracies))[-64:]
    assert np.isclose((chosen * (1 - chosen)).mean(), best.mean(), rtol=1e-12)
    hit_rate_of_oracle = min(1.0, ((accuracies >= 0.25) & (accuracies <= 0.75)).sum() / 64)
    assert ((chosen >= 0.25) & (chosen <= 0.75)).mean() == hit_rate_of_oracle


def test_winners_curse_appears_with_noise() -> None:
    """The error on chosen prompts exceeds the error on uniform ones, as soon as estimates are noisy."""
    generator = derive_generator(2, "accuracies")
    accuracies = generator.beta(0.4, 0.8, size=2000)
    estimates = np.clip(accuracies + generator.normal(0, 0.2, size=2000), 0, 1)
    errors = np.abs(estimates - accuracies)
    chosen = nearest(estimates, target_accuracy=0.5, num_prompts=128)
    uniform = uniform_positions(2000, experiment_seed=2, stream="audit", start=0, count=128)
    assert errors[chosen].mean() > 1.2 * errors[uniform].mean()


def test_boundary_tie_counts_are_exact_rationals() -> None:
    """0.4 and 0.6 are not equally far from 0.5 in binary; the rule follows the stored numbers."""
    estimates = [0.6, 0.4]
    exact = [abs(Fraction(estimate - 0.5)) for estimate in estimates]
    expected = min(range(2), key=lambda index: (exact[index], index))
    assert nearest(np.array(estimates), target_accuracy=0.5, num_prompts=1).tolist() == [expected]
