"""What choices were worth: by hand, by enumeration, and how far chance moves it."""

import numpy as np
import pytest
from scipy import stats

from paced_rl.metrics.choices import (
    COLUMNS,
    MEASURES,
    ReferenceRows,
    choice_measures,
    group_values,
    resampled_sums,
    unbiased_reward_variance,
)
from paced_rl.seeds import derive_generator

ROWS = ReferenceRows(uniform=0, oracle=2, hindsight=3)


def integers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize("num_scored", [2, 3, 8])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.8])
def test_reward_variance_is_unbiased_at_any_size(num_scored: int, p: float) -> None:
    counts = np.arange(num_scored + 1)
    values = unbiased_reward_variance(counts, np.full(num_scored + 1, num_scored))
    assert stats.binom(num_scored, p).pmf(counts) @ values == pytest.approx(p * (1 - p))


def test_one_completion_has_no_variance() -> None:
    with pytest.raises(ValueError, match="at least 2 completions of each prompt, got 1"):
        unbiased_reward_variance(integers(0, 1), integers(4, 1))


def example_values() -> np.ndarray:
    """Groups of 8: none right, two right (a hit), one right, all right."""
    return group_values(
        integers(0, 2, 1, 8), integers(8, 8, 8, 8), integers(10, 20, 30, 40), np.array([0.0, 0.5, 1.0, 0.0])
    )


def test_values_by_hand() -> None:
    values = dict(zip(COLUMNS, example_values().T.tolist(), strict=True))
    assert values["count"] == [1, 1, 1, 1]
    assert values["hit"] == [0, 1, 0, 0]
    assert values["informative"] == [0, 1, 1, 0]
    assert values["wasted"] == [10, 0, 0, 40]
    assert values["variance"] == pytest.approx([0, 12 / 56, 7 / 56, 0])
    assert values["left_out_variance"] == [0, 0.25, 0.5, 0]


def example_shares() -> np.ndarray:
    """uniform; the first and the last; the oracle, which took the second twice and the third once; hindsight."""
    return np.array([[0.25] * 4, [0.5, 0, 0, 0.5], [0, 2 / 3, 1 / 3, 0], [0, 0.5, 0.5, 0]])


def test_measures_by_hand() -> None:
    sums = resampled_sums(example_shares(), example_values(), num_resamples=3, generator=derive_generator(0, "test"))
    found = {name: values[0] for name, values in choice_measures(sums, ROWS).items()}
    assert tuple(found) == MEASURES
    nan = np.nan
    uniform, oracle = 19 / 56 / 4, (2 * 0.25 + 0.5) / 3
    np.testing.assert_allclose(found["hit_rate"], [0.25, 0, nan, 0.5])
    np.testing.assert_allclose(found["informative_fraction"], [0.5, 0, nan, 1])
    np.testing.assert_allclose(found["wasted_token_share"], [0.5, 1, nan, 0])
    np.testing.assert_allclose(found["reward_variance"], [uniform, 0, oracle, nan])
    np.testing.assert_allclose(found["regret"], [oracle - uniform, oracle, 0, nan])
    np.testing.assert_allclose(found["captured_headroom"], [0, -uniform / (oracle - uniform), 1, nan])


def test_resamples_scatter_as_the_mean_of_a_sample_does() -> None:
    """The standard deviation of a resampled mean is that of the values by √(P + 1); differences are paired."""
    generator = derive_generator(0, "values")
    values = np.stack([np.ones(200), generator.random(200)], axis=1)
    shares = np.full((2, 200), 1 / 200)
    sums = resampled_sums(shares, values, num_resamples=4000, generator=generator)
    means = sums[:, :, 1] / sums[:, :, 0]
    np.testing.assert_allclose(means[0], values[:, 1].mean())
    assert means[1:, 0].std() == pytest.approx(values[:, 1].std() / np.sqrt(201), rel=0.05)
    np.testing.assert_allclose(means[:, 0], means[:, 1], rtol=1e-12)


def test_sums_of_rounds_are_sums_over_all_their_prompts() -> None:
    """The plain ones; a slow loop beside them."""
    shares, values = example_shares(), example_values()
    sums = resampled_sums(shares, values, num_resamples=0, generator=derive_generator(0, "test"))
    for rule in range(4):
        for column in range(len(COLUMNS)):
            slow = sum(shares[rule, prompt] * values[prompt, column] for prompt in range(4))
            assert sums[0, rule, column] == pytest.approx(slow)
