"""Log-probabilities of given completions under a policy: the trainer's own, in float32."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn import functional as F

from paced_rl.generation.truncation import keep_likeliest
from paced_rl.objectives.log_probs import token_log_probs
from paced_rl.policies import LoadedPolicy
from paced_rl.training.packing import PackedBatch, pack_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARING_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""`model_type` of models known to be plain attention with positions from `position_ids`, which is what sharing a
sequence needs: a recurrent layer, or positions from a mask, would carry one row into the next without a word."""


def shared_length(model: "PreTrainedModel") -> int:
    """Tokens up to which rows may share a sequence of this model; 0 where each row needs its own.

    Half of the hidden size: attention, which also runs over the pairs that the mask hides, then does about a twelfth of
    the work of the other layers, 4·L·d operations per token and layer beside 24·d² at sequence length L and hidden size
    d. A row longer than that has a sequence of its own, and its prompt is read again for each of its completions.
    """
    config = model.config.get_text_config()
    # Absent from configurations of models without such layers. A window would count the tokens of other rows.
    has_window = getattr(config, "sliding_window", None) is not None
    return 0 if has_window or config.model_type not in SHARING_MODEL_TYPES else config.hidden_size // 2


def completion_log_probs(
    model: "PreTrainedModel", batch: PackedBatch, *, temperature: float, top_k: int = 0, top_p: float = 1.0
) -> Float[torch.Tensor, "B T"]:
    """log π of each completion token, laid out like `batch.completion_mask`; 0 outside of it.

    Args:
        temperature: logits are divided by it, so that π is the distribution completions were sampled from.
        top_k: leaves unlikely tokens out of π, see `keep_likeliest`; for comparing with a sampler, without gradient.
        top_p: the same.
    """
    with _projecting_only(model, batch.predictors):
        logits = model(
            input_ids=batch.token_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).logits
    if top_k > 0 or top_p < 1:
        logits = _renormalised(logits.float() / temperature, batch.completion_ids[None], top_k=top_k, top_p=top_p)
        temperature = 1.0
    log_probs = token_log_probs(logits, batch.completion_ids[None], temperature=temperature)
    return log_probs.new_zeros(batch.completion_mask.shape).masked_scatter(batch.completion_mask, log_probs)


def _renormalised(
    logits: Float[torch.Tensor, "B T V"], token_ids: Int[torch.Tensor, "B T"], *, top_k: int, top_p: float
) -> Float[torch.Tensor, "B T V"]:
    """Logits of what was drawn from. A drawn token counts as kept: at the edge, rounding decides which tokens are, and
    a sampler's decision the other way must show as the small difference that it is."""
    kept = keep_likeliest(logits, top_k=top_k, top_p=top_p)
    return kept.scatter(-1, token_ids[..., None], logits.gather(-1, token_ids[..., None]))


@contextmanager
def _projecting_only(model: "PreTrainedModel", places: Int[torch.Tensor, "N"]) -> Iterator[None]:
    """Makes logits [1, N, V] of the given places alone: they are the largest tensor of a pass."""

    def choose(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        # The look-up of an embedding, since its backward pass adds up places that occur twice in a fixed order.
        return F.embedding(places, inputs[0].flatten(0, 1))[None]

    hook = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        hook.remove()


def score_completions(
    policy: LoadedPolicy,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_tokens_per_forward: int,
    top_k: int = 0,
    top_p: float = 1.0,
    on_progress: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """Per-token log-probabilities of each completion, without gradient; arguments as of `completion_log_probs`.

    Returns:
        [N] arrays of float32, each as long as its completion, in nats.
    """
    scored: list[np.ndarray] = [np.empty(0, np.float32)] * len(prompts)
    batches = pack_batches(
        prompts,
        completions,
        max_tokens=max_tokens_per_forward,
        max_shared_length=shared_length(policy.model),
        pad_token_id=policy.pad_token_id,
        device=policy.model.device,
    )
    with torch.inference_mode():
        for batch in batches:
            log_probs = completion_log_probs(policy.model, batch, temperature=temperature, top_k=top_k, top_p=top_p)
            for row, values in zip(batch.rows, log_probs.float().cpu().numpy(), strict=True):
                scored[row] = values[: len(completions[row])].copy()
            if on_progress is not None:
                on_progress(len(batch.rows))
    return scored
