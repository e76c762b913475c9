"""Whether the engine that sampled runs the policy that is trained: the same tokens, scored by both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerGap:
    """How far two sets of log-probabilities of the same tokens are apart."""

    mean_log_prob_gap: float
    """Mean over tokens of abs(sampler − trainer), nats."""
    max_log_prob_gap: float
    """The largest of them."""
    sampler_kl: float
    """KL(π_sampler ‖ π_trainer), nats per token."""


def sampler_gap(
    sampler_log_probs: Sequence[Float[np.ndarray, "T"]], trainer_log_probs: Sequence[Float[np.ndarray, "T"]]
) -> SamplerGap:
    """The gap over all tokens of some completions.

    The divergence is k3 = mean of (w − 1 − log w), w = π_trainer(y_t|…) / π_sampler(y_t|…), over the tokens y_t that
    the sampler drew. It is never negative and 0 where the two agree everywhere (J. Schulman, "Approximating KL
    divergence", 2020, http://joschu.net/blog/kl-approx.html).

    Args:
        sampler_log_probs: per completion, nats, under the distribution it was drawn from.
        trainer_log_probs: per completion, nats, of the same tokens under what should be the same distribution.

    Returns:
        NaN in every field where a log-probability is no number.
    """
    sampler = np.concatenate([np.asarray(values, dtype=np.float64) for values in sampler_log_probs])
    trainer = np.concatenate([np.asarray(values, dtype=np.float64) for values in trainer_log_probs])
    log_weight = trainer - sampler
    gap = np.abs(log_weight)
    return SamplerGap(
        mean_log_prob_gap=float(gap.mean()),
        max_log_prob_gap=float(gap.max()),
        sampler_kl=float((np.expm1(log_weight) - log_weight).mean()),
    )
