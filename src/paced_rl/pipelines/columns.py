"""Between tables and arrays: the few conversions that several stages need."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float

from paced_rl.datasets.parquet_table import TableReader
from paced_rl.parameters import TrainingParameters

MAX_STANDARDISED_PROMPTS = 50_000
"""Mean and spread of an embedding's dimensions are as good from this many prompts as from a million."""


def empty_table(schema: pa.Schema) -> pd.DataFrame:
    """A table without rows, with the columns of `schema`."""
    return schema.empty_table().to_pandas()


def from_rows(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> pd.DataFrame:
    """Rows as a table with the columns of `schema`, in its order; also when there are no rows."""
    return pd.DataFrame(list(rows), columns=schema.names)


def arguments_of(prompts: pd.DataFrame) -> dict[str, tuple[str, dict[str, Any]]]:
    """prompt_id → (verifier name, its arguments)."""
    return {
        prompt_id: (verifier, json.loads(arguments))
        for prompt_id, verifier, arguments in zip(
            prompts["prompt_id"], prompts["verifier"], prompts["verifier_arguments"], strict=True
        )
    }


def embedding_matrix(batch: pa.RecordBatch) -> Float[np.ndarray, "b E"]:
    """The `embedding` column of a batch without copying a value."""
    column = batch.column(batch.schema.get_field_index("embedding"))
    return np.asarray(column.flatten().to_numpy(zero_copy_only=True)).reshape(len(batch), -1)


def embeddings_by_split(
    embeddings: TableReader, splits: tuple[str, ...], *, batch_size: int = 4096
) -> Iterator[tuple[list[str], list[str], Float[np.ndarray, "b E"]]]:
    """(prompt ids, splits, embeddings) of the prompts of these splits, batch by batch."""
    for batch in embeddings.batches(batch_size=batch_size):
        split = np.asarray(batch.column("split").to_pylist())
        is_wanted = np.isin(split, splits)
        if is_wanted.any():
            ids = np.asarray(batch.column("prompt_id").to_pylist())[is_wanted]
            yield ids.tolist(), split[is_wanted].tolist(), embedding_matrix(batch)[is_wanted]


def embeddings_of(embeddings: TableReader, prompt_ids: Iterable[str]) -> dict[str, Float[np.ndarray, "E"]]:
    """prompt_id → embedding of the given prompts; the table is read once, batch by batch."""
    wanted = set(prompt_ids)
    found: dict[str, np.ndarray] = {}
    for batch in embeddings.batches(batch_size=4096):
        ids = batch.column("prompt_id").to_pylist()
        rows = [row for row, prompt_id in enumerate(ids) if prompt_id in wanted]
        if rows:
            matrix = embedding_matrix(batch)
            found.update({ids[row]: matrix[row].copy() for row in rows})
    missing = sorted(wanted - found.keys())
    if missing:
        raise KeyError(
            f"prompt_embeddings lacks {len(missing)} prompts, first {missing[:5]}: prompts and embeddings are of "
            f"different runs; run `kedro run --pipeline=data_preparation`"
        )
    return found


def accuracies_of_head(log_z: Float[np.ndarray, "N"], training: TrainingParameters) -> Float[np.ndarray, "N"]:
    """β·log Z, the accuracies that the head estimates; NaN under an objective whose log Z is none."""
    from paced_rl.scheduling import estimated_accuracy

    if not training.is_log_z_accuracy:
        return np.full(len(log_z), np.nan)
    return estimated_accuracy(log_z, training.reward_temperature)


def train_embedding_sample(embeddings: TableReader) -> Iterator[Float[np.ndarray, "b E"]]:
    """Embeddings of train prompts, at most MAX_STANDARDISED_PROMPTS of them: every n-th."""
    stride = max(1, embeddings.num_rows // MAX_STANDARDISED_PROMPTS)
    for _, _, matrix in embeddings_by_split(embeddings, ("train",)):
        yield matrix[::stride].copy()
