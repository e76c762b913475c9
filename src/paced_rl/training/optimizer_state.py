"""An optimiser's state as named tensors, so that it is stored as safetensors and never unpickled."""

from collections.abc import Mapping

import torch
from torch import nn


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, torch.Tensor]:
    """State of `optimizer` by parameter name: `<parameter>::<state key>`; empty before the first step."""
    return {
        f"{name}::{key}": torch.as_tensor(value)
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Puts back what `optimizer_tensors` returned; no tensors leave a fresh optimiser.

    Raises:
        ValueError: the tensors are of parameters that `module` does not have, or has in another shape.
    """
    parameters = dict(module.named_parameters())
    for full_name, tensor in tensors.items():
        name, key = full_name.rsplit("::", 1)
        if name not in parameters or (tensor.ndim and tensor.shape != parameters[name].shape):
            found = tuple(parameters[name].shape) if name in parameters else "no such parameter"
            raise ValueError(
                f"optimiser state {full_name} {tuple(tensor.shape)} does not fit the model ({found}): the policy was "
                f"changed within an experiment; start a new one with --params experiment=<new name>"
            )
        parameter = parameters[name]
        # Fused optimisers keep everything beside its parameter, the step counter included.
        optimizer.state[parameter][key] = tensor.to(device=parameter.device, copy=True)
