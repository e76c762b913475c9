"""The log-Z head as files, and back."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float

from paced_rl.objectives.log_z_head import LogPartitionHead
from paced_rl.types import Checkpoint, CheckpointFiles

WEIGHTS = "log_z_head.safetensors"

UNBOUNDED = "unbounded"
"""What the manifest's `form` says of a head whose log Z is no accuracy; a bounded head has no such entry."""


def head_files(head: LogPartitionHead, *, policy_version: int) -> CheckpointFiles:
    """The head's weights and standardisation, as a checkpoint of round `policy_version`."""
    tensors = {name: tensor.detach().cpu() for name, tensor in head.state_dict().items()}
    form = {} if head.is_bounded else {"form": UNBOUNDED}
    return CheckpointFiles(files={WEIGHTS: tensors}, metadata={"policy_version": policy_version, **form})


def load_head(checkpoint: Checkpoint, *, reward_temperature: float) -> LogPartitionHead:
    """The head of a checkpoint, in float32 on the CPU, where it is small enough to stay.

    A bounded head's own output is an accuracy; `reward_temperature` only scales it to log Z, so it may change within
    an experiment without a new head.
    """
    from safetensors.torch import load_file

    state = load_file(checkpoint.folder / WEIGHTS)
    hidden_size, embedding_size = state["input_layer.weight"].shape
    head = LogPartitionHead(
        embedding_size,
        hidden_size,
        reward_temperature=reward_temperature,
        initial_accuracy=0.5,
        seed=0,
        is_bounded=checkpoint.metadata.get("form") != UNBOUNDED,
    )
    head.load_state_dict(state)
    return head


def new_head(
    embeddings: Iterable[Float[np.ndarray, "b E"]],
    *,
    hidden_size: int,
    reward_temperature: float,
    initial_accuracy: float,
    seed: int,
    is_bounded: bool = True,
) -> LogPartitionHead:
    """A head before any training, standardised over these embeddings of train prompts, held in memory once."""
    values = torch.from_numpy(np.concatenate(list(embeddings)))
    head = LogPartitionHead(
        values.shape[1],
        hidden_size,
        reward_temperature=reward_temperature,
        initial_accuracy=initial_accuracy,
        seed=seed,
        is_bounded=is_bounded,
    )
    head.fit_standardisation(values)
    return head
