"""Log-probabilities of given completions under a policy: the trainer's own, in float32."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float

from paced_rl.objectives.log_probs import token_log_probs
from paced_rl.policies import LoadedPolicy
from paced_rl.training.batches import PaddedBatch, pad_batch, split_microbatches


def completion_log_probs(
    model: torch.nn.Module, batch: PaddedBatch, *, temperature: float
) -> Float[torch.Tensor, "B T"]:
    """log π of each token of `batch.completion_ids`; what stands outside the completion mask means nothing.

    Only the positions that predict completion tokens go through the vocabulary projection.

    Args:
        temperature: logits are divided by it, so that π is the distribution completions were sampled from.
    """
    last = batch.token_ids.shape[1] - 1
    positions = torch.arange(batch.start - 1, last, device=batch.token_ids.device)
    logits = model(input_ids=batch.token_ids, use_cache=False, logits_to_keep=positions).logits
    return token_log_probs(logits, batch.completion_ids, temperature=temperature)


def score_completions(
    policy: LoadedPolicy,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_tokens_per_forward: int,
    on_progress: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """Per-token log-probabilities of each completion, without gradient.

    Returns:
        [N] arrays of float32, each as long as its completion, in nats.
    """
    lengths = np.array([len(p) + len(c) for p, c in zip(prompts, completions, strict=True)])
    scored: list[np.ndarray] = [np.empty(0, np.float32)] * len(lengths)
    with torch.inference_mode():
        for rows in split_microbatches(lengths, max_tokens=max_tokens_per_forward):
            batch = pad_batch(
                [prompts[i] for i in rows],
                [completions[i] for i in rows],
                pad_token_id=policy.pad_token_id,
                device=str(policy.model.device),
            )
            log_probs = completion_log_probs(policy.model, batch, temperature=temperature).cpu().numpy()
            mask = batch.completion_mask.cpu().numpy()
            for row, values, is_completion in zip(rows, log_probs, mask, strict=True):
                scored[row] = values[is_completion].astype(np.float32)
            if on_progress is not None:
                on_progress(len(rows))
    return scored
