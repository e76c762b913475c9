"""The log-Z head over more prompts than fit in memory."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float

from paced_rl.objectives.log_z_head import LogPartitionHead


def estimate_in_batches(
    head: LogPartitionHead, batches: Iterable[tuple[Sequence[str], Float[np.ndarray, "batch embedding_size"]]]
) -> Float[np.ndarray, " num_prompts"]:
    """log Z of every prompt, one batch of embeddings in memory at a time.

    No gradient is recorded. The batch size changes memory and speed, and results by float32 rounding only.

    Args:
        head: the log-Z head; runs on the device its parameters are on.
        batches: (prompt ids [b], float32 embeddings [b, embedding_size]) each; the ids are read in errors only. The
            embeddings may be read-only memory of a table; each batch is copied once.

    Returns:
        [num_prompts] float64, nats, in the order of the batches.

    Raises:
        ValueError: a batch whose ids and embeddings differ in number, or a log Z that is not finite; names the prompts.
    """
    device = next(head.parameters()).device
    parts = []
    with torch.no_grad():
        for prompt_ids, embeddings in batches:
            if len(prompt_ids) != len(embeddings):
                raise ValueError(
                    f"a batch has {len(prompt_ids)} prompt ids and {len(embeddings)} embeddings: give one each"
                )
            # A copy, because PyTorch has no read-only tensors.
            log_z = head(torch.tensor(embeddings, dtype=torch.float32, device=device)).double().cpu().numpy()
            positions = np.flatnonzero(~np.isfinite(log_z))
            if positions.size:
                raise ValueError(
                    f"log Z is not finite for {positions.size} of a batch of {len(log_z)} prompts, first "
                    f"{[str(prompt_ids[position]) for position in positions[:5]]}: "
                    "look for non-finite embeddings, then lower training.log_z_learning_rate"
                )
            parts.append(log_z)
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float64)
