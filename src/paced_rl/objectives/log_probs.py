"""Log-probabilities of sampled tokens and of whole completions. A sum and a mean are never interchanged."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

# PyTorch's default, -100, would give a completion token with that id a log-probability of 0 without a word. No token
# has this id, so that an id outside the vocabulary fails instead.
_NO_IGNORED_ID = torch.iinfo(torch.int64).min


def token_log_probs(
    logits: Float[Tensor, "B T V"], token_ids: Int[Tensor, "B T"], *, temperature: float
) -> Float[Tensor, "B T"]:
    """Log-probability of each token under softmax(logits / temperature), in nats.

    log π(a_t) = logits_t[a_t] / temperature − logsumexp(logits_t / temperature)

    Computed in float32, since bfloat16 has three digits and the sum over a completion needs more; float64 logits stay
    float64. The fused cross-entropy takes half the time of a gather and a logsumexp at V = 32, two thirds at
    V = 150 000, and keeps one float32 tensor of the logits' shape for the backward pass.

    Args:
        logits: `logits[:, t]` predicts `token_ids[:, t]`; the caller has shifted them. Carries gradient. Must be
            finite under the mask too: a NaN there is kept out of the loss, but not out of the gradient of the logits.
        token_ids: ids in [0, V), padding included.
        temperature: the sampling temperature, so that these are the probabilities the tokens were drawn with.

    Returns:
        One log-probability per token, at most 0.

    Raises:
        ValueError: `temperature` is not above 0.
        IndexError: an id is outside [0, V) (on a CPU; a GPU asserts).
    """
    if not temperature > 0:
        raise ValueError(
            f"token_log_probs: temperature = {temperature}, must be above 0. Greedy decoding has no log-probabilities "
            "to train on; pass the temperature the completions were sampled at"
        )
    scaled = logits if logits.dtype == torch.float64 else logits.float()
    if temperature != 1:
        scaled = scaled / temperature
    negative_log_probs = F.cross_entropy(
        scaled.flatten(0, 1), token_ids.flatten().long(), reduction="none", ignore_index=_NO_IGNORED_ID
    )
    return -negative_log_probs.view(token_ids.shape)


def sequence_log_prob(
    token_log_probs: Float[Tensor, "B T"], completion_mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B"]:
    """Log-probability of each completion: the SUM over its tokens, end-of-sequence included; 0 without tokens.

    Args:
        token_log_probs: nats; anything under the mask, NaN included, changes neither value nor gradient. Carries
            gradient.
        completion_mask: True on completion tokens.

    Returns:
        Nats per completion.
    """
    # where, and not a product: 0 · NaN is NaN.
    return torch.where(completion_mask, token_log_probs, 0.0).sum(-1)


def mean_token_log_prob(
    token_log_probs: Float[Tensor, "B T"], completion_mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B"]:
    """Mean log-probability of a token, per completion; 0 without tokens.

    The paced objective takes the sum instead: with a mean, β·log Z is not an accuracy.

    Args:
        token_log_probs: nats; anything under the mask changes neither value nor gradient. Carries gradient.
        completion_mask: True on completion tokens.

    Returns:
        Nats per token, one number per completion.
    """
    num_tokens = completion_mask.sum(-1).clamp(min=1)
    return sequence_log_prob(token_log_probs, completion_mask) / num_tokens
