"""Teaches a random tiny policy what answers look like: next-token prediction on a corpus of mixed quality."""

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from paced_rl.policies import LoadedPolicy
from paced_rl.training.batches import pad_batch

ADAM_BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.01
WARM_UP_STEPS = 100
FINAL_LEARNING_RATE = 0.05
"""Share of the peak learning rate at the end of the cosine."""


def random_expression(numbers: Sequence[int], generator: random.Random) -> str:
    """An expression that uses each number once and hits a given target only by chance."""
    terms = [(str(number), 3) for number in numbers]
    generator.shuffle(terms)
    while len(terms) > 1:
        position = generator.randrange(len(terms) - 1)
        (left, left_rank), (right, right_rank) = terms[position : position + 2]
        operator = generator.choice("+-*/")
        rank = 1 if operator in "+-" else 2
        if left_rank < rank:
            left = f"({left})"
        if right_rank < rank or (right_rank == rank and operator in "-/"):
            right = f"({right})"
        terms[position : position + 2] = [(left + operator + right, rank)]
    return terms[0][0]


def train_starter(
    policy: LoadedPolicy,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    on_progress: Callable[[int], None] | None = None,
) -> list[float]:
    """AdamW with a warm-up and a cosine, in place; the loss is the mean over completion tokens.

    Args:
        prompts: [N] token ids of the corpus.
        completions: [N] token ids, the end-of-sequence token last.
        seed: of the draw of lines, with replacement.

    Returns:
        [num_steps] losses, nats per token.
    """
    model = policy.model
    draw = np.random.Generator(np.random.Philox(seed))
    optimizer = torch.optim.AdamW(model.parameters(), betas=ADAM_BETAS, weight_decay=WEIGHT_DECAY)
    losses = []
    for step in range(num_steps):
        share = FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * (1 + math.cos(math.pi * step / num_steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * share * min(1.0, (step + 1) / WARM_UP_STEPS)
        rows = draw.integers(len(prompts), size=batch_size)
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
            on_progress(1)
    return losses
