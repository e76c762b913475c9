"""Teaches a random tiny policy what answers look like: next-token prediction on a corpus of mixed quality."""

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from paced_rl.policies import LoadedPolicy
from paced_rl.training.batches import pad_batch

ADAM_BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.01
WARM_UP_STEPS = 100
FINAL_LEARNING_RATE = 0.05
"""Share of the peak learning rate at the end of the cosine."""


def train_starter(
    policy: LoadedPolicy,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    batch_size: int,
    learning_rate: float,
    on_progress: Callable[[int], None] | None = None,
) -> list[float]:
    """AdamW with a warm-up and a cosine, one pass in the given order, in place; the loss is the mean per token.

    Args:
        prompts: [N] token ids of the corpus.
        completions: [N] token ids, the end-of-sequence token last.
        batch_size: lines per step; the lines left over at the end, fewer than that, are not used.

    Returns:
        [N // batch_size] losses, nats per completion token.
    """
    model = policy.model
    optimizer = torch.optim.AdamW(model.parameters(), betas=ADAM_BETAS, weight_decay=WEIGHT_DECAY)
    num_steps = len(prompts) // batch_size
    losses = []
    for step in range(num_steps):
        share = FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * (1 + math.cos(math.pi * step / num_steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * share * min(1.0, (step + 1) / WARM_UP_STEPS)
        rows = range(step * batch_size, (step + 1) * batch_size)
        batch = pad_batch(
            [prompts[row] for row in rows],
            [completions[row] for row in rows],
            pad_token_id=policy.pad_token_id,
            device=str(model.device),
        )
        logits = model(input_ids=batch.token_ids, use_cache=False).logits[:, batch.start - 1 : -1]
        loss = F.cross_entropy(logits[batch.completion_mask].float(), batch.completion_ids[batch.completion_mask])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if on_progress is not None:
            on_progress(batch_size)
    return losses
