"""Where a policy comes from, and whether its folder is whole; no model is loaded and PyTorch not imported.

A policy's folder is in Hugging Face format: config.json, a tokenizer, and weights as safetensors. Weights as pickle
(`pytorch_model.bin`) are refused, because loading them runs code.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paced_rl.types import Checkpoint

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER_FILE_SETS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",), ("vocab.txt",))
"""Any one of these sets of files is a tokenizer that transformers can load."""
TEXT_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
"""Everything beside the weights that a policy needs; other files (readmes, licences, pickles) are left behind."""
MAX_LISTED = 5


class PolicyFolderError(ValueError):
    """A policy cannot be found, is incomplete, or is damaged."""


def resolve_policy(source: str, revision: str | None) -> tuple[Path, str | None]:
    """The folder of a policy, downloaded first if `source` is a hub id.

    Args:
        source: a local folder, or a hub id such as `Qwen/Qwen2.5-Math-1.5B`.
        revision: commit, branch or tag of a hub id; None takes the newest.

    Returns:
        The folder, and the commit a hub id resolved to (None for a local folder).

    Raises:
        PolicyFolderError: the folder or the hub repository cannot be found or read.
    """
    path = Path(source).expanduser()
    if source and path.exists():
        if not path.is_dir():
            raise PolicyFolderError(f"policy source {source!r} is a file; give the folder that holds config.json")
        if revision is not None:
            raise PolicyFolderError(
                f"policy source {source!r} is a local folder, which has no revisions; got revision={revision!r}: "
                "set policy.revision to null"
            )
        return path, None
    is_hub_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", source) is not None
    if not is_hub_id or source.startswith("data/") or ("/" in source and path.parent.is_dir()):
        raise PolicyFolderError(
            f"policy folder {source!r} does not exist (looked at {path.absolute()}); give an existing folder in "
            "Hugging Face format, or a hub id such as 'Qwen/Qwen2.5-Math-1.5B'. A task that ships no "
            "starter makes it with `kedro run --env=<env> --pipelines=starter_policy`"
        )
    return _download_policy(source, revision)


def _download_policy(hub_id: str, revision: str | None) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=[*TEXT_FILES, "*.safetensors"],
            # Other formats of the same weights lie in subfolders or under this name.
            ignore_patterns=["*/*", "consolidated*"],
        )
    except (OSError, ValueError) as error:
        # The hub's own errors (not found, gated, offline, malformed id) all derive from these two.
        raise PolicyFolderError(
            f"policy {hub_id!r} (revision {revision or 'newest'}) is no local folder and could not be taken from the "
            f"Hugging Face hub: {type(error).__name__}: {error} "
            "Check the name, the network and HF_TOKEN, or download it and give the folder."
        ) from error
    return Path(folder), Path(folder).name  # the cache names a snapshot's folder after its commit


def check_policy_folder(folder: Path) -> None:
    """Checks, without loading a model, that a policy's folder is complete and its weights are not cut short.

    Raises:
        PolicyFolderError: naming the file at fault, what was found and what is needed.
    """
    if not folder.is_dir():
        raise PolicyFolderError(f"policy folder {folder} does not exist or is not a folder")
    names = sorted(path.name for path in folder.iterdir())
    if "config.json" not in names:
        raise PolicyFolderError(f"policy folder {folder} has no config.json; found {names}")
    if "model_type" not in read_json(folder / "config.json"):
        raise PolicyFolderError(f"{folder / 'config.json'} has no `model_type`, which says what model to build")
    if not any(set(needed) <= set(names) for needed in TOKENIZER_FILE_SETS):
        wanted = " or ".join(" + ".join(needed) for needed in TOKENIZER_FILE_SETS)
        raise PolicyFolderError(f"policy folder {folder} has no tokenizer; found {names}, needed {wanted}")
    for name in {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} & set(names):
        read_json(folder / name)
    for name in _weight_file_names(folder, names):
        _check_safetensors(folder / name)


def read_json(path: Path) -> Mapping[str, Any]:
    """The JSON object in a file; PolicyFolderError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also what broken UTF-8 raises
        raise PolicyFolderError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise PolicyFolderError(f"{path} must hold a JSON object; got {type(content).__name__}")
    return content


def _weight_file_names(folder: Path, names: list[str]) -> list[str]:
    if WEIGHTS in names:
        return [WEIGHTS]
    if WEIGHTS_INDEX not in names:
        raise PolicyFolderError(
            f"policy folder {folder} has no weights; found {names}, needed {WEIGHTS} or {WEIGHTS_INDEX} with its "
            "shards. Pickled weights (*.bin, *.pt) are not read: convert them with `save_pretrained`"
        )
    weight_map = read_json(folder / WEIGHTS_INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise PolicyFolderError(f"{folder / WEIGHTS_INDEX} must map tensor names to shards under `weight_map`")
    shards = sorted(set(weight_map.values()))
    missing = [name for name in shards if name not in names]
    if missing:
        raise PolicyFolderError(
            f"policy folder {folder} lacks {len(missing)} of the {len(shards)} shards that {WEIGHTS_INDEX} names: "
            f"{missing[:MAX_LISTED]}; download them again"
        )
    return shards


def _check_safetensors(path: Path) -> None:
    """Reads the file's header, which says every tensor's type, shape and byte range, and no tensor."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return
    except (SafetensorError, OSError) as error:
        raise PolicyFolderError(
            f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file, it was cut short or damaged: "
            f"{error}; copy or download it again"
        ) from error


def verify_files(checkpoint: Checkpoint) -> None:
    """Reads every file once, for who hands the folder to an engine: one that meets a damaged one may be lost.

    Raises:
        PolicyFolderError: a file is not what the manifest says.
    """
    paths = {name: checkpoint.folder / name for name in checkpoint.files}  # a name may have a folder of its own
    changed = sorted(
        name for name, path in paths.items() if not path.is_file() or _sha256(path) != checkpoint.files[name]
    )
    if changed:
        raise PolicyFolderError(
            f"the files {changed} in {checkpoint.folder} are not those that the manifest of policy version "
            f"{checkpoint.policy_version} names: put them back, or run the round that writes them again"
        )


def file_digests(folder: Path) -> dict[str, str]:
    """sha256 in hex of every visible file directly in `folder`, by name."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return {path.name: _sha256(path) for path in paths}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
