"""Seeds: pinned values, labels that never collide, no global generator touched."""

import random
from enum import StrEnum

import numpy as np
import pytest
import torch

from paced_rl.seeds import derive_generator, derive_seed


class _Label(StrEnum):
    AUDIT = "audit"


@pytest.mark.parametrize(
    ("experiment_seed", "labels", "expected"),
    [
        (0, (), 6197007067532723406),
        (7, (), 1723238359495444684),
        (0, ("schedule",), 6513798688328869285),
        (0, ("rollout", 3, "00ff00ff00ff00ff", 5), 6981008410758454615),
        (2**62, ("a", "b"), 5169867640355826892),
        (-1, ("a",), 3132528558687717278),
    ],
)
def test_known_seeds_stay(experiment_seed: int, labels: tuple[str | int, ...], expected: int) -> None:
    """A change here changes every experiment that was ever run."""
    assert derive_seed(experiment_seed, *labels) == expected


def test_known_draws_stay() -> None:
    assert derive_generator(0, "audit", "epoch", 0).integers(0, 1000, size=5).tolist() == [813, 459, 948, 968, 900]
    assert derive_generator(0, "audit", "epoch", 1).permutation(6).tolist() == [4, 5, 1, 2, 3, 0]


def test_text_and_number_differ() -> None:
    assert derive_seed(0, "1") != derive_seed(0, 1)


def test_path_is_not_its_concatenation() -> None:
    paths: list[tuple[str | int, ...]] = [
        ("ab",),
        ("a", "b"),
        ("b", "a"),
        ("a", "b", ""),
        ("a, b",),
        ("a', 'b",),
        (1, 2),
        (12,),
    ]
    assert len({derive_seed(0, *path) for path in paths}) == len(paths)


def test_numpy_integers_and_enums_are_plain_ones() -> None:
    assert derive_seed(np.int64(3), np.int32(5), _Label.AUDIT) == derive_seed(3, 5, "audit")
    assert derive_seed(3, np.str_("audit")) == derive_seed(3, "audit")


def test_seeds_fit_signed_64_bits() -> None:
    seeds = [derive_seed(seed, "range") for seed in range(2000)]
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    assert max(seeds) > 2**62  # the upper half is used


def test_no_collision_among_a_million_rollouts() -> None:
    """Neighbouring experiment seeds, rounds, prompts and samples, which `seed + round` and the like would make meet."""
    seeds = {
        derive_seed(experiment_seed, "rollout", round_number, prompt_id, sample)
        for experiment_seed in range(5)
        for round_number in range(1, 26)
        for prompt_id in map("{:016x}".format, range(1000))
        for sample in range(8)
    }
    assert len(seeds) == 1_000_000


def test_no_global_generator_is_consumed() -> None:
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    derive_generator(0, "anything").permutation(100)
    assert random.getstate() == python_state
    assert np.random.get_state()[2] == numpy_state[2]  # type: ignore[index]
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_streams_look_independent() -> None:
    """Correlation of neighbouring streams stays within five standard errors of 0."""
    draws = np.stack([derive_generator(0, "stream", number).random(4000) for number in range(6)])
    correlations = np.corrcoef(draws)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)
