"""Whether PyTorch may take a kernel whose result depends on the order in which threads finish."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CUBLAS_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_CONFIGS = (":4096:8", ":16:8")
"""Workspaces with which cuBLAS gives the same result in every run, the faster one first.
Source: https://docs.nvidia.com/cuda/cublas/#results-reproducibility"""


@contextmanager
def deterministic_algorithms(is_deterministic: bool) -> Iterator[None]:
    """Within the block, PyTorch gives the same bits for the same input on the same device; afterwards all is as before.

    It refuses an operation that has no such kernel, cuDNN neither tries kernels out nor takes ones that add up in any
    order, and cuBLAS gets a fixed workspace. cuBLAS looks for that when a process first uses a GPU, so one process must
    not begin without it and change its mind later.

    Differs: PyTorch would also fill every tensor made by `torch.empty`, which finds reads of memory that nothing has
    written and costs time at each of them; that stays off.

    Args:
        is_deterministic: False leaves PyTorch as it is.

    Raises:
        RuntimeError: from an operation without a deterministic kernel; PyTorch names it.
    """
    if not is_deterministic:
        yield
        return
    import torch

    cudnn = torch.backends.cudnn
    filling: Any = torch.utils.deterministic  # a module that is a class, which type checkers do not see
    was_on = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    had_cudnn, had_filling = (cudnn.deterministic, cudnn.benchmark), filling.fill_uninitialized_memory
    had_workspace = os.environ.get(CUBLAS_VARIABLE)
    os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_CONFIGS[0])
    cudnn.deterministic, cudnn.benchmark = True, False
    filling.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=only_warned)
        cudnn.deterministic, cudnn.benchmark = had_cudnn
        filling.fill_uninitialized_memory = had_filling
        if had_workspace is None:
            del os.environ[CUBLAS_VARIABLE]
