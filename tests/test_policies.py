"""Policies on disk: found, checked, loaded once, stored so that they load again."""

import dataclasses
import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from paced_rl.policies import (
    PolicyFolderError,
    check_policy_folder,
    load_policy,
    open_policy,
    policy_files,
    resolve_policy,
)
from paced_rl.types import Checkpoint

TOKEN_IDS = torch.tensor([[2, 5, 12, 7, 19, 3, 20, 11]])


@pytest.fixture
def policy_folder(tiny_policy_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_policy_folder, tmp_path / "policy"))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKEN_IDS).logits


def write_files(files: dict[str, Any], folder: Path) -> Path:
    folder.mkdir()
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif isinstance(content, Path):
            shutil.copy(content, folder / name)
        else:
            save_file(content, folder / name, metadata={"format": "pt"})
    return folder


def shard(folder: Path) -> None:
    """Splits model.safetensors into two shards with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file_name, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / file_name, metadata={"format": "pt"})
    weight_map = {name: file_name for file_name, part in shards.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


# --- the folder ---


def test_a_whole_folder_passes_sharded_or_not(policy_folder: Path) -> None:
    check_policy_folder(policy_folder)
    shard(policy_folder)
    check_policy_folder(policy_folder)
    assert torch.isfinite(logits(load_policy(policy_folder, device="cpu", dtype="float32").model)).all()


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("config.json", r"has no config\.json; found \['generation_config\.json'"),
        ("tokenizer.json", r"has no tokenizer; found .* needed tokenizer\.json or vocab\.json \+ merges\.txt"),
        ("model.safetensors", r"has no weights; found .* needed model\.safetensors or .*convert them"),
    ],
)
def test_a_missing_file_is_named(policy_folder: Path, removed: str, message: str) -> None:
    (policy_folder / removed).unlink()
    with pytest.raises(PolicyFolderError, match=message):
        check_policy_folder(policy_folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is not valid JSON"), (b"\xff", "is not valid JSON"), (b"[]", "JSON object; got list")],
)
def test_a_damaged_json_file_is_named(policy_folder: Path, name: str, content: bytes, message: str) -> None:
    (policy_folder / name).write_bytes(content)
    with pytest.raises(PolicyFolderError, match=f"{name} .*{message}"):
        check_policy_folder(policy_folder)


def test_a_folder_that_is_not_there_or_says_no_model_type(policy_folder: Path) -> None:
    with pytest.raises(PolicyFolderError, match="does not exist or is not a folder"):
        check_policy_folder(policy_folder / "nowhere")
    (policy_folder / "config.json").write_text("{}")
    with pytest.raises(PolicyFolderError, match="no `model_type`"):
        check_policy_folder(policy_folder)


def test_missing_and_unnamed_shards(policy_folder: Path) -> None:
    shard(policy_folder)
    (policy_folder / "b.safetensors").unlink()
    with pytest.raises(PolicyFolderError, match=r"lacks 1 of the 2 shards .*\['b\.safetensors'\]"):
        check_policy_folder(policy_folder)
    (policy_folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(PolicyFolderError, match="`weight_map`"):
        check_policy_folder(policy_folder)


def test_every_cut_of_the_weights_is_noticed(policy_folder: Path) -> None:
    path = policy_folder / "model.safetensors"
    content = path.read_bytes()
    for damaged in [
        *(content[:length] for length in (0, 4, 8, 100, len(content) // 2, len(content) - 1)),
        content + b"0",
    ]:
        path.write_bytes(damaged)
        message = rf"model\.safetensors \({len(damaged)} bytes\) is not a whole safetensors file"
        with pytest.raises(PolicyFolderError, match=message):
            check_policy_folder(policy_folder)


@pytest.mark.parametrize(
    "header", [b"{ ", b"[]", b'{"a": 3}', b'{"a": {"data_offsets": []}}', b'{"a": {"data_offsets": ["", ""]}}']
)
def test_a_damaged_weight_header_is_noticed(policy_folder: Path, header: bytes) -> None:
    (policy_folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(PolicyFolderError, match=r"not a whole safetensors file.* header.*download it again"):
        check_policy_folder(policy_folder)


def test_a_flipped_bit_anywhere_in_the_weight_header_is_one_error_or_harmless(policy_folder: Path) -> None:
    path = policy_folder / "model.safetensors"
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    metadata = range(8, 8 + len(b'{"__metadata__":{"format":"pt"}'))  # its names and values may be anything
    whole = logits(load_policy(policy_folder, device="cpu", dtype="float32").model)
    num_refused = 0
    positions = range(0, end, 37)
    for position in positions:
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        try:
            loaded = load_policy(policy_folder, device="cpu", dtype="float32")
        except PolicyFolderError:
            num_refused += 1
        else:
            assert position in metadata
            assert torch.equal(logits(loaded.model), whole)
    assert num_refused >= len(positions) - 1


# --- where it comes from ---


def test_a_local_folder_is_its_own_answer(tiny_policy_folder: Path) -> None:
    assert resolve_policy(str(tiny_policy_folder), None) == (tiny_policy_folder, None)
    with pytest.raises(PolicyFolderError, match="has no revisions; got revision='main'"):
        resolve_policy(str(tiny_policy_folder), "main")
    with pytest.raises(PolicyFolderError, match="is a file; give the folder"):
        resolve_policy(str(tiny_policy_folder / "config.json"), None)


@pytest.mark.parametrize(
    "source",
    [
        "./no/policy",
        "../policy",
        "/no/such/policy",
        "~/no/such/policy",
        "data/01_raw/starter",
        "here/policy",
        "a/b/c",
        "",
    ],
)
def test_what_looks_like_a_path_is_never_looked_up(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> str:
        raise AssertionError("looked up on the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PolicyFolderError, match=r"does not exist \(looked at /"):
        resolve_policy(source, None)


def test_a_hub_id_gives_the_snapshot_and_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def download(repo_id: str, **kwargs: Any) -> str:
        seen.update(kwargs, repo_id=repo_id)
        return str(tmp_path / "snapshots" / "0123abc")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_policy("Qwen/Qwen2.5-Math-1.5B", "main") == (tmp_path / "snapshots" / "0123abc", "0123abc")
    assert (seen["repo_id"], seen["revision"]) == ("Qwen/Qwen2.5-Math-1.5B", "main")
    assert "*.safetensors" in seen["allow_patterns"]
    assert "*.bin" not in seen["allow_patterns"]


def test_without_network_there_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        PolicyFolderError, match=r"'nobody/no-policy' \(revision newest\) is no local folder and could not"
    ):
        resolve_policy("nobody/no-policy", None)


# --- loading ---


def test_loading_gives_model_tokenizer_and_token_ids(tiny_policy_folder: Path) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    policy = load_policy(tiny_policy_folder, device="cpu", dtype="float32")
    assert torch.equal(torch.get_rng_state(), state)
    assert not policy.model.training
    assert policy.model.dtype == torch.float32
    assert policy.model.config._attn_implementation == "sdpa"
    assert all(parameter.requires_grad for parameter in policy.model.parameters())
    assert (policy.pad_token_id, policy.eos_token_ids) == (0, (1,))
    assert policy.tokenizer.decode(policy.tokenizer.encode("3 4>12: 3*4")) == "3 4>12: 3*4"
    assert load_policy(tiny_policy_folder, device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16


def test_end_tokens_come_from_the_generation_config_then_config_then_tokenizer(policy_folder: Path) -> None:
    def eos_token_ids() -> tuple[int, ...]:
        return load_policy(policy_folder, device="cpu", dtype="float32").eos_token_ids

    edit_json(policy_folder / "generation_config.json", eos_token_id=[5, 1])
    edit_json(policy_folder / "config.json", eos_token_id=3)
    assert eos_token_ids() == (1, 5)
    (policy_folder / "generation_config.json").unlink()
    assert eos_token_ids() == (3,)
    edit_json(policy_folder / "config.json", eos_token_id=None)
    assert eos_token_ids() == (1,)


def test_a_policy_without_an_end_token_is_refused(policy_folder: Path) -> None:
    edit_json(policy_folder / "generation_config.json", eos_token_id=None)
    edit_json(policy_folder / "config.json", eos_token_id=None)
    # Qwen2's tokenizer class has an end token by default, the generic one has not.
    edit_json(policy_folder / "config.json", model_type="llama", architectures=["LlamaForCausalLM"])
    edit_json(policy_folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", eos_token=None)
    with pytest.raises(PolicyFolderError, match="no end-of-sequence token"):
        load_policy(policy_folder, device="cpu", dtype="float32")


def test_damaged_and_missing_weights_are_refused(policy_folder: Path) -> None:
    path = policy_folder / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.mlp.down_proj.weight"
    for value in [float("nan"), float("inf")]:
        broken = {**tensors, name: tensors[name].clone()}
        broken[name][3, 5] = value
        save_file(broken, path, metadata={"format": "pt"})
        with pytest.raises(PolicyFolderError, match=rf"1 tensors .* NaN or infinity, e\.g\. \['{name}'\]"):
            load_policy(policy_folder, device="cpu", dtype="float32")
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, path, metadata={"format": "pt"})
    with pytest.raises(PolicyFolderError, match=rf"lack 1 tensors of Qwen2ForCausalLM: \['{name}'\]"):
        load_policy(policy_folder, device="cpu", dtype="float32")
    save_file({**tensors, name: torch.zeros(2, 2)}, path, metadata={"format": "pt"})
    with pytest.raises(PolicyFolderError, match="could not be loaded"):
        load_policy(policy_folder, device="cpu", dtype="float32")


def test_a_foreign_tokenizer_and_a_foreign_dtype_are_refused(policy_folder: Path) -> None:
    edit_json(policy_folder / "generation_config.json", eos_token_id=24)
    with pytest.raises(PolicyFolderError, match="token ids up to 24, the model only 24 embeddings"):
        load_policy(policy_folder, device="cpu", dtype="float32")
    with pytest.raises(ValueError, match=r"dtype must be one of .*got 'float16'"):
        load_policy(policy_folder, device="cpu", dtype="float16")


def checkpoint_of(folder: Path) -> Checkpoint:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    return Checkpoint(folder=folder, files=files, metadata={"policy_version": 0})


def test_a_version_is_loaded_once_wherever_it_lies(policy_folder: Path, tiny_policy_folder: Path) -> None:
    first = open_policy(checkpoint_of(tiny_policy_folder), device="cpu", dtype="float32")
    assert open_policy(checkpoint_of(policy_folder), device="cpu", dtype="float32") is first
    assert open_policy(checkpoint_of(policy_folder), device="cpu", dtype="bfloat16") is not first

    files = policy_files(first, policy_folder)
    files["model.safetensors"] = {
        name: tensor + 1 if name == "model.norm.weight" else tensor
        for name, tensor in load_file(policy_folder / "model.safetensors").items()
    }
    changed = open_policy(
        checkpoint_of(write_files(files, policy_folder.parent / "next")), device="cpu", dtype="float32"
    )
    assert changed is not first
    assert not torch.equal(logits(changed.model), logits(first.model))
    # Two versions stay; the third-last is loaded anew.
    assert open_policy(checkpoint_of(policy_folder), device="cpu", dtype="float32") is not first


def test_a_checkpoint_without_files_has_no_version_to_be_known_by(policy_folder: Path) -> None:
    checkpoint = Checkpoint(folder=policy_folder, files={}, metadata={"policy_version": 0})
    with pytest.raises(PolicyFolderError, match="names no files"):
        open_policy(checkpoint, device="cpu", dtype="float32")


# --- storing ---


def test_stored_files_load_again_with_the_same_logits(policy_folder: Path) -> None:
    (policy_folder / "chat_template.jinja").write_text("{{ messages }}")
    (policy_folder / "README.md").write_text("about")
    (policy_folder / "pytorch_model.bin").write_bytes(b"pickle")
    (policy_folder / "manifest.json").write_text("{}")
    shard(policy_folder)
    policy = load_policy(policy_folder, device="cpu", dtype="float32")
    with torch.no_grad():
        policy.model.get_input_embeddings().weight[:, 0] += 0.1

    files = policy_files(policy, policy_folder)
    assert sorted(files) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    tensors = files["model.safetensors"]
    assert isinstance(tensors, dict)
    assert "lm_head.weight" not in tensors  # tied to the embedding, stored once
    folder = write_files(files, policy_folder.parent / "next")
    check_policy_folder(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(loaded), logits(policy.model))
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == policy.tokenizer.get_vocab()

    policy.model.save_pretrained(policy_folder.parent / "reference")
    assert tensors.keys() == load_file(policy_folder.parent / "reference" / "model.safetensors").keys()


def test_untied_and_sixteen_bit_weights_are_stored_as_they_are(policy_folder: Path) -> None:
    config = Qwen2Config.from_pretrained(policy_folder, tie_word_embeddings=False)
    with torch.random.fork_rng(devices=[]):
        Qwen2ForCausalLM(config).save_pretrained(policy_folder)
    edit_json(policy_folder / "config.json", torch_dtype="float32")
    policy = load_policy(policy_folder, device="cpu", dtype="bfloat16")

    files = policy_files(policy, policy_folder)
    assert isinstance(files["config.json"], bytes)
    stored_config = json.loads(files["config.json"])
    assert stored_config["dtype"] == "bfloat16"
    assert "torch_dtype" not in stored_config
    folder = write_files(files, policy_folder.parent / "next")
    tensors = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert not torch.equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])
    again = load_policy(folder, device="cpu", dtype="bfloat16")
    assert torch.equal(logits(again.model), logits(policy.model))
    assert policy_files(again, folder)["config.json"] == files["config.json"]


def test_a_loaded_policy_is_frozen(tiny_policy_folder: Path) -> None:
    policy = load_policy(tiny_policy_folder, device="cpu", dtype="float32")
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.pad_token_id = 3  # type: ignore[misc]
