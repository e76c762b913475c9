"""The log-Z head in batches is the log-Z head."""

import numpy as np
import pytest
import torch

from paced_rl.objectives.estimate import estimate_in_batches
from paced_rl.objectives.log_z_head import LogPartitionHead
from paced_rl.seeds import derive_generator


@pytest.fixture
def head() -> LogPartitionHead:
    result = LogPartitionHead(6, 5, reward_temperature=0.05, initial_accuracy=0.4, seed=0)
    torch.nn.init.normal_(result.output_layer.weight, generator=torch.Generator().manual_seed(1))
    return result


def batches(embeddings: np.ndarray, size: int) -> list[tuple[list[str], np.ndarray]]:
    starts = range(0, len(embeddings), size)
    return [
        ([f"p{start + i}" for i in range(len(embeddings[start : start + size]))], embeddings[start : start + size])
        for start in starts
    ]


@pytest.mark.parametrize("size", [1, 7, 40, 100])
def test_batches_equal_the_whole(head: LogPartitionHead, size: int) -> None:
    embeddings = derive_generator(0, "embeddings").normal(size=(40, 6)).astype(np.float32)
    embeddings.flags.writeable = False  # as a table delivers them
    log_z = estimate_in_batches(head, batches(embeddings, size))
    expected = head(torch.tensor(embeddings)).detach().double().numpy()
    assert log_z.dtype == np.float64
    assert np.allclose(log_z, expected, atol=1e-4)
    assert np.unique(log_z).size == 40


def test_a_generator_is_read_once_and_leaves_no_gradient(head: LogPartitionHead) -> None:
    embeddings = np.ones((5, 6), dtype=np.float32)
    assert estimate_in_batches(head, iter(batches(embeddings, 2))).shape == (5,)
    assert all(parameter.grad is None for parameter in head.parameters())


def test_nothing_in_nothing_out(head: LogPartitionHead) -> None:
    assert estimate_in_batches(head, []).shape == (0,)


def test_errors_name_the_prompts(head: LogPartitionHead) -> None:
    embeddings = np.ones((4, 6), dtype=np.float32)
    embeddings[3] = np.nan
    with pytest.raises(ValueError, match=r"1 of a batch of 2 prompts, first \['p3'\]"):
        estimate_in_batches(head, batches(embeddings, 2))
    with pytest.raises(ValueError, match="1 prompt ids and 2 embeddings"):
        estimate_in_batches(head, [(["p0"], embeddings[:2])])
