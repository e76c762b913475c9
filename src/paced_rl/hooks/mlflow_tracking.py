"""Records every executed round in MLflow; `mlflow ui` in the project's root, without any flag, shows it.

A run counts as a round when it writes `round_summary`, or fails on the way there. Everything is written at the end, to
the project's own database or to where `MLFLOW_TRACKING_URI` says. A round of which every node was cached leaves no
trace, and does not even import MLflow.

The tables are the truth and MLflow is a view of them: when MLflow itself fails, what the round wrote is on disk, so the
error is logged with what to do, and the run goes on.
"""

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from paced_rl.command_lines import params_option
from paced_rl.hooks.common import file_of, is_round, read
from paced_rl.hooks.mlflow_store import RoundRecord, log_round
from paced_rl.hooks.summary import FIGURES
from paced_rl.hooks.timings import seconds_per_stage
from paced_rl.provenance import flat

logger = logging.getLogger(__name__)

FINGERPRINTED = ("prompts", "prompt_embeddings", "schedule", "rollouts", "verdicts", "training_batch", "policy")
"""Catalog entries whose file is tagged with the first 16 hex digits of its sha256."""

_DIGEST_CHARACTERS = 16

_LOCAL_UI = "http://127.0.0.1:5000"
"""Where a plain `mlflow ui` serves."""

_NOT_RECORDED = (
    "MLflow could not record round {record.round_number} of experiment '{record.experiment}': {kind}: {failure}\n"
    "What the round wrote under data/ is not affected. To record it once MLflow works again (an experiment that was "
    "deleted there comes back with `mlflow experiments restore`): {command}"
)

_PARTITIONS = ("experiment", "round")  # columns that a table gets from its path


class MlflowHook:
    """Writes a round to MLflow after it has run.

    Off with `tracking.enabled: false` among the parameters, or with the environment variable `PACED_RL_MLFLOW=off`.
    """

    def __init__(self) -> None:
        self._started = 0.0
        self._has_executed = False

    @hook_impl
    def before_pipeline_run(self, run_params: Mapping[str, Any], pipeline: Pipeline) -> None:
        """Forgets what an earlier run in this process left."""
        self._started = time.time()
        self._has_executed = False
        self._project = Path(run_params["project_path"])
        self._is_round = is_round(pipeline)
        self._env = run_params.get("env")
        self._runtime_params = run_params.get("runtime_params") or {}

    @hook_impl
    def before_node_run(self) -> None:
        """Notes that there is something to record."""
        self._has_executed = True

    @hook_impl
    def after_pipeline_run(self, catalog: CatalogProtocol) -> None:
        """Records a completed round."""
        self._record(catalog, error=None)

    @hook_impl
    def on_pipeline_error(self, error: Exception, catalog: CatalogProtocol) -> None:
        """Records a round that failed, with the error's message."""
        self._record(catalog, error=error)

    def _record(self, catalog: CatalogProtocol, *, error: Exception | None) -> None:
        if not (self._has_executed and self._is_round and _is_enabled(catalog)):
            return
        record = collect(catalog, started=self._started, error=error)
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        tracking_uri = os.environ.get("MLFLOW_TRACKING_URI")
        try:
            experiment_id = log_round(record, project=self._project, tracking_uri=tracking_uri)
        except (MlflowException, SQLAlchemyError, OSError) as failure:
            kind, command = type(failure).__name__, self._command(record)
            logger.error(_NOT_RECORDED.format(record=record, kind=kind, failure=failure, command=command))
            return
        server = tracking_uri if tracking_uri and tracking_uri.startswith("http") else _LOCAL_UI
        runs = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
        logger.info("Round %d of '%s' is in MLflow: %s", record.round_number, record.experiment, runs)

    def _command(self, record: RoundRecord) -> str:
        """What records the round again, with the parameters of this run: others would be recorded in their place."""
        env = f"--env={self._env} " if self._env else ""
        params = {**self._runtime_params, "experiment": record.experiment, "round": record.round_number}
        return f"kedro run --pipelines=reporting {env}--params {params_option(params)} --runner-params=force=True"


def _is_enabled(catalog: CatalogProtocol) -> bool:
    if os.environ.get("PACED_RL_MLFLOW", "").lower() == "off":
        return False
    name = "params:tracking.enabled"
    return bool(catalog[name].load()) if name in catalog else True


def collect(catalog: CatalogProtocol, *, started: float, error: Exception | None) -> RoundRecord:
    """Reads from the catalog what is recorded of a round; of a failed one its parameters and its error alone."""
    parameters = catalog["parameters"].load()
    identity: dict[str, Any] = {
        "experiment": parameters["experiment"],
        "round_number": parameters["round"],
        "started": started,
        "params": flat_params(parameters),
        "run_tags": {name: str(value) for name, value in parameters.get("tracking", {}).get("run_tags", {}).items()},
    }
    tags = provenance_tags(read(catalog, "provenance") or {})
    if error is not None:
        # The tables on disk may be of an earlier attempt, so none of them is shown as this one's.
        message = f"{type(error).__name__}: {error}"
        return RoundRecord(
            **identity, tags=tags, round_metrics={}, step_metrics=(), rollouts=None, figures=(), error=message
        )
    figures = [file for name in FIGURES if (file := file_of(catalog, name)) is not None]
    return RoundRecord(
        **identity,
        tags={**tags, **_fingerprints(catalog)},
        round_metrics=_round_metrics(catalog),
        step_metrics=_step_metrics(catalog),
        rollouts=_sampled_rollouts(catalog, parameters),
        figures=figures,
    )


def flat_params(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Dotted name → text of every parameter, defaults of the groups included."""
    from paced_rl.preflight import check_groups

    nested = {**parameters, **{name: group.model_dump() for name, group in check_groups(parameters).items()}}
    return {name: str(value) for name, value in flat(nested)}


def provenance_tags(provenance: Mapping[str, Any]) -> dict[str, str]:
    """A round's `provenance.json` as flat tags, without its parameters, which MLflow has a place of their own for."""
    git = provenance.get("git")
    tags = {key: value for name in ("seeds", "versions", "hardware") for key, value in _section(provenance, name)}
    tags |= {key: str(digest)[:_DIGEST_CHARACTERS] for key, digest in _section(provenance, "inputs")}
    if git:
        tags |= {"mlflow.source.git.commit": git["commit"], "paced.git_dirty": str(git["is_dirty"]).lower()}
    return {name: str(value) for name, value in tags.items()}


def _section(provenance: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    # MLflow allows no `@` in the key of a tag.
    return ((f"paced.{key.replace('@', '.')}", value) for key, value in flat({name: provenance.get(name, {})}))


def _round_metrics(catalog: CatalogProtocol) -> dict[str, float]:
    metrics: dict[str, float] = {}
    summary = read(catalog, "round_summary")
    if summary is not None and not summary.empty:
        row = summary.iloc[0].drop(labels=list(_PARTITIONS), errors="ignore").dropna()
        metrics = {f"round/{name}": float(value) for name, value in row.items()}
    timings = read(catalog, "timings")
    if timings is not None and not timings.empty:
        metrics |= {f"seconds/{stage}": seconds for stage, seconds in seconds_per_stage(timings).items()}
    return metrics


def _step_metrics(catalog: CatalogProtocol) -> list[tuple[str, int, float]]:
    table = read(catalog, "training_metrics")
    if table is None:
        return []
    rows = table.drop(columns=list(_PARTITIONS), errors="ignore").to_dict("records")
    return [
        (f"training/{name}", int(row["optimizer_step"]), float(value))
        for row in rows
        for name, value in row.items()
        if name != "optimizer_step" and value is not None and value == value  # NaN and null are no points
    ]


def _sampled_rollouts(catalog: CatalogProtocol, parameters: Mapping[str, Any]) -> Any:
    """Some rollouts with prompt and verdict, as a data frame; None when there are none or none are wanted."""
    import pandas as pd

    from paced_rl.preflight import check_groups

    limit = check_groups(parameters)["reporting"].num_rollouts_in_mlflow  # type: ignore[attr-defined]
    tables = ("rollouts", "verdicts", "prompts")
    files = [file for name in tables if (file := file_of(catalog, name)) is not None]
    if limit == 0 or len(files) < len(tables):
        return None
    # Only these columns are read: token ids and log-probabilities are most of the bytes.
    columns = (
        ["rollout_id", "prompt_id", "sample_index", "completion", "num_tokens", "finish_reason"],
        ["rollout_id", "verifier", "status", "reward", "extracted_answer"],
        ["prompt_id", "text", "reference_answer"],
    )
    rollouts, verdicts, prompts = (_columns(file, names) for file, names in zip(files, columns, strict=True))
    sample = rollouts.sample(min(limit, len(rollouts)), random_state=parameters["round"]).sort_index()
    # Looked up by index, since a merge of pandas takes longer.
    verdicts = verdicts.set_index("rollout_id").reindex(sample["rollout_id"])
    prompts = prompts.set_index("prompt_id").reindex(sample["prompt_id"])
    joined = pd.concat([table.reset_index(drop=True) for table in (sample, verdicts, prompts)], axis=1)
    first = ["text", "completion", "status", "reward", "extracted_answer", "reference_answer"]
    return joined[first + [name for name in joined.columns if name not in first]]


def _columns(file: Path, names: list[str]) -> Any:
    import pyarrow.parquet as pq

    from paced_rl.datasets.table_cache import is_small, read_table

    # Arrow's own `read_table` takes longer for a small file, and prompts stay in memory from round to round.
    table = read_table(file).select(names) if is_small(file) else pq.read_table(file, columns=names, partitioning=None)
    return table.to_pandas()


def _fingerprints(catalog: CatalogProtocol) -> dict[str, str]:
    tags = {}
    for name in FINGERPRINTED:
        file = file_of(catalog, name)
        if file is not None:
            with file.open("rb") as stream:
                tags[f"paced.data.{name}"] = hashlib.file_digest(stream, "sha256").hexdigest()[:_DIGEST_CHARACTERS]
    return tags
