"""How far replayed completions would pull log Z: by hand, against the definition, and its edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paced_rl.scheduling import log_z_shift


def shift_of(observed: list[float], keys: list[str], *, group_size: int = 8, beta: float = 0.05) -> list[float]:
    found = log_z_shift(
        np.array(observed), np.array(keys, dtype=object), group_size=group_size, reward_temperature=beta
    )
    return found.tolist()


def test_the_example_of_the_paper_map() -> None:
    """p = 0.3 with 8 fresh and 2 replayed correct completions fits 0.44."""
    assert shift_of([0.3, 0.3], ["a", "a"]) == pytest.approx([(0.44 - 0.3) / 0.05] * 2)


def test_groups_are_told_apart_and_a_solved_one_is_not_pulled() -> None:
    assert shift_of([0.5, 1.0, 0.5, 0.5], ["a", "b", "a", "c"]) == pytest.approx(
        [(6 / 10 - 0.5) / 0.05, 0.0, (6 / 10 - 0.5) / 0.05, (5 / 9 - 0.5) / 0.05]
    )
    assert shift_of([], []) == []


@settings(deadline=None, max_examples=100)
@given(
    groups=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    beta=st.floats(0.01, 1),
)
def test_it_is_the_difference_of_mean_targets(groups: list[tuple[int, int]], beta: float) -> None:
    """Targets at π_θ = π_old are r/β: those of the group of 9, and then those of its replayed right answers too."""
    observed, keys, expected = [], [], []
    for index, (num_right, num_replayed) in enumerate(groups):
        rewards = [1.0] * num_right + [0.0] * (9 - num_right)
        without = np.mean(rewards) / beta
        together = np.mean(rewards + [1.0] * num_replayed) / beta
        observed += [num_right / 9] * num_replayed
        keys += [f"group {index}"] * num_replayed
        expected += [together - without] * num_replayed
    found = shift_of(observed, keys, group_size=9, beta=beta)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert min(found) >= 0
