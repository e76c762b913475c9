"""The values that pass between stages: frozen, keyword-only, each field with its shape or unit.

Nothing heavy is imported here, so that every other module may import this one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Split(StrEnum):
    """What a prompt may be used for."""

    TRAIN = "train"
    """Scheduled, rolled out and trained on."""
    AUDIT = "audit"
    """Never trained on; measures the calibration of the accuracy estimate."""
    VALIDATION = "validation"
    """Never trained on; draws learning curves and chooses checkpoints."""
    TEST = "test"
    """Read by final reports only."""


class FinishReason(StrEnum):
    """Why the sampler stopped a completion."""

    EOS = "eos"
    LENGTH = "length"


class VerdictStatus(StrEnum):
    """What became of one verification. Everything except VERIFIER_ERROR carries a reward."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSEABLE = "unparseable"
    TIMED_OUT = "timed_out"
    TRUNCATED = "truncated"
    VERIFIER_ERROR = "verifier_error"


class ScheduleReason(StrEnum):
    """Why a prompt is in a round."""

    SELECTED = "selected"
    AUDIT = "audit"
    WARM_UP = "warm_up"


class Origin(StrEnum):
    """Where a row of the training batch comes from."""

    FRESH = "fresh"
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question, as text, before it meets a tokenizer."""

    prompt_id: str
    """Content hash of (text, verifier, verifier_arguments): 16 hex digits."""
    source: str
    """Where it comes from, e.g. `reasoning_gym/countdown` or a file's name."""
    split: Split
    text: str
    """Rendered prompt: exactly the characters the policy is given."""
    reference_answer: str
    """One right answer, or the empty string where the source has none."""
    verifier: str
    """Name of the verifier, see `paced_rl.verifiers`."""
    verifier_arguments: Mapping[str, Any]
    """Keyword arguments of the verifier; must be serialisable to JSON."""
    metadata: Mapping[str, Any]
    """Anything else the source knows; never read by the loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """The distribution completions are drawn from."""

    temperature: float
    """Logits are divided by it; 0 means greedy."""
    max_new_tokens: int
    """Tokens, the end-of-sequence token included, after which a completion is cut."""
    top_p: float = 1.0
    """Only the likeliest tokens are drawn, as few as reach this probability together; 1 means all."""
    top_k: int = 0
    """Only this many of the likeliest tokens are drawn, 0 for all. Cut first, so `top_p` is a share of the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One prompt and the seeds of the completions wanted for it."""

    prompt_token_ids: tuple[int, ...]
    """[prompt length]; never empty."""
    seeds: tuple[int, ...]
    """[group size]; one completion is drawn per seed, and depends on nothing but prompt, policy, settings and seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sampled answer."""

    text: str
    """Decoded without special tokens."""
    token_ids: tuple[int, ...]
    """[num tokens]; ends with the end-of-sequence token unless cut by length."""
    log_probs: tuple[float, ...]
    """[num tokens]; log-probability of each token, in nats, under the sampling distribution: temperature applied, and
    renormalised over the tokens that `top_k` and `top_p` keep."""
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verifier says of one completion."""

    status: VerdictStatus
    reward: float | None
    """1.0 right, 0.0 otherwise, None when the verifier itself failed."""
    extracted_answer: str | None
    """The verifier's canonical form of the answer, None where nothing could be parsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A folder of files on disk, with what its manifest says of it."""

    folder: Path
    """Holds every file named in `files`."""
    files: Mapping[str, str]
    """File name → sha256 in hex."""
    metadata: Mapping[str, str | int]
    """E.g. `policy_version`."""

    @property
    def policy_version(self) -> int:
        """Round after which these weights were written; 0 is the start policy."""
        return int(self.metadata["policy_version"])


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """A checkpoint that is not on disk yet: what a node returns and a dataset writes."""

    files: Mapping[str, Any]
    """File name → bytes to write, a Path to copy, or a dict of tensors to store as safetensors."""
    metadata: Mapping[str, str | int]
