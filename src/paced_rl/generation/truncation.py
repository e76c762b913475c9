"""Top-k and top-p: leaving the unlikely tokens out of what is drawn from."""

import torch
from jaxtyping import Float


def keep_likeliest(
    logits: Float[torch.Tensor, "*rows vocabulary"], *, top_k: int, top_p: float
) -> Float[torch.Tensor, "*rows vocabulary"]:
    """The logits with −inf for every token that is not drawn; their softmax is the distribution of the others.

    Top-k first, then top-p of what is left, as in vLLM and transformers. Top-p drops the least likely tokens for as
    long as they have at most 1 − top_p together: what stays is the smallest set that reaches top_p ("nucleus",
    https://arxiv.org/abs/1904.09751, section 3.1). Tokens as likely as the last one of top-k stay too.

    Args:
        logits: divided by the temperature; carries no gradient.
        top_k: 0 keeps all.
        top_p: 1 keeps all.

    Returns:
        At least one token per row is kept.
    """
    if top_k > 0:
        smallest = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if top_p < 1:
        ordered, tokens = logits.sort(dim=-1)
        is_dropped = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
        is_dropped[..., -1] = False
        logits = logits.masked_fill(is_dropped.scatter(-1, tokens, is_dropped), -torch.inf)
    return logits
