"""Under which code, libraries and hardware something was computed, without a name of a host or a user in it."""

import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paced_rl.seeds import derive_seed

_DISTRIBUTION = "paced-rl"
_OPTIONAL = ("vllm",)
"""Distributions that change numbers and that the package does not ask for."""

_TIMEOUT_SECONDS = 10
"""Of git and nvidia-smi; a run does not wait longer to say where it ran."""


def git_state(project: Path) -> dict[str, Any] | None:
    """The commit that is checked out and whether files differ from it; None outside a repository or without git."""
    command = ["git", "status", "--porcelain=v2", "--branch"]
    try:
        result = subprocess.run(
            command, cwd=project, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = result.stdout.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "")
    return {"commit": commit, "is_dirty": any(not line.startswith("#") for line in lines)}


@functools.cache
def library_versions() -> Mapping[str, str]:
    """Versions of Python, of the package and of every distribution that it asks for; what is not installed is left out.

    Differs from the runner's `installed_versions`, which are the few that make a node run again.
    """
    names = [_DISTRIBUTION, *_OPTIONAL]
    for requirement in importlib.metadata.requires(_DISTRIBUTION) or ():
        if "extra ==" not in requirement:
            names += re.findall(r"^[\w.-]+", requirement)
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, Any]:
    """What a result may depend on through rounding: processor, its instructions, threads, GPUs; and memory.

    What only torch knows is None as long as torch has not been imported, because nothing has been computed with it.
    """
    torch = sys.modules.get("torch")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "num_cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cpu_capability": torch.backends.cpu.get_cpu_capability() if torch else None,
        "num_torch_threads": torch.get_num_threads() if torch else None,
        "gpus": _gpu_names(),
    }


@functools.cache
def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    # ARM kernels name no model.
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())


@functools.cache
def _gpu_names() -> list[str]:
    """NVIDIA GPUs of the machine; not from torch, which would open a CUDA context in a process that needs none."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return result.stdout.splitlines()


def named_seeds(experiment_seed: int, round_number: int) -> dict[str, int]:
    """The experiment's seed, and those derived from it that a whole stage takes.

    All others belong to one row (`rollouts.seed`) or one draw, and follow from the experiment's, see `paced_rl.seeds`.
    """
    return {
        "experiment": experiment_seed,
        "prompts": derive_seed(experiment_seed, "prompts"),
        "log_z_head": derive_seed(experiment_seed, "log_z_head"),
        "lora": derive_seed(experiment_seed, "lora"),
        "training": derive_seed(experiment_seed, "training", round_number),
    }


def without_places(value: Any, project: Path) -> Any:
    """The value with paths relative to the project, or to the home folder as `~/…`, which tell no user's name."""
    if isinstance(value, Mapping):
        return {key: without_places(item, project) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item, project) for item in value]
    if isinstance(value, str) and Path(value).is_absolute():
        for folder, short in ((project, "."), (Path.home(), "~")):
            if folder != Path("/") and Path(value).is_relative_to(folder):
                return (Path(short) / Path(value).relative_to(folder)).as_posix()
    return value


def with_home(value: Any) -> Any:
    """The inverse of `without_places` for paths below the home folder."""
    if isinstance(value, Mapping):
        return {key: with_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_home(item) for item in value]
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~/") else value


def flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf of nested mappings."""
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
