"""Whether the scheduled prompts had something to teach: groups that are all right or all wrong have no contrast."""

import numpy as np
from jaxtyping import Bool, Float

HIT_RANGE = (0.25, 0.75)
"""Observed accuracies that count as near the target of 0.5; both ends included."""


def informative_fraction(observed_accuracy: Float[np.ndarray, "P"]) -> float:
    """Share of groups with 0 < observed accuracy < 1.

    Args:
        observed_accuracy: mean reward of each group; NaN where nothing was scored, which is left out.

    Returns:
        A share; NaN where no group is left.
    """
    return _share((observed_accuracy > 0) & (observed_accuracy < 1), observed_accuracy)


def hit_rate(observed_accuracy: Float[np.ndarray, "P"]) -> float:
    """Share of groups with an observed accuracy in [0.25, 0.75].

    Args:
        observed_accuracy: mean reward of each group; NaN where nothing was scored, which is left out.

    Returns:
        A share; NaN where no group is left.
    """
    return _share((observed_accuracy >= HIT_RANGE[0]) & (observed_accuracy <= HIT_RANGE[1]), observed_accuracy)


def _share(is_counted: Bool[np.ndarray, "P"], observed_accuracy: Float[np.ndarray, "P"]) -> float:
    """Share of the groups that are counted, among those whose accuracy is known."""
    num_known = int(np.count_nonzero(~np.isnan(observed_accuracy)))
    return int(np.count_nonzero(is_counted)) / num_known if num_known else float("nan")
