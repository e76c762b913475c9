"""What there is to know of a policy without loading its weights, for engines that load them on their own terms."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paced_rl.policies.folders import PolicyFolderError, check_policy_folder
from paced_rl.types import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHT_FILES = ".safetensors"
"""End of the names of files that say nothing of tokenizer and configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDescription:
    """How to talk to a policy that runs elsewhere."""

    tokenizer: "PreTrainedTokenizerBase"
    eos_token_ids: tuple[int, ...]
    """Tokens that end a completion, in increasing order; never empty."""
    num_positions: int | None
    """Tokens that prompt and completion may have together; None where the architecture has no limit of its own."""


@dataclass(frozen=True, slots=True)
class _TextKey:
    """What makes two descriptions the same one: the bytes of every file but the weights."""

    digests: frozenset[tuple[str, str]]
    folder: Path = field(compare=False)


def describe_policy(checkpoint: Checkpoint) -> PolicyDescription:
    """Tokenizer, end-of-sequence tokens and length of a policy; versions that differ in weights alone share one.

    Raises:
        PolicyFolderError: the folder is incomplete, its weights are cut short, or no token ends a completion.
    """
    check_policy_folder(checkpoint.folder)
    return _describe(_TextKey(text_digests(checkpoint), checkpoint.folder))


def text_digests(checkpoint: Checkpoint) -> frozenset[tuple[str, str]]:
    """Name and hash of every file but the weights: equal for two versions of one model."""
    return frozenset((name, digest) for name, digest in checkpoint.files.items() if not name.endswith(WEIGHT_FILES))


@lru_cache(maxsize=2)
def _describe(key: _TextKey) -> PolicyDescription:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(key.folder, local_files_only=True)
        config = AutoConfig.from_pretrained(key.folder, local_files_only=True)
        has_generation_config = (key.folder / "generation_config.json").is_file()
        generation_config = (
            GenerationConfig.from_pretrained(key.folder, local_files_only=True) if has_generation_config else None
        )
    except (OSError, ValueError) as error:
        raise PolicyFolderError(f"policy folder {key.folder} could not be read: {error}") from error
    return PolicyDescription(
        tokenizer=tokenizer,
        eos_token_ids=find_eos_token_ids((generation_config, config), tokenizer, key.folder),
        num_positions=find_num_positions(config),
    )


def find_eos_token_ids(configs: tuple[Any, ...], tokenizer: "PreTrainedTokenizerBase", folder: Path) -> tuple[int, ...]:
    """The end-of-sequence ids of the first configuration that has some, else of the tokenizer.

    Args:
        configs: generation configuration, then configuration; None where there is none.
        tokenizer: of the same policy.
        folder: for the message.

    Raises:
        PolicyFolderError: no token ends a completion.
    """
    for ids in (*(config.eos_token_id for config in configs if config is not None), tokenizer.eos_token_id):
        if ids is not None and ids != []:
            return tuple(sorted({ids} if isinstance(ids, int) else set(ids)))
    raise PolicyFolderError(
        f"no end-of-sequence token in {folder}: set eos_token_id in generation_config.json or config.json"
    )


def find_num_positions(config: Any) -> int | None:
    """Positions of a model by its configuration; absent from architectures without a limit, e.g. recurrent ones."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)
