"""Rounds that train a low-rank adapter: resumed is uninterrupted, and what they leave is a policy like any other."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from project_folders import make_project, run
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from paced_rl.preflight import PreflightError
from paced_rl.retention import prune_rounds

PARAMS: dict[str, Any] = {
    "data_preparation": {"num_train": 20, "num_audit": 4, "num_validation": 4, "num_test": 4},
    "scheduling": {"num_prompts": 4, "audit_fraction": 0.25},
    "rollout": {"group_size": 8, "max_new_tokens": 8},
    "evaluation": {"num_samples": 1},
    "policy": {"lora_rank": 2, "lora_alpha": 4},
    "training": {"learning_rate": 1e-2},
}


def manifest(project: Path, name: str, round_number: int) -> dict[str, Any]:
    path = project / f"data/06_models/{name}/experiment=test/round={round_number:04d}/{name}.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def folder_of(project: Path, round_number: int) -> Path:
    round_folder = project / f"data/06_models/policy/experiment=test/round={round_number:04d}"
    return round_folder / str(manifest(project, "policy", round_number)["folder"])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rounds 1 and 2 in one call."""
    made = make_project(tmp_path_factory.mktemp("lora") / "project")
    assert run(made, range(1, 3), params=PARAMS) == [1, 2]
    return made


def test_a_resumed_experiment_is_the_uninterrupted_one(project: Path, tmp_path: Path) -> None:
    other = make_project(tmp_path / "project")
    assert run(other, range(1, 2), params=PARAMS) == [1]
    assert run(other, range(2, 3), params=PARAMS) == [2]

    for name in ("policy", "log_z_head", "optimizer_state"):
        assert manifest(project, name, 2) == manifest(other, name, 2)
    assert manifest(project, "policy", 1)["files"] != manifest(project, "policy", 2)["files"]


def test_what_is_stored_is_a_policy_with_an_adapter_inside(project: Path) -> None:
    start = load_file(project / "data/01_raw/starter_policy/model.safetensors")
    for round_number in (1, 2):
        folder = folder_of(project, round_number)
        merged = load_file(folder / "model.safetensors")
        assert {name: array.shape for name, array in merged.items()} == {n: array.shape for n, array in start.items()}
        moved = {name for name, array in merged.items() if abs(array - start[name]).max() > 0}
        assert moved
        assert all("_proj." in name for name in moved)
        adapter = load_file(folder / "adapter/adapter_model.safetensors")
        assert all(min(array.shape) == 2 for array in adapter.values())
        config = json.loads((folder / "adapter/adapter_config.json").read_text())
        assert (config["r"], config["base_model_name_or_path"]) == (2, "data/01_raw/starter_policy")
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        assert model.num_parameters() == sum(array.size for array in start.values())
    optimizer = load_file(
        next(project.glob("data/06_models/optimizer_state/*/round=0002/*/*/policy_optimizer.safetensors"))
    )
    assert all(".lora_" in name for name in optimizer)


def test_pruning_takes_the_adapter_too_and_only_of_its_round(project: Path) -> None:
    folder = folder_of(project, 1)
    prune_rounds(project, "test", latest=2, kept={0, 2})
    assert not folder.exists()
    assert (folder_of(project, 2) / "adapter/adapter_model.safetensors").is_file()
    with pytest.raises(FileNotFoundError):
        load_file(folder / "model.safetensors")
    assert run(project, range(3, 4), params=PARAMS) == [3]


def test_another_adapter_needs_another_experiment(project: Path) -> None:
    changed = {**PARAMS, "policy": {"lora_rank": 4, "lora_alpha": 4}}
    last = max(int(path.name[-4:]) for path in project.glob("data/06_models/policy/experiment=test/round=*"))
    with pytest.raises(ValueError, match="is another one: r 2 there and 4 now"):
        run(project, range(last + 1, last + 2), params=changed)


def test_without_peft_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == "peft" else find_spec(name, *args)
    )
    project = make_project(tmp_path / "project")
    with pytest.raises(PreflightError, match=r"^policy.lora_rank = 2 needs peft, which is not installed: run `pip "):
        run(project, range(1, 2), params=PARAMS)
