"""A round leaves the process as it found it, and runs its models with the kernels that its parameters ask for."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.style
import torch
from project_folders import make_project, run
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import PreTrainedModel

SMALL: dict[str, Any] = {
    "data_preparation": {"num_train": 8, "num_audit": 4, "num_validation": 4, "num_test": 4},
    "scheduling": {"num_prompts": 4, "audit_fraction": 0.25},
    "rollout": {"group_size": 3, "max_new_tokens": 8},
    "evaluation": {"num_samples": 1, "every": 1},
}


def generator_states() -> list[Any]:
    kind, keys, *rest = np.random.get_state()
    return [random.getstate(), kind, np.asarray(keys).tolist(), rest, torch.get_rng_state().tolist()]


@contextmanager
def switches_of_forward_passes() -> Iterator[list[bool]]:
    """For every forward pass of a language model, whether deterministic kernels were on."""
    seen: list[bool] = []

    def note(module: torch.nn.Module, _: Any) -> None:
        if isinstance(module, PreTrainedModel):
            seen.append(torch.are_deterministic_algorithms_enabled())

    handle = register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("deterministic", [None, False])
def test_no_global_generator_is_consumed_and_kernels_are_as_asked(tmp_path: Path, deterministic: bool | None) -> None:
    project = make_project(tmp_path / "project")
    # The import of this module alone draws a number, where a counter of styles begins.
    assert rich.style.Style
    before = generator_states()
    with switches_of_forward_passes() as seen:
        run(project, range(1, 3), params={**SMALL, "policy": {"deterministic": deterministic}})

    assert generator_states() == before
    assert len(seen) > 10
    assert set(seen) == {deterministic is None}  # on a CPU
    assert not torch.are_deterministic_algorithms_enabled()
