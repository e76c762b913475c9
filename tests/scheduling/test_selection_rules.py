"""Selectors beyond `nearest` and `uniform`, against slow references and exact probabilities."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paced_rl.scheduling import Beliefs, nearest, pass_rate_variance, posterior, softened, thompson
from paced_rl.seeds import derive_generator

ESTIMATES = np.array([0.1, 0.45, 0.5, 0.8])


def draw_softened(seed: int, *, softening: float = 0.2, count: int = 2) -> list[int]:
    generator = derive_generator(seed, "softened")
    return softened(
        ESTIMATES, target_accuracy=0.5, softening=softening, num_prompts=count, generator=generator
    ).tolist()


def test_softened_draws_one_by_one_without_replacement() -> None:
    """χ² of ordered pairs against w_i/Σw · w_j/(Σw − w_i); the seeds are fixed."""
    weights = [math.exp(-((estimate - 0.5) ** 2) / (2 * 0.2**2)) for estimate in ESTIMATES]
    num_draws, total = 6000, sum(weights)
    counts = dict.fromkeys(itertools.permutations(range(4), 2), 0)
    for seed in range(num_draws):
        counts[tuple(draw_softened(seed))] += 1  # type: ignore[index]
    chi_squared = 0.0
    for (first, second), count in counts.items():
        expected = num_draws * weights[first] / total * weights[second] / (total - weights[first])
        chi_squared += (count - expected) ** 2 / expected
    assert chi_squared < 31.26  # 99.9 % quantile at 11 degrees of freedom


def test_softened_lies_between_nearest_and_uniform() -> None:
    assert {tuple(draw_softened(seed, softening=1e-4)) for seed in range(20)} == {(2, 1)}
    firsts = np.bincount([draw_softened(seed, softening=1e4, count=1)[0] for seed in range(2000)], minlength=4)
    assert ((firsts - 500) ** 2 / 500).sum() < 16.27  # 99.9 % quantile at 3 degrees of freedom


def test_softened_takes_all_when_asked_for_all() -> None:
    assert sorted(draw_softened(3, count=4)) == [0, 1, 2, 3]
    assert draw_softened(3, count=0) == []


def test_softened_refuses_no_softening_and_bad_estimates() -> None:
    with pytest.raises(ValueError, match=r"scheduling.softening = 0.0.*nearest"):
        draw_softened(0, softening=0.0)
    with pytest.raises(ValueError, match="1 of 1 accuracy estimates are not finite"):
        softened(
            np.array([np.nan]), target_accuracy=0.5, softening=0.1, num_prompts=1, generator=derive_generator(0, "x")
        )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=30), st.data())
def test_posterior_is_a_full_sort(counts: list[tuple[int, int]], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(counts)))
    right, wrong = (np.array(column, dtype=float) for column in zip(*counts, strict=True))

    def value(index: int) -> float:
        a, b = map(float, counts[index])
        return a * b / ((a + b) * (a + b + 1.0))

    expected = sorted(range(len(counts)), key=lambda index: (-value(index), index))[:number]
    assert posterior(Beliefs(right=right, wrong=wrong), num_prompts=number).tolist() == expected


def test_posterior_prefers_what_is_known_to_be_at_one_half() -> None:
    beliefs = Beliefs(right=np.array([1.0, 10.0, 16.0]), wrong=np.array([1.0, 10.0, 4.0]))
    # m(1 − m) is 0.25, 0.25, 0.16, and the doubt 1/12, 0.0119, 0.0076.
    assert posterior(beliefs, num_prompts=3).tolist() == [1, 0, 2]


def test_thompson_is_nearest_on_one_draw_of_each() -> None:
    beliefs = Beliefs(right=np.linspace(0.5, 9, 40), wrong=np.linspace(9, 0.5, 40))
    draws = derive_generator(5, "thompson").beta(beliefs.right, beliefs.wrong)
    found = thompson(beliefs, target_accuracy=0.5, num_prompts=8, generator=derive_generator(5, "thompson")).tolist()
    assert found == nearest(draws, target_accuracy=0.5, num_prompts=8).tolist()


def test_thompson_of_firm_beliefs_is_nearest_on_the_means() -> None:
    means = np.linspace(0.05, 0.95, 19)
    beliefs = Beliefs(right=1e9 * means, wrong=1e9 * (1 - means))
    found = thompson(beliefs, target_accuracy=0.26, num_prompts=3, generator=derive_generator(0, "t")).tolist()
    assert found == nearest(means, target_accuracy=0.26, num_prompts=3).tolist()


def test_thompson_explores_equal_beliefs_equally() -> None:
    beliefs = Beliefs(right=np.ones(5), wrong=np.ones(5))
    counts = np.zeros(5)
    for seed in range(2000):
        counts[thompson(beliefs, target_accuracy=0.5, num_prompts=1, generator=derive_generator(seed, "equal"))] += 1
    assert ((counts - 400) ** 2 / 400).sum() < 18.47  # 99.9 % quantile at 4 degrees of freedom


def take_by_variance(accuracies: list[float], ages: list[float], count: int, *, seed: int = 0) -> list[int]:
    return pass_rate_variance(
        np.array(accuracies),
        np.array(ages),
        num_prompts=count,
        retest_share=0.25,
        retest_after=10,
        generator=derive_generator(seed, "variance"),
    ).tolist()


NAN, INF = math.nan, math.inf


def test_pass_rate_variance_by_hand() -> None:
    #             0     1    2     3    4    5    6     7
    accuracies = [0.25, 0.5, 0.75, 1.0, 0.0, 1.0, 0.125, NAN]
    ages = [1.0, 9.0, 2.0, 12.0, 9.0, 9.0, 30.0, INF]
    # Of 4 places one is a test: the prompt without measurement comes before the one solved 12 rounds ago.
    assert take_by_variance(accuracies, ages, 4)[0] == 1
    assert set(take_by_variance(accuracies, ages, 4)[1:3]) == {0, 2}
    assert take_by_variance(accuracies, ages, 4)[3] == 7
    # Of 8 places two: then the solved prompt too. Those solved or unsolved 9 rounds ago are last.
    everything = take_by_variance(accuracies, ages, 8)
    assert everything[3:6] == [6, 7, 3]
    assert set(everything[6:]) == {4, 5}


def test_places_that_one_kind_cannot_fill_go_to_the_other() -> None:
    assert set(take_by_variance([NAN] * 4, [INF] * 4, 4)) == {0, 1, 2, 3}
    assert take_by_variance([0.5, 0.25, 0.125], [1.0, 1.0, 1.0], 3) == [0, 1, 2]
    assert set(take_by_variance([0.0, 1.0], [1.0, 1.0], 2)) == {0, 1}


def test_ties_are_broken_at_random() -> None:
    counts = np.zeros(6)
    for seed in range(1200):
        counts[take_by_variance([0.5] * 6, [1.0] * 6, 1, seed=seed)] += 1
    assert ((counts - 200) ** 2 / 200).sum() < 20.52  # 99.9 % quantile at 5 degrees of freedom


@settings(deadline=None)
@given(st.data())
def test_pass_rate_variance_takes_each_prompt_once(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 30))
    measured = data.draw(st.lists(st.booleans(), min_size=total, max_size=total))
    accuracies = [data.draw(st.integers(0, 4)) / 4 if known else NAN for known in measured]
    ages = [float(data.draw(st.integers(1, 30))) if known else INF for known in measured]
    count = data.draw(st.integers(0, total))
    found = take_by_variance(accuracies, ages, count)
    assert len(set(found)) == len(found) == count
    # Everything informative is taken before anything solved or unsolved that is not due.
    is_idle = [p in (0.0, 1.0) and age < 10 for p, age in zip(accuracies, ages, strict=True)]
    if any(is_idle[index] for index in found):
        assert all(index in found for index in range(total) if not is_idle[index])


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_prompts = 3: it must lie in \[0, 2\]"):
        take_by_variance([0.5, 0.5], [1.0, 1.0], 3)
