"""Intervals for a mean over prompts."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Indices drawn at once: 32 MiB.
_MAX_INDICES = 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with the interval resampling gives it."""

    mean: float
    low: float
    high: float


def bootstrap_mean(
    values: Float[np.ndarray, "P"],
    *,
    generator: np.random.Generator,
    num_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap of the mean, over prompts.

    Prompts are the unit, not completions: those of one prompt are not independent. It covers the choice of prompts and
    the sampling of their completions within one run; it says nothing of another training seed.

    Args:
        values: one number per prompt, e.g. its pass@1.
        generator: where the resamples come from; it is advanced.
        num_resamples: at least 1; with 2000 the ends move by about 3 % of their distance from the mean.
        confidence: share of the resampled means between the ends, in (0, 1).

    Returns:
        Mean of the values and both ends; all alike where there is one prompt.

    Raises:
        ValueError: there are no values, one is NaN, or `num_resamples` or `confidence` is out of range.
    """
    if values.ndim != 1 or values.size == 0 or np.isnan(values).any():
        raise ValueError(
            f"bootstrap_mean: values of shape {values.shape} with {int(np.isnan(values).sum())} NaN, must be [at least "
            "1] without NaN; leave out the prompts that have no value"
        )
    if num_resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"bootstrap_mean: num_resamples = {num_resamples} and confidence = {confidence}, must be at least 1 and "
            "in (0, 1)"
        )
    per_chunk = max(1, _MAX_INDICES // values.size)
    chunks = []
    for start in range(0, num_resamples, per_chunk):
        shape = (min(per_chunk, num_resamples - start), values.size)
        chunks.append(values[generator.integers(values.size, size=shape)].mean(axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(chunks), [tail, 1 - tail])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))
