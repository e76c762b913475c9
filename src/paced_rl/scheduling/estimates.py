"""From the learned partition function to an accuracy."""

import numpy as np
from jaxtyping import Float

ROUNDING_TOLERANCE = 1e-6
"""How far outside [0, 1] an estimate may lie through rounding: about ten float32 steps at 1."""


def estimated_accuracy(log_z: Float[np.ndarray, "*shape"], reward_temperature: float) -> Float[np.ndarray, "*shape"]:
    """The accuracy of the behaviour policy on each prompt, as the partition function implies it.

        estimated_accuracy = β · log Z

    It is the exact accuracy plus β·KL(π_old ‖ π_θ) when log Z is optimal, and exact where the two policies agree.
    Zero when log Z is zero. An excess within `ROUNDING_TOLERANCE` is brought back to the bound; a larger one is an
    error, because the bounded head cannot produce it and a clipped value would hide a diverged one.

    Source: Proposition 4.1, https://arxiv.org/abs/2602.12642.

    Args:
        log_z: any shape, nats.
        reward_temperature: β, above 0.

    Returns:
        float64 in [0, 1], of the same shape.

    Raises:
        ValueError: an estimate that is not finite or lies outside [0, 1], or a reward temperature that is not above 0.
    """
    if not reward_temperature > 0:
        raise ValueError(f"reward_temperature = {reward_temperature}: it must be above 0")
    estimates = np.asarray(log_z, dtype=np.float64) * reward_temperature
    # Written so that NaN counts as outside.
    outside = ~((estimates >= -ROUNDING_TOLERANCE) & (estimates <= 1 + ROUNDING_TOLERANCE))
    if outside.any():
        positions = np.flatnonzero(outside)
        raise ValueError(
            f"{positions.size} of {estimates.size} accuracy estimates are outside [0, 1], first at positions "
            f"{positions[:5].tolist()} with values {estimates[outside][:5].tolist()}: "
            "use a head that bounds log Z in [0, 1/β], with the reward_temperature it was trained with"
        )
    return np.clip(estimates, 0.0, 1.0)
