"""A policy in memory: loading it once per process and version, and what is stored of it."""

import copy
import json
import logging
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paced_rl.policies.description import PolicyDescription, find_eos_token_ids, find_num_positions
from paced_rl.policies.folders import (
    MAX_LISTED,
    TEXT_FILES,
    WEIGHTS,
    PolicyFolderError,
    check_policy_folder,
    read_json,
)
from paced_rl.types import Checkpoint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16")
NUM_OPEN_POLICIES = 2
"""The behaviour policy of the round and the reference or next policy; each holds a whole model in memory."""
NOT_COPIED = ("*.index.json", "manifest.json")
"""Files that describe one version's bytes, and would be wrong beside the next version's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPolicy:
    """A model ready for forward passes, and what is needed to talk to it. Shared: never change it in place."""

    model: "PreTrainedModel"
    """In evaluation mode, on its device."""
    tokenizer: "PreTrainedTokenizerBase"
    pad_token_id: int
    """Fills the short rows of a batch; always masked, so its value never matters."""
    eos_token_ids: tuple[int, ...]
    """Tokens that end a completion, in increasing order; never empty."""

    @property
    def description(self) -> PolicyDescription:
        """What engines that load the weights themselves need of it."""
        return PolicyDescription(
            tokenizer=self.tokenizer,
            eos_token_ids=self.eos_token_ids,
            num_positions=find_num_positions(self.model.config),
        )


def load_policy(folder: Path, *, device: str, dtype: str) -> LoadedPolicy:
    """Model and tokenizer of a folder, in evaluation mode; no global generator is consumed.

    Args:
        folder: in Hugging Face format; nothing is looked up outside it.
        device: PyTorch device.
        dtype: of the weights in memory, `float32` or `bfloat16`, whatever they are stored in.

    Raises:
        PolicyFolderError: the folder is incomplete or damaged, weights are missing, of another shape or not finite, or
            no token ends a completion.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {DTYPES}; got {dtype!r}")
    check_policy_folder(folder)
    tokenizer, model, missing = _read_policy(folder, dtype)
    if missing:
        raise PolicyFolderError(
            f"the weights in {folder} lack {len(missing)} tensors of {type(model).__name__}: {missing[:MAX_LISTED]}"
        )
    _check_weights_are_finite(model, folder)
    eos_token_ids = find_eos_token_ids((model.generation_config, model.config), tokenizer, folder)
    _check_vocabulary(model, tokenizer, eos_token_ids, folder)
    pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos_token_ids[0]
    logger.debug("Loaded policy from %s: %.4g parameters, %s on %s", folder, model.num_parameters(), dtype, device)
    return LoadedPolicy(
        model=model.to(device).eval(), tokenizer=tokenizer, pad_token_id=pad_token_id, eos_token_ids=eos_token_ids
    )


def _read_policy(folder: Path, dtype: str) -> tuple[Any, Any, list[str]]:
    """Tokenizer, model on the CPU, and the names of the tensors that the folder lacks."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    had_progress_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # one bar per round and stage says nothing
    try:
        # Building a model may draw from the global generator, whose state is put back.
        with torch.random.fork_rng(devices=[]):
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=getattr(torch, dtype),
                attn_implementation="sdpa",
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise PolicyFolderError(f"policy folder {folder} could not be loaded: {error}") from error
    finally:
        if had_progress_bar:
            transformers_logging.enable_progress_bar()
    model, info = loaded
    return tokenizer, model, sorted(info["missing_keys"])


def _check_weights_are_finite(model: "PreTrainedModel", folder: Path) -> None:
    damaged = [name for name, tensor in model.named_parameters() if not bool(tensor.isfinite().all())]
    if damaged:
        raise PolicyFolderError(
            f"{len(damaged)} tensors in {folder} hold NaN or infinity, e.g. {damaged[:MAX_LISTED]}; "
            "start from an earlier policy version, with a lower learning rate if training wrote this one"
        )


def _check_vocabulary(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", eos_token_ids: tuple[int, ...], folder: Path
) -> None:
    embeddings: Any = model.get_input_embeddings()
    num_rows = embeddings.weight.shape[0]
    highest = max(len(tokenizer) - 1, *eos_token_ids)
    if highest >= num_rows:
        raise PolicyFolderError(
            f"the tokenizer in {folder} has token ids up to {highest}, the model only {num_rows} embeddings; "
            "take tokenizer and weights from the same policy"
        )


@dataclass(frozen=True, slots=True)
class _PolicyKey:
    """What makes two loaded policies the same one: the bytes of every file, not where they lie."""

    digests: frozenset[tuple[str, str]]
    device: str
    dtype: str
    folder: Path = field(compare=False)

    def differs_in_weights_alone(self, other: "_PolicyKey") -> bool:
        """Whether all but the digest of the one file of weights is the same."""
        mine, theirs = (dict(key.digests) for key in (self, other))
        has_one_file = WEIGHTS in mine and WEIGHTS in theirs
        mine.pop(WEIGHTS, None), theirs.pop(WEIGHTS, None)
        return has_one_file and mine == theirs and (self.device, self.dtype) == (other.device, other.dtype)


_open_policies: OrderedDict[_PolicyKey, LoadedPolicy] = OrderedDict()


def _load_like_an_open_one(key: _PolicyKey) -> LoadedPolicy | None:
    """The policy, if an open one has all of it but the weights: copying and filling a model takes half of building it.

    None where there is no such policy, or where the file's tensors are not those that the model stores.

    Raises:
        PolicyFolderError: a weight is not finite.
    """
    sibling = next((policy for other, policy in _open_policies.items() if key.differs_in_weights_alone(other)), None)
    if sibling is None:
        return None
    from safetensors.torch import load_file

    check_policy_folder(key.folder)
    weights = load_file(key.folder / WEIGHTS)
    expected = stored_weights(sibling.model)
    if {name: tensor.shape for name, tensor in weights.items()} != {n: tensor.shape for n, tensor in expected.items()}:
        return None
    model = copy.deepcopy(sibling.model)
    model.load_state_dict(weights, strict=False)  # tied tensors are stored once
    _check_weights_are_finite(model, key.folder)
    return replace(sibling, model=model)


def open_policy(checkpoint: Checkpoint, *, device: str, dtype: str) -> LoadedPolicy:
    """`load_policy`, once per process and version: sampling, training and evaluation share one model.

    The caller must not change what it gets, neither weights nor mode nor `requires_grad`: who trains takes a copy, e.g.
    `copy.deepcopy(policy.model)`. The two versions used last stay in memory.

    Raises:
        PolicyFolderError: as `load_policy`, and for a checkpoint without files: nothing tells two of those apart.
    """
    if not checkpoint.files:
        raise PolicyFolderError(
            f"the checkpoint of policy {checkpoint.folder} names no files, so its version cannot be told from another; "
            "make it with `files=file_digests(folder)`"
        )
    digests = frozenset(checkpoint.files.items())
    key = _PolicyKey(digests=digests, device=device, dtype=dtype, folder=checkpoint.folder)
    if key not in _open_policies:
        loaded = _load_like_an_open_one(key) or load_policy(key.folder, device=device, dtype=dtype)
        _open_policies[key] = loaded
        if len(_open_policies) > NUM_OPEN_POLICIES:
            _open_policies.popitem(last=False)
    _open_policies.move_to_end(key)
    return _open_policies[key]


def policy_files(policy: LoadedPolicy, source_folder: Path) -> "dict[str, bytes | Path | dict[str, torch.Tensor]]":
    """Content of the folder that stores `policy`: file name → bytes, a file to copy, or tensors to store.

    Config, generation config and tokenizer are those of `source_folder`, with the dtype in config.json set to that of
    the weights. The weights become one `model.safetensors`, however large; of tied tensors the first is stored alone,
    as `save_pretrained` does. The tensors share memory with the model unless it is on another device. They have the
    names they have in memory; for mixtures of experts, whose experts transformers fuses on loading, these are not the
    names of the source's files, and transformers alone reads them back.

    Args:
        policy: whose weights are stored; a model of the architecture that `source_folder` describes.
        source_folder: the folder it was loaded from.
    """
    copied = {path for pattern in TEXT_FILES for path in source_folder.glob(pattern) if path.is_file()}
    left_out = {path for pattern in NOT_COPIED for path in source_folder.glob(pattern)}
    files: dict[str, bytes | Path | dict[str, torch.Tensor]] = {path.name: path for path in sorted(copied - left_out)}

    config = {key: value for key, value in read_json(source_folder / "config.json").items() if key != "torch_dtype"}
    config["dtype"] = str(policy.model.dtype).removeprefix("torch.")
    files["config.json"] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()

    weights = stored_weights(policy.model)
    files[WEIGHTS] = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return files


def stored_weights(model: "PreTrainedModel") -> "dict[str, torch.Tensor]":
    """The model's tensors as a file stores them: of tied ones the first alone."""
    state = model.state_dict()
    tied = {
        name
        for name, source in model.all_tied_weights_keys.items()
        if name in state and source in state and state[name].data_ptr() == state[source].data_ptr()
    }
    return {name: tensor for name, tensor in state.items() if name not in tied}
