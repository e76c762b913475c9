"""From a source to the `prompts` table, and from prompts to what the log-Z head sees of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from paced_rl.parameters import DataPreparationParameters, PolicyParameters
from paced_rl.schemas import PROMPT_EMBEDDINGS, PROMPTS
from paced_rl.seeds import derive_seed
from paced_rl.types import Checkpoint, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def open_reference_policy(policy: PolicyParameters) -> Checkpoint:
    """The policy before any RL, checked before any work is done: a local folder, or a hub id, downloaded once."""
    from paced_rl.policies import check_policy_folder, file_digests, resolve_policy

    folder, revision = resolve_policy(policy.source, policy.revision)
    check_policy_folder(folder)
    metadata: dict[str, str | int] = {"policy_version": 0, "source": policy.source}
    if revision is not None:
        metadata["revision"] = revision
    return Checkpoint(folder=folder, files=file_digests(folder), metadata=metadata)


def prepare_prompts(
    reference_policy: Checkpoint, data_preparation: DataPreparationParameters, policy: PolicyParameters, seed: int
) -> pd.DataFrame:
    """Prompts of the source with their splits and token ids; refuses what cannot be trained on, naming the prompts."""
    from transformers import AutoTokenizer

    from paced_rl.prompts.splits import check_splits_are_disjoint
    from paced_rl.verifiers import verify_completions

    prompts = _prompts_of(data_preparation, seed=derive_seed(seed, "prompts"))
    check_splits_are_disjoint(prompts)
    # A truncated completion is never judged: this checks the arguments of every verifier, and nothing else.
    verify_completions(
        [(prompt.verifier, prompt.verifier_arguments, "", True) for prompt in prompts],
        timeout_seconds=1.0,
        memory_bytes=1024**3,
    )
    tokenizer = AutoTokenizer.from_pretrained(reference_policy.folder, local_files_only=True)
    _check_nothing_is_lost(prompts, tokenizer, policy=policy.source)
    token_ids = tokenizer([prompt.text for prompt in prompts])["input_ids"]
    _check_lengths(prompts, token_ids, max_prompt_tokens=data_preparation.max_prompt_tokens)
    rows = [
        {
            "prompt_id": prompt.prompt_id,
            "source": prompt.source,
            "split": str(prompt.split),
            "text": prompt.text,
            "token_ids": ids,
            "reference_answer": prompt.reference_answer,
            "verifier": prompt.verifier,
            "verifier_arguments": json.dumps(prompt.verifier_arguments, sort_keys=True),
            "metadata": json.dumps(prompt.metadata, sort_keys=True),
        }
        for prompt, ids in zip(prompts, token_ids, strict=True)
    ]
    return pd.DataFrame(rows, columns=PROMPTS.names)


def _prompts_of(parameters: DataPreparationParameters, *, seed: int) -> list[Prompt]:
    from paced_rl.datasets.prompt_files import read_rows
    from paced_rl.prompts.countdown import countdown_prompts
    from paced_rl.prompts.files import prompts_from_rows
    from paced_rl.prompts.reasoning_gym import reasoning_gym_prompts

    if parameters.source == "countdown":
        return countdown_prompts(**parameters.countdown.model_dump(), **parameters.split_sizes, seed=seed)
    if parameters.source == "reasoning_gym":
        return reasoning_gym_prompts(**parameters.reasoning_gym.model_dump(), **parameters.split_sizes, seed=seed)
    return prompts_from_rows(
        read_rows(Path(parameters.source)),
        source=parameters.source,
        default_verifier=parameters.verifier,
        num_audit=parameters.num_audit,
        num_validation=parameters.num_validation,
        num_test=parameters.num_test,
        seed=seed,
    )


def _check_nothing_is_lost(prompts: list[Prompt], tokenizer: "PreTrainedTokenizerBase", *, policy: str) -> None:
    """Refuses prompts that the policy would read with characters missing, because its tokenizer does not know them."""
    from paced_rl.prompts import lost_characters

    # Without the special tokens that the tokenizer adds, which would decode to characters of their own.
    token_ids = tokenizer([prompt.text for prompt in prompts], add_special_tokens=False)["input_ids"]
    lost: dict[str, list[Prompt]] = {}
    for prompt, ids in zip(prompts, token_ids, strict=True):
        is_unknown_allowed = str(tokenizer.unk_token) in prompt.text
        known = [token for token in ids if is_unknown_allowed or token != tokenizer.unk_token_id]
        decoded = str(tokenizer.decode(known, clean_up_tokenization_spaces=False))
        for character in lost_characters(prompt.text, decoded):
            lost.setdefault(character, []).append(prompt)
    if lost:
        listed = "; ".join(
            f"{character!r} (U+{ord(character):04X}) in {len(found)} prompts, first "
            + ", ".join(f"{prompt.prompt_id} ({prompt.text[:60]!r})" for prompt in found[:3])
            for character, found in list(lost.items())[:5]
        )
        num_prompts = len({prompt.prompt_id for found in lost.values() for prompt in found})
        raise ValueError(
            f"{num_prompts} of {len(prompts)} prompts have {len(lost)} characters that the tokenizer of policy "
            f"{policy!r} does not know and would drop: {listed}. Take them out of the prompts, or set policy.source to "
            "a policy whose tokenizer knows them"
        )


def _check_lengths(prompts: list[Prompt], token_ids: list[list[int]], *, max_prompt_tokens: int) -> None:
    empty = [prompt.prompt_id for prompt, ids in zip(prompts, token_ids, strict=True) if not ids]
    if empty:
        raise ValueError(f"{len(empty)} prompts have no token under this tokenizer, first {empty[:5]}: remove them")
    long = [
        f"{prompt.prompt_id} ({len(ids)} tokens: {prompt.text[:60]!r})"
        for prompt, ids in zip(prompts, token_ids, strict=True)
        if len(ids) > max_prompt_tokens
    ]
    if long:
        raise ValueError(
            f"{len(long)} of {len(prompts)} prompts are longer than data_preparation.max_prompt_tokens = "
            f"{max_prompt_tokens}, first {', '.join(long[:5])}: raise the limit or remove them; prompts are never cut"
        )


def embed_all_prompts(
    reference_policy: Checkpoint,
    prompts: pd.DataFrame,
    data_preparation: DataPreparationParameters,
    policy: PolicyParameters,
) -> pa.RecordBatchReader:
    """A hidden state of the reference policy over every prompt, streamed to disk batch by batch."""
    from paced_rl.embeddings import embed_prompts
    from paced_rl.policies import deterministic_algorithms, open_policy

    loaded = open_policy(reference_policy, device=policy.device, dtype=policy.dtype)
    batches = embed_prompts(
        loaded,
        prompts["token_ids"].to_list(),
        layer=data_preparation.embedding_layer,
        pooling=data_preparation.embedding_pooling,
        batch_size=data_preparation.embedding_batch_size,
    )

    def record_batches() -> Iterator[pa.RecordBatch]:
        begin = 0
        with deterministic_algorithms(policy.is_deterministic):  # here, since the model runs while the table is written
            for matrix in batches:
                part = prompts.iloc[begin : begin + len(matrix)]
                begin += len(matrix)
                columns = [part["prompt_id"].to_list(), part["split"].to_list(), list(matrix)]
                arrays = [
                    pa.array(column, type=field.type) for column, field in zip(columns, PROMPT_EMBEDDINGS, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=PROMPT_EMBEDDINGS)

    return pa.RecordBatchReader.from_batches(PROMPT_EMBEDDINGS, record_batches())
