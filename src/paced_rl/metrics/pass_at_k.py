"""pass@k: the probability that at least one of k samples is correct."""

import numpy as np
from jaxtyping import Float, Int


def pass_at_k(num_samples: Int[np.ndarray, "P"], num_correct: Int[np.ndarray, "P"], k: int) -> Float[np.ndarray, "P"]:
    """Unbiased estimate of pass@k of each prompt; its mean over prompts is the reported number.

    pass@k = 1 − C(n−c, k) / C(n, k) = 1 − Π_{j<k} (n − c − j) / (n − j)

    0 where no sample is correct, 1 where fewer than k are wrong. The product keeps every factor in [0, 1], so nothing
    overflows. The share of correct among the first k samples, or 1 − (1 − c/n)^k, would be noisier or biased.

    Source: Chen et al., https://arxiv.org/abs/2107.03374, equation 1.

    Args:
        num_samples: n, samples of each prompt; at least k.
        num_correct: c, correct ones among them.
        k: at least 1.

    Returns:
        One estimate per prompt, in [0, 1].

    Raises:
        ValueError: k is below 1 or above the samples of a prompt, or a count is outside 0 … n.
    """
    n, c = np.asarray(num_samples), np.asarray(num_correct)
    if k < 1:
        raise ValueError(f"pass_at_k: k = {k}, must be at least 1")
    if np.any(n < k):
        raise ValueError(
            f"pass_at_k: k = {k} with {n.min()} samples of a prompt, must not be above them; take more samples or a "
            "smaller k"
        )
    if np.any((c < 0) | (c > n)):
        worst = int(np.argmax((c < 0) | (c > n)))
        raise ValueError(
            f"pass_at_k: num_correct = {c.flat[worst]} at position {worst}, must be in 0 … {n.flat[worst]}, "
            "the prompt's samples"
        )
    drawn = np.arange(k)[:, np.newaxis]
    return 1 - np.prod(np.maximum(n - c - drawn, 0) / (n - drawn), axis=0)
