"""Low-rank adapters (https://arxiv.org/abs/2106.09685) through peft: W + (alpha/rank)·B·A, of which A, B are trained.

A trained policy is stored twice: merged, as the folder that everything else loads, and as the adapter in a subfolder,
which the next round trains on. Only that keeps the two apart: a merged weight cannot be taken back to base and adapter
without rounding.
"""

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paced_rl.policies.folders import PolicyFolderError, read_json
from paced_rl.policies.loading import LoadedPolicy
from paced_rl.types import Checkpoint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ADAPTER_FOLDER = "adapter"
"""Within the policy's folder and not beside its config.json, where transformers would load the adapter on its own."""
ADAPTER_WEIGHTS = f"{ADAPTER_FOLDER}/adapter_model.safetensors"
ADAPTER_CONFIG = f"{ADAPTER_FOLDER}/adapter_config.json"
_NAME = "default"
"""The name that peft gives an adapter without one."""
_COMPARED = ("r", "lora_alpha", "target_modules", "base_model_name_or_path", "revision")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings:
    """What an adapter is; it stays the same through an experiment."""

    rank: int
    """Above 0."""
    alpha: int
    """The adapter's product counts alpha/rank."""
    target_modules: str | tuple[str, ...]
    """Names of linear layers, or `all-linear`: all but the output layer."""
    base_source: str
    """Folder or hub id of the base, as the user named it; written into the adapter's configuration."""
    base_revision: str | None
    seed: int
    """Of the start values of A; B starts at 0, so that the first policy is the base itself."""


def open_adapter(
    base: LoadedPolicy, base_checkpoint: Checkpoint, behaviour: Checkpoint, settings: AdapterSettings
) -> Any:
    """A copy of the base with the adapter of the behaviour policy, or with a new one where that is the base itself.

    Args:
        base: the reference policy; it is not changed.
        base_checkpoint: where it is from.
        behaviour: the policy that the adapter continues from.
        settings: of the adapter.

    Returns:
        A `peft.PeftModel` on the base's device, of which the adapter alone takes gradients. No global generator is
        consumed.

    Raises:
        PolicyFolderError: the behaviour policy is neither the base nor a base with this adapter.
    """
    import torch
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    is_new = dict(behaviour.files) == dict(base_checkpoint.files)
    if not is_new and ADAPTER_WEIGHTS not in behaviour.files:
        raise PolicyFolderError(
            f"policy version {behaviour.policy_version} in {behaviour.folder} has no adapter and is not the reference "
            "policy, so there is none to go on with: begin an experiment with this policy.lora_rank, with "
            "policy.source as the policy to start from"
        )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=settings.target_modules
        if isinstance(settings.target_modules, str)
        else list(settings.target_modules),
        task_type="CAUSAL_LM",
    )
    # peft draws A from the global generator of the CPU, whose state is put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        model = get_peft_model(copy.deepcopy(base.model), config)
    # peft writes the folder the base was loaded from, which another machine does not have.
    model.peft_config[_NAME].base_model_name_or_path = settings.base_source
    model.peft_config[_NAME].revision = settings.base_revision
    if not is_new:
        from safetensors.torch import load_file

        _check_same_adapter(_configuration(model), read_json(behaviour.folder / ADAPTER_CONFIG), behaviour)
        set_peft_model_state_dict(model, load_file(behaviour.folder / ADAPTER_WEIGHTS))
    return model.eval()


def adapter_files(model: Any) -> "dict[str, bytes | dict[str, torch.Tensor]]":
    """The adapter as peft and vLLM load it: file name within the policy's folder → content."""
    from peft import get_peft_model_state_dict

    # `auto` would look the base's vocabulary up at the hub.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {
        ADAPTER_WEIGHTS: {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()},
        ADAPTER_CONFIG: (json.dumps(_configuration(model), indent=2, sort_keys=True) + "\n").encode(),
    }


def merge_adapter(model: Any) -> "PreTrainedModel":
    """The base with the adapter added to its weights; `model` is used up."""
    merged: PreTrainedModel = model.merge_and_unload()
    return merged


def _configuration(model: Any) -> dict[str, Any]:
    """The adapter's configuration as JSON; sets, which have no order, are sorted."""
    values = {**model.peft_config[_NAME].to_dict(), "inference_mode": True}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in values.items()}


def _check_same_adapter(wanted: dict[str, Any], stored: Any, behaviour: Checkpoint) -> None:
    changed = [name for name in _COMPARED if wanted[name] != stored.get(name)]
    if changed:
        got = ", ".join(f"{name} {stored.get(name)!r} there and {wanted[name]!r} now" for name in changed)
        raise PolicyFolderError(
            f"the adapter of policy version {behaviour.policy_version} in {behaviour.folder} is another one: {got}. An "
            "experiment keeps its adapter; put policy.source and policy.lora_* back, or start a new experiment"
        )
