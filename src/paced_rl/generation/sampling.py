"""One token per row from logits: by inverse CDF with the row's own uniform number, or greedy."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from paced_rl.generation.truncation import keep_likeliest


def draw_uniforms(seeds: Sequence[int], num_tokens: int) -> Float[np.ndarray, "rows tokens"]:
    """The uniform numbers in [0, 1) that decide each row's tokens, one independent Philox stream per seed.

    The first n numbers of a stream do not depend on how many are drawn.

    Args:
        seeds: one per row, non-negative.
        num_tokens: numbers per row.
    """
    uniforms = np.empty((len(seeds), num_tokens))
    for row, seed in zip(uniforms, seeds, strict=True):
        np.random.Generator(np.random.Philox(seed)).random(out=row)
    return uniforms


def sample_tokens(
    logits: Float[torch.Tensor, "rows vocabulary"],
    temperature: float,
    uniforms: Float[torch.Tensor, " rows"],
    *,
    top_k: int = 0,
    top_p: float = 1.0,
) -> tuple[Int[torch.Tensor, " rows"], Float[torch.Tensor, " rows"]]:
    """The tokens drawn and their log-probabilities.

    token = min {k : Σ_{j ≤ k} p_j > u} with p = softmax(logits / temperature), the inverse-CDF rule. The probabilities
    are the exponentials of the float32 log-probabilities that are reported, summed in float64, so a token is drawn from
    exactly the distribution it is recorded under. Tokens that `keep_likeliest` leaves out have probability 0.

    Args:
        logits: any floating type; brought to float32 first.
        temperature: 0 takes the likeliest token and reports its log-probability at temperature 1.
        uniforms: float64 in [0, 1); not read when greedy.
        top_k: see `keep_likeliest`; not read when greedy, nor is `top_p`.
        top_p: see there.

    Returns:
        int64 tokens and float32 log-probabilities in nats. A row whose logits are not finite numbers gets the
        log-probability NaN and a valid token, so that the caller may check once at the end.
    """
    scaled = logits.float()
    if temperature > 0:
        scaled = keep_likeliest(scaled / temperature, top_k=top_k, top_p=top_p)
    log_probs = torch.log_softmax(scaled, dim=-1)
    if temperature == 0:
        # Not of the log-probabilities, whose rounding can make two logits equal.
        tokens = scaled.argmax(dim=-1, keepdim=True)
    else:
        cumulative = log_probs.double().exp_().cumsum(dim=-1)
        # Scaling by the total absorbs its rounding error: u < 1 keeps u·total below total in float64, and `right` skips
        # tokens of probability 0. Only a row of NaN can end up past the last token.
        thresholds = uniforms.unsqueeze(-1) * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, thresholds, right=True).clamp_(max=logits.shape[-1] - 1)
    return tokens.squeeze(-1), log_probs.gather(-1, tokens).squeeze(-1)
