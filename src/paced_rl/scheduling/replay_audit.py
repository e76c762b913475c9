"""What replay is worth: how much of a priority is luck, and what replayed rows would do to log Z."""

import numpy as np
from jaxtyping import Float, Shaped


def log_z_shift(
    observed_accuracy: Float[np.ndarray, " num_replayed"],
    group_keys: Shaped[np.ndarray, " num_replayed"],
    *,
    group_size: int,
    reward_temperature: float,
) -> Float[np.ndarray, " num_replayed"]:
    """How far replayed completions would pull the log Z of the group they were sampled in, if they trained the head.

        shift = ((n·p + m) / (n + m) − p) / β = m·(1 − p) / ((n + m)·β)

    n is the group's size, p its observed accuracy, m how many of its completions are replayed; all of them are right.
    It is the difference of the group's mean targets, r/β at π_θ = π_old, with and without the replayed rows. Never
    negative; zero where the group was all right. At n = 8, m = 2, p = 0.3 the accuracy that is fitted is 0.44.

    Args:
        observed_accuracy: p of the group each completion was sampled in.
        group_keys: text; equal for completions of one group.
        group_size: n, at least 1.
        reward_temperature: β, above 0.

    Returns:
        Nats, for each completion that of its group.
    """
    keys = np.asarray(group_keys, dtype=np.str_)
    _, position, counts = np.unique(keys, return_inverse=True, return_counts=True)
    num_replayed = counts[position]
    observed = np.asarray(observed_accuracy, dtype=np.float64)
    return num_replayed * (1 - observed) / ((group_size + num_replayed) * reward_temperature)
