"""β·log Z as an accuracy."""

import numpy as np
import pytest

from paced_rl.scheduling import estimated_accuracy


def test_by_hand() -> None:
    assert np.allclose(estimated_accuracy(np.array([0.0, 5.0, 20.0]), 0.05), [0.0, 0.25, 1.0], atol=1e-15)


def test_rounding_of_float32_comes_back_to_the_bound() -> None:
    log_z = np.array([20.000001, -1e-6], dtype=np.float32)
    assert estimated_accuracy(log_z, 0.05).tolist() == [1.0, 0.0]
    assert estimated_accuracy(log_z, 0.05).dtype == np.float64


@pytest.mark.parametrize("bad", [20.001, -0.001, np.nan, np.inf])
def test_outside_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"1 of 3 .*\[1\]"):
        estimated_accuracy(np.array([1.0, bad, 2.0]), 0.05)


@pytest.mark.parametrize("reward_temperature", [0.0, -1.0, float("nan")])
def test_reward_temperature_is_positive(reward_temperature: float) -> None:
    with pytest.raises(ValueError, match="reward_temperature"):
        estimated_accuracy(np.zeros(1), reward_temperature)


def test_empty_stays_empty() -> None:
    assert estimated_accuracy(np.empty(0), 0.05).shape == (0,)
