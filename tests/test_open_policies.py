"""A version that differs in its weights alone is filled into a copy of an open one: the same as reading it whole."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from paced_rl.policies import LoadedPolicy, PolicyFolderError, file_digests, load_policy, open_policy
from paced_rl.types import Checkpoint

TOKEN_IDS = torch.tensor([[2, 5, 12, 7, 19, 3, 20, 11]])
WEIGHTS = "model.safetensors"


def opened(folder: Path, dtype: str = "float32") -> LoadedPolicy:
    return open_policy(Checkpoint(folder=folder, files=file_digests(folder), metadata={}), device="cpu", dtype=dtype)


def logits(policy: LoadedPolicy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model(TOKEN_IDS).logits


def next_version(folder: Path, target: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """A copy of a policy's folder with every stored tensor changed."""
    shutil.copytree(folder, target)
    tensors = load_file(folder / WEIGHTS)
    save_file({name: change(tensor) for name, tensor in tensors.items()}, target / WEIGHTS, metadata={"format": "pt"})
    return target


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("is_tied", [True, False])
def test_new_weights_alone_give_what_reading_the_folder_gives(
    tiny_policy_folder: Path, tmp_path: Path, dtype: str, is_tied: bool
) -> None:
    first = Path(shutil.copytree(tiny_policy_folder, tmp_path / "first"))
    if not is_tied:
        with torch.random.fork_rng(devices=[]):
            Qwen2ForCausalLM(Qwen2Config.from_pretrained(first, tie_word_embeddings=False)).save_pretrained(first)
    second = next_version(first, tmp_path / "second", lambda tensor: tensor * 1.5 + 0.01)
    before = opened(first, dtype)
    unchanged = logits(before)
    after, whole = opened(second, dtype), load_policy(second, device="cpu", dtype=dtype)
    assert after.tokenizer is before.tokenizer  # nothing but the weights was read
    assert not whole.model.training
    assert not after.model.training
    state = after.model.state_dict()
    assert state.keys() == whole.model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in whole.model.state_dict().items())
    assert torch.equal(logits(after), logits(whole))
    assert torch.equal(logits(before), unchanged)
    embedding, head = after.model.get_input_embeddings().weight, after.model.get_output_embeddings().weight
    assert (embedding.data_ptr() == head.data_ptr()) is is_tied


def test_another_configuration_is_read_whole(tiny_policy_folder: Path, tmp_path: Path) -> None:
    before = opened(tiny_policy_folder)
    second = next_version(tiny_policy_folder, tmp_path / "second", lambda tensor: tensor * 2)
    config = second / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 0.1'))
    assert config.read_bytes() != (tiny_policy_folder / "config.json").read_bytes()
    after = opened(second)
    assert after.tokenizer is not before.tokenizer
    assert after.model.config.rms_norm_eps == 0.1


def test_weights_that_the_model_does_not_store_are_refused_as_ever(tiny_policy_folder: Path, tmp_path: Path) -> None:
    opened(tiny_policy_folder)
    second = Path(shutil.copytree(tiny_policy_folder, tmp_path / "second"))
    tensors = load_file(second / WEIGHTS)
    tensors.pop("model.norm.weight")
    save_file(tensors, second / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(PolicyFolderError, match="lack 1 tensors"):
        opened(second)


def test_weights_that_are_not_finite_are_refused_and_the_open_one_stays(
    tiny_policy_folder: Path, tmp_path: Path
) -> None:
    before = opened(tiny_policy_folder)
    unchanged = logits(before)
    second = next_version(tiny_policy_folder, tmp_path / "second", lambda tensor: tensor * torch.nan)
    with pytest.raises(PolicyFolderError, match="NaN or infinity"):
        opened(second)
    assert opened(tiny_policy_folder) is before
    assert torch.equal(logits(before), unchanged)
