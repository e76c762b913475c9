"""How one experiment seed becomes every other seed.

A seed is the first 63 bits of BLAKE2b over the experiment seed and a path of labels, so that streams with different
labels are independent, a stream can be recomputed from its labels alone, and no global generator is ever consumed.
63 bits keep it inside Arrow's and PyTorch's signed integers; among 10⁹ rollouts the chance of any collision is 5 %,
and a collision between siblings of one group is 10⁻¹⁸.
"""

import hashlib

import numpy as np


def derive_seed(experiment_seed: int, *labels: str | int) -> int:
    """The seed of the stream named by `labels`, e.g. `derive_seed(seed, "rollout", round, prompt_id, sample_index)`.

    Args:
        experiment_seed: the one seed a user sets.
        labels: path of the stream; a text and a number never collide ("1" is not 1).

    Returns:
        An integer in [0, 2⁶³).
    """
    # NumPy integers and string enums are brought to plain int and str, whose repr is the same everywhere.
    path = repr([int(experiment_seed), *(str(x) if isinstance(x, str) else int(x) for x in labels)]).encode()
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest()) >> 1


def derive_generator(experiment_seed: int, *labels: str | int) -> np.random.Generator:
    """A NumPy generator on the stream named by `labels`."""
    return np.random.Generator(np.random.Philox(derive_seed(experiment_seed, *labels)))
