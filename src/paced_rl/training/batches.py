"""How the rows of a round become optimiser steps and forward passes.

A minibatch is what one optimiser step sees. It is cut into micro-batches, one forward and backward pass each, whose
padded size stays under a token budget; gradients accumulate over them, so the cut changes memory and not results.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int

from paced_rl.seeds import derive_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedBatch:
    """Prompt + completion, padded on the right, where a causal model never looks at the padding."""

    token_ids: Int[torch.Tensor, "B L"]
    completion_ids: Int[torch.Tensor, "B T"]
    """Tokens from the first completion token of any row on; column t is predicted at position `start - 1 + t`."""
    completion_mask: Bool[torch.Tensor, "B T"]
    """True on completion tokens, the end-of-sequence token included; False on prompt and padding."""
    start: int
    """Position of the first completion token of the row with the shortest prompt; at least 1."""


def pad_batch(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, pad_token_id: int, device: str
) -> PaddedBatch:
    """Pads rows of any lengths on the right.

    Args:
        prompts: [B] token ids, none empty.
        completions: [B] token ids, none empty.
    """
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    token_ids = np.full((len(lengths), max(lengths)), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(token_ids, dtype=bool)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        token_ids[row, : len(prompt)] = prompt
        token_ids[row, len(prompt) : lengths[row]] = completion
        mask[row, len(prompt) : lengths[row]] = True
    start = min(len(prompt) for prompt in prompts)
    on_device = torch.from_numpy(token_ids).to(device)
    return PaddedBatch(
        token_ids=on_device,
        completion_ids=on_device[:, start:],
        completion_mask=torch.from_numpy(mask[:, start:]).to(device),
        start=start,
    )


def split_minibatches(num_rows: int, num_minibatches: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """Row indices of each optimiser step of one pass: a seeded shuffle cut into nearly equal parts.

    Returns:
        At most `num_minibatches` arrays, none empty, that together hold every row once.
    """
    order = derive_generator(seed, "minibatches", epoch).permutation(num_rows)
    return [part for part in np.array_split(order, num_minibatches) if len(part)]


def split_microbatches(lengths: np.ndarray, *, max_tokens: int) -> list[np.ndarray]:
    """Cuts sequences into groups whose padded size (sequences × longest) is at most `max_tokens`, sorted by length.

    Args:
        lengths: [N] tokens per sequence.
        max_tokens: budget; a single sequence that is longer than it still gets a pass of its own.

    Returns:
        Arrays of indices that together hold every sequence once, shortest first.
    """
    parts: list[np.ndarray] = []
    order = np.argsort(lengths, kind="stable")
    begin = 0
    for end in range(1, len(order) + 1):
        is_last = end == len(order)
        if is_last or (end + 1 - begin) * lengths[order[end]] > max_tokens:
            parts.append(order[begin:end])
            begin = end
    return parts
