"""Low-rank adapters: what is trained, what is stored, and that everybody loads it."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM

from paced_rl.datasets.checkpoint import CheckpointDataset
from paced_rl.policies import LoadedPolicy, PolicyFolderError, file_digests, load_policy, policy_files
from paced_rl.policies.folders import verify_files
from paced_rl.policies.lora import ADAPTER_FOLDER, AdapterSettings, adapter_files, merge_adapter, open_adapter
from paced_rl.training.packing import pack_batches
from paced_rl.training.scoring import completion_log_probs, shared_length
from paced_rl.types import Checkpoint, CheckpointFiles

TOKEN_IDS = torch.tensor([[2, 5, 12, 7, 19, 3, 20, 11]])
SETTINGS = AdapterSettings(
    rank=4, alpha=8, target_modules="all-linear", base_source="the/base", base_revision=None, seed=3
)


@pytest.fixture
def base(tiny_policy_folder: Path) -> LoadedPolicy:
    return load_policy(tiny_policy_folder, device="cpu", dtype="float32")


@pytest.fixture
def base_checkpoint(tiny_policy_folder: Path) -> Checkpoint:
    return Checkpoint(folder=tiny_policy_folder, files=file_digests(tiny_policy_folder), metadata={"policy_version": 0})


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=TOKEN_IDS).logits
    return found


def train_a_little(model: Any, *, num_steps: int = 3) -> None:
    """Steps on any loss; only what takes a gradient moves."""
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2)
    for _ in range(num_steps):
        optimizer.zero_grad()
        (model(input_ids=TOKEN_IDS).logits[..., 5].mean()).backward()
        optimizer.step()


def store(policy: LoadedPolicy, model: Any, source: Checkpoint, folder: Path, *, version: int = 1) -> Checkpoint:
    """The trained policy on disk, as a round leaves it."""
    adapter = adapter_files(model)
    merged = dataclasses.replace(policy, model=merge_adapter(model))
    files = {**policy_files(merged, source.folder), **adapter}
    dataset = CheckpointDataset(filepath=str(folder / "policy.json"))
    dataset.save(CheckpointFiles(files=files, metadata={"policy_version": version}))
    return dataset.load()


def test_a_new_adapter_is_the_base_and_consumes_no_global_randomness(
    base: LoadedPolicy, base_checkpoint: Checkpoint
) -> None:
    state = torch.random.get_rng_state()
    model = open_adapter(base, base_checkpoint, base_checkpoint, SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(logits(model), logits(base.model))
    again, other = (
        adapter_files(open_adapter(base, base_checkpoint, base_checkpoint, dataclasses.replace(SETTINGS, seed=seed)))
        for seed in (3, 4)
    )
    ours = adapter_files(model)["adapter/adapter_model.safetensors"]
    assert all(torch.equal(ours[name], again["adapter/adapter_model.safetensors"][name]) for name in ours)
    assert not all(torch.equal(ours[name], other["adapter/adapter_model.safetensors"][name]) for name in ours)


def test_only_the_adapter_trains(base: LoadedPolicy, base_checkpoint: Checkpoint) -> None:
    before = copy.deepcopy(base.model.state_dict())
    model = open_adapter(base, base_checkpoint, base_checkpoint, SETTINGS)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert not any("lm_head" in name or "embed_tokens" in name for name in trained)
    train_a_little(model)

    assert (logits(model) - logits(base.model)).abs().max() > 1e-2
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())
    within = {name.replace(".base_layer", ""): tensor for name, tensor in model.base_model.model.state_dict().items()}
    assert all(torch.equal(tensor, within[name]) for name, tensor in before.items())


def test_the_stored_policy_is_loaded_by_transformers_and_its_adapter_by_peft(
    base: LoadedPolicy, base_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model = open_adapter(base, base_checkpoint, base_checkpoint, SETTINGS)
    train_a_little(model)
    expected = logits(model)
    stored = store(base, model, base_checkpoint, tmp_path)

    merged = AutoModelForCausalLM.from_pretrained(stored.folder, local_files_only=True).eval()
    assert type(merged).__name__ == "Qwen2ForCausalLM"
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)
    assert (logits(merged) - logits(base.model)).abs().max() > 1e-2
    torch.testing.assert_close(logits(load_policy(stored.folder, device="cpu", dtype="float32").model), logits(merged))

    plain = AutoModelForCausalLM.from_pretrained(base_checkpoint.folder, local_files_only=True).eval()
    with_adapter = PeftModel.from_pretrained(plain, stored.folder / ADAPTER_FOLDER)
    assert torch.equal(logits(with_adapter), expected)
    config = PeftConfig.from_pretrained(stored.folder / ADAPTER_FOLDER)
    assert (config.r, config.lora_alpha, config.base_model_name_or_path) == (4, 8, "the/base")
    layers = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name.rsplit(".", 1)[-1] for name in config.target_modules} == layers


def test_the_next_round_goes_on_from_the_very_same_adapter(
    base: LoadedPolicy, base_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model = open_adapter(base, base_checkpoint, base_checkpoint, SETTINGS)
    train_a_little(model)
    expected, tensors = logits(model), adapter_files(model)
    stored = store(base, model, base_checkpoint, tmp_path)
    again = open_adapter(base, base_checkpoint, stored, dataclasses.replace(SETTINGS, seed=99))

    assert torch.equal(logits(again), expected)
    found = adapter_files(again)
    assert found["adapter/adapter_config.json"] == tensors["adapter/adapter_config.json"]
    name = "adapter/adapter_model.safetensors"
    assert all(torch.equal(found[name][key], tensors[name][key]) for key in tensors[name])


def test_log_probabilities_are_those_of_the_merged_policy(
    base: LoadedPolicy, base_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The trainer's own path: packed rows, projected at the completions alone."""
    model = open_adapter(base, base_checkpoint, base_checkpoint, SETTINGS)
    train_a_little(model)
    (batch,) = pack_batches(
        [[2, 5], [7, 3, 9]],
        [[12, 7, 19], [3, 20]],
        max_tokens=100,
        max_shared_length=shared_length(model),
        pad_token_id=0,
        device=model.device,
    )
    ours = completion_log_probs(model, batch, temperature=0.7)
    ours.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    stored = store(base, model, base_checkpoint, tmp_path)
    merged = load_policy(stored.folder, device="cpu", dtype="float32").model
    theirs = completion_log_probs(merged, batch, temperature=0.7)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_policy_without_an_adapter_is_refused_unless_it_is_the_base(
    base: LoadedPolicy, base_checkpoint: Checkpoint
) -> None:
    other = dataclasses.replace(
        base_checkpoint, files={**base_checkpoint.files, "model.safetensors": "0"}, metadata={"policy_version": 4}
    )
    with pytest.raises(PolicyFolderError, match=r"policy version 4 .* has no adapter and is not the reference policy"):
        open_adapter(base, base_checkpoint, other, SETTINGS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 2}, "r 4 there and 2 now"),
        ({"alpha": 16}, "lora_alpha 8 there and 16 now"),
        ({"base_source": "another"}, "base_model_name_or_path 'the/base' there and 'another' now"),
        ({"target_modules": ("q_proj",)}, "target_modules .* there and .'q_proj'. now"),
    ],
)
def test_an_experiment_keeps_its_adapter(
    base: LoadedPolicy, base_checkpoint: Checkpoint, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    model = open_adapter(base, base_checkpoint, base_checkpoint, SETTINGS)
    stored = store(base, model, base_checkpoint, tmp_path)
    with pytest.raises(PolicyFolderError, match=message):
        open_adapter(base, base_checkpoint, stored, dataclasses.replace(SETTINGS, **changes))


def test_a_named_layer_alone_gets_an_adapter(base: LoadedPolicy, base_checkpoint: Checkpoint) -> None:
    settings = dataclasses.replace(SETTINGS, target_modules=("v_proj", "q_proj"))
    model = open_adapter(base, base_checkpoint, base_checkpoint, settings)
    trained = {name.split(".lora_")[0].rsplit(".", 1)[1] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "v_proj"}
    config = json.loads(adapter_files(model)["adapter/adapter_config.json"])
    assert config["target_modules"] == ["q_proj", "v_proj"]  # in an order that is the same in every process


def test_files_of_the_adapter_are_verified_like_all_others(
    base: LoadedPolicy, base_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    stored = store(base, open_adapter(base, base_checkpoint, base_checkpoint, SETTINGS), base_checkpoint, tmp_path)
    verify_files(stored)
    (stored.folder / "adapter/adapter_config.json").write_text("{}")
    with pytest.raises(PolicyFolderError, match=r"the files \['adapter/adapter_config.json'\]"):
        verify_files(stored)
