"""The head as files and back: both forms, and nothing in the manifest that a bounded head did not have before."""

from pathlib import Path

import numpy as np
import pytest
import torch

from paced_rl.datasets.checkpoint import CheckpointDataset
from paced_rl.training.head_state import head_files, load_head, new_head


@pytest.mark.parametrize("is_bounded", [True, False])
def test_a_head_comes_back_in_its_form(tmp_path: Path, is_bounded: bool) -> None:
    embeddings = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    settings = {"hidden_size": 8, "reward_temperature": 0.05, "initial_accuracy": 0.4, "seed": 1}
    head = new_head([embeddings], **settings, is_bounded=is_bounded)
    torch.nn.init.normal_(head.output_layer.weight, generator=torch.Generator().manual_seed(2))
    dataset = CheckpointDataset(filepath=str(tmp_path / "head.json"))
    dataset.save(head_files(head, policy_version=7))
    stored = dataset.load()
    again = load_head(stored, reward_temperature=0.05)

    assert again.is_bounded == is_bounded
    assert torch.equal(again(torch.from_numpy(embeddings)), head(torch.from_numpy(embeddings)))
    assert stored.metadata == {"policy_version": 7} if is_bounded else {"policy_version": 7, "form": "unbounded"}
