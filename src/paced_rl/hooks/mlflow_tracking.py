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
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from paced_rl.hooks.common import file_of, is_round, read
from paced_rl.hooks.mlflow_store import RoundRecord, log_round
from paced_rl.hooks.summary import FIGURES
from paced_rl.hooks.timings import seconds_per_stage

logger = logging.getLogger(__name__)

FINGERPRINTED = ("prompts", "prompt_embeddings", "schedule", "rollouts", "verdicts", "training_batch", "policy")
"""Catalog entries whose file is tagged with the first 16 hex digits of its sha256."""

_NOT_RECORDED = (
    "MLflow could not record round {record.round_number} of experiment '{record.experiment}': {kind}: {failure}\n"
    "What the round wrote under data/ is not affected. To record it once MLflow works again: kedro run "
    "--pipelines=reporting --params round={record.round_number},experiment={record.experiment} "
    "--runner-params=force=True"
)

_PARTITIONS = ("experiment", "round")  # columns that a table gets from its path


class MlflowHook:
    """Writes a round to MLflow after it has run.

    Off with `tracking.enabled: false` among the parameters, or with the environment variable `PACED_RL_MLFLOW=off`.
    """

    def __init__(self) -> None:
        self._started = 0.0
        self._has_executed = False
        self._git_tags: dict[str, str] = {}

    @hook_impl
    def before_pipeline_run(self, run_params: Mapping[str, Any], pipeline: Pipeline) -> None:
        """Forgets what an earlier run in this process left."""
        self._started = time.time()
        self._has_executed = False
        self._project = Path(run_params["project_path"])
        self._is_round = is_round(pipeline)

    @hook_impl
    def before_node_run(self) -> None:
        """Notes which code the first executed node finds; a later edit is not what ran."""
        if not self._has_executed and self._is_round:
            self._git_tags = git_tags(self._project)
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
        record = collect(catalog, started=self._started, git=self._git_tags, error=error)
        logger.info("Recording round %d of '%s' in MLflow.", record.round_number, record.experiment)
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            log_round(record, project=self._project, tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"))
        except (MlflowException, SQLAlchemyError, OSError) as failure:
            logger.error(_NOT_RECORDED.format(record=record, kind=type(failure).__name__, failure=failure))


def _is_enabled(catalog: CatalogProtocol) -> bool:
    if os.environ.get("PACED_RL_MLFLOW", "").lower() == "off":
        return False
    name = "params:tracking.enabled"
    return bool(catalog[name].load()) if name in catalog else True


def collect(
    catalog: CatalogProtocol, *, started: float, git: Mapping[str, str], error: Exception | None
) -> RoundRecord:
    """Reads from the catalog what is recorded of a round; of a failed one its parameters and its error alone."""
    parameters = catalog["parameters"].load()
    identity: dict[str, Any] = {
        "experiment": parameters["experiment"],
        "round_number": parameters["round"],
        "started": started,
        "params": flat_params(parameters),
    }
    if error is not None:
        # The tables on disk may be of an earlier attempt, so none of them is shown as this one's.
        message = f"{type(error).__name__}: {error}"
        return RoundRecord(
            **identity, tags=git, round_metrics={}, step_metrics=(), rollouts=None, figures=(), error=message
        )
    figures = [file for name in FIGURES if (file := file_of(catalog, name)) is not None]
    return RoundRecord(
        **identity,
        tags={**git, **_fingerprints(catalog)},
        round_metrics=_round_metrics(catalog),
        step_metrics=_step_metrics(catalog),
        rollouts=_sampled_rollouts(catalog, parameters),
        figures=figures,
    )


def flat_params(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Dotted name → text of every parameter, defaults of the groups included."""
    from paced_rl.preflight import check_groups

    nested = {**parameters, **{name: group.model_dump() for name, group in check_groups(parameters).items()}}
    flat: dict[str, str] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, item in value.items():
                add(f"{prefix}.{name}" if prefix else str(name), item)
        else:
            flat[prefix] = str(value)

    add("", nested)
    return flat


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
    import pyarrow.parquet as pq

    from paced_rl.preflight import check_groups

    limit = check_groups(parameters)["reporting"].num_rollouts_in_mlflow  # type: ignore[attr-defined]
    files = [file_of(catalog, name) for name in ("rollouts", "verdicts", "prompts")]
    if limit == 0 or None in files:
        return None
    # Only these columns are read: token ids and log-probabilities are most of the bytes.
    columns = (
        ["rollout_id", "prompt_id", "sample_index", "completion", "num_tokens", "finish_reason"],
        ["rollout_id", "verifier", "status", "reward", "extracted_answer"],
        ["prompt_id", "text", "reference_answer"],
    )
    rollouts, verdicts, prompts = (
        pq.read_table(file, columns=names, partitioning=None).to_pandas()
        for file, names in zip(files, columns, strict=True)
    )
    sample = rollouts.sample(min(limit, len(rollouts)), random_state=parameters["round"]).sort_index()
    joined = sample.merge(verdicts, on="rollout_id", how="left").merge(prompts, on="prompt_id", how="left")
    first = ["text", "completion", "status", "reward", "extracted_answer", "reference_answer"]
    return joined[first + [name for name in joined.columns if name not in first]]


def _fingerprints(catalog: CatalogProtocol) -> dict[str, str]:
    tags = {}
    for name in FINGERPRINTED:
        file = file_of(catalog, name)
        if file is not None:
            with file.open("rb") as stream:
                tags[f"paced.data.{name}"] = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    return tags


def git_tags(project: Path) -> dict[str, str]:
    """The commit that is checked out and whether files differ from it; empty outside a repository or without git."""
    command = ["git", "status", "--porcelain=v2", "--branch"]
    try:
        result = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = result.stdout.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "")
    is_dirty = any(not line.startswith("#") for line in lines)
    return {"mlflow.source.git.commit": commit, "paced.git_dirty": str(is_dirty).lower()}
