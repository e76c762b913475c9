"""What the log-Z head sees of a prompt: a hidden state of the frozen reference policy."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from paced_rl.policies import LoadedPolicy


def embed_prompts(
    policy: LoadedPolicy,
    prompts: Sequence[Sequence[int]],
    *,
    layer: int,
    pooling: Literal["last", "mean"],
    batch_size: int,
) -> Iterator[Float[np.ndarray, "b E"]]:
    """Hidden states over the prompts, pooled to one vector each, batch by batch in the given order.

    Source: arXiv 2602.12642 embeds each prompt once with the frozen reference model and does not say which layer or
    pooling; docs/paper_map.md gives ours.

    Args:
        prompts: [N] token ids, none empty.
        layer: index into the model's hidden states; 0 is the token embedding, −1 the last layer.
        pooling: `last` takes the state of the prompt's last token, `mean` the mean over its tokens.

    Yields:
        float32, `batch_size` rows at a time.

    Raises:
        ValueError: the model has no such layer.
    """
    for begin in range(0, len(prompts), batch_size):
        part = prompts[begin : begin + batch_size]
        lengths = torch.tensor([len(prompt) for prompt in part])
        # Padding stands on the right, where a causal model never looks at it.
        token_ids = torch.full((len(part), int(lengths.max())), policy.pad_token_id)
        for row, prompt in enumerate(part):
            token_ids[row, : len(prompt)] = torch.as_tensor(np.asarray(prompt, dtype=np.int64))
        with torch.inference_mode():
            outputs = policy.model(
                input_ids=token_ids.to(policy.model.device),
                output_hidden_states=True,
                use_cache=False,
                logits_to_keep=1,
            )
        states = outputs.hidden_states
        if not -len(states) <= layer < len(states):
            raise ValueError(
                f"data_preparation.embedding_layer = {layer}: the reference policy has {len(states)} hidden states, "
                f"so {-len(states)} to {len(states) - 1} are allowed"
            )
        hidden = states[layer].float().cpu()
        if pooling == "last":
            pooled = hidden[torch.arange(len(part)), lengths - 1]
        else:
            is_prompt = (torch.arange(hidden.shape[1]) < lengths[:, None]).unsqueeze(-1)
            pooled = (hidden * is_prompt).sum(1) / lengths[:, None]
        yield pooled.numpy()
