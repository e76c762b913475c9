"""How a round is written to MLflow: one run per experiment, and under it one run per executed round.

The experiment's run holds the curves: each metric once per round, with the round as its step, so that MLflow's charts
overlay experiments. The round's run holds what explains a point of them: parameters, fingerprints, rollouts, figures.
"""

import fcntl
import json
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

logger = logging.getLogger(__name__)

MLFLOW_EXPERIMENT = "paced-rl"
"""MLflow's own kind of experiment: the folder that holds the runs of all of ours."""

EXPERIMENT_TAG, ROUND_TAG, SUPERSEDED_TAG = "paced.experiment", "paced.round", "paced.superseded"

_ROLLOUT_TABLE = "rollouts.json"

# Limits of one `log_batch` request, see https://mlflow.org/docs/latest/rest-api/#request-limits
_MAX_METRICS, _MAX_PARAMS = 1000, 100
_MAX_TAG_LENGTH = 5000
_MAX_PARAM_LENGTH = 6000


HOLDS_RUNS = {"mlflow.experimentKind": "custom_model_development"}
"""Says that the experiment holds training runs and not traces. Up to 3.17 MLflow's UI goes by the switch in its sidebar
all the same, which in a fresh browser is on "GenAI": only the address of the runs opens on the runs."""

_SOURCE = {"mlflow.source.name": "kedro run", "mlflow.source.type": "LOCAL"}
"""Without a source MLflow's UI shows no commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """What is written of one executed round."""

    experiment: str
    round_number: int
    started: float
    """Seconds since 1970."""
    params: Mapping[str, str]
    run_tags: Mapping[str, str]
    """Tags that a user gave; set on both runs, so that MLflow's UI filters and groups experiments by them."""
    tags: Mapping[str, str]
    round_metrics: Mapping[str, float]
    """One value each for the round; written to both runs."""
    step_metrics: Sequence[tuple[str, int, float]]
    """(name, optimiser step, value); written to the round's run."""
    rollouts: "pd.DataFrame | None"
    figures: Sequence[Path]
    error: str | None = None
    """Message of the error that ended the round; None when it was completed."""


def log_round(record: RoundRecord, *, project: Path, tracking_uri: str | None = None) -> str:
    """Writes a round, in as few requests as MLflow's API allows.

    Args:
        record: the round.
        project: the project's root, absolute; `mlflow.db` and `mlruns/` in it are what a plain `mlflow ui` shows.
        tracking_uri: where else to write, e.g. `http://tracking:5000`; None takes the project's own.

    Returns:
        MLflow's id of the experiment that holds the runs.

    Raises:
        mlflow.exceptions.MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError: when MLflow cannot be written.
    """
    database = None if tracking_uri else project / "mlflow.db"
    client = _open(tracking_uri or f"sqlite:///{database}", database)
    # A server that was asked for decides itself where artifacts go.
    experiment_id = _mlflow_experiment_id(client, None if tracking_uri else project / "mlruns")
    parent = _experiment_run_id(client, experiment_id, record)
    earlier = _earlier_round_runs(client, experiment_id, parent, record.round_number)
    now = int(time.time() * 1000)
    child = _create_round_run(client, experiment_id, parent, record)
    # First of all, since MLflow reads the whole run to find where its artifacts go.
    _log_artifacts(client, child, record)
    from mlflow.entities import Metric

    round_metrics = [Metric(k, v, now, record.round_number) for k, v in _finite(record.round_metrics.items())]
    step_metrics = [Metric(k, v, now, step) for k, step, v in record.step_metrics if math.isfinite(v)]
    _log(client, child, metrics=[*round_metrics, *step_metrics], params=record.params)
    if record.error is None:
        # Metrics are append-only: a value that an earlier run of this round has left is not written twice.
        unchanged = _points_at(client, parent, round_metrics) if earlier else {}
        _log(client, parent, metrics=[m for m in round_metrics if unchanged.get(m.key) != m.value])
        for run in earlier:
            client.set_tag(run.info.run_id, SUPERSEDED_TAG, "true")
    client.set_terminated(child, "FINISHED" if record.error is None else "FAILED")
    return experiment_id


def _finite(metrics: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    return ((name, value) for name, value in metrics if math.isfinite(value))


def _open(tracking_uri: str, database: Path | None) -> "MlflowClient":
    from mlflow import MlflowClient

    if database is not None:
        # MLflow creates its tables without a lock, and two processes that do so at once leave a broken database.
        with _locked(database.with_name(f"{database.name}.lock")):
            if not database.exists():
                _create(database)
    return MlflowClient(tracking_uri=tracking_uri)


def _create(database: Path) -> None:
    from mlflow import MlflowClient

    logger.info("Creating MLflow's database %s; this happens once and takes some seconds.", database)
    # Under another name first: an interrupted creation leaves tables that MLflow neither accepts nor repairs.
    partial = database.with_name(f"{database.name}.partial")
    partial.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"sqlite:///{partial}").get_experiment_by_name(MLFLOW_EXPERIMENT)
    partial.replace(database)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also when the process dies
        yield


def _mlflow_experiment_id(client: "MlflowClient", artifact_folder: Path | None) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(MLFLOW_EXPERIMENT)
    if experiment is not None:
        return experiment.experiment_id
    location = artifact_folder.as_uri() if artifact_folder else None
    try:
        return client.create_experiment(MLFLOW_EXPERIMENT, artifact_location=location, tags=HOLDS_RUNS)
    except MlflowException as error:
        # Another process may have been first.
        experiment = client.get_experiment_by_name(MLFLOW_EXPERIMENT)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
            raise
        return experiment.experiment_id


def _experiment_run_id(client: "MlflowClient", experiment_id: str, record: RoundRecord) -> str:
    query = f"tags.`{EXPERIMENT_TAG}` = '{record.experiment}' AND tags.`paced.kind` = 'experiment'"
    runs = client.search_runs([experiment_id], query, max_results=1, order_by=["attributes.start_time ASC"])
    if runs:
        for name, value in record.run_tags.items():
            if runs[0].data.tags.get(name) != value:
                client.set_tag(runs[0].info.run_id, name, value)
        return runs[0].info.run_id
    tags = {**record.run_tags, EXPERIMENT_TAG: record.experiment, "paced.kind": "experiment"}
    started = int(record.started * 1000)
    run = client.create_run(experiment_id, start_time=started, tags=tags, run_name=record.experiment)
    # Nobody can say when an experiment ends, and a run that is left open looks as if it were running for ever.
    client.set_terminated(run.info.run_id, "FINISHED")
    return run.info.run_id


def _earlier_round_runs(client: "MlflowClient", experiment_id: str, parent: str, round_number: int) -> "list[Run]":
    query = f"tags.`mlflow.parentRunId` = '{parent}' AND tags.`{ROUND_TAG}` = '{round_number}'"
    return [run for run in client.search_runs([experiment_id], query) if SUPERSEDED_TAG not in run.data.tags]


def _create_round_run(client: "MlflowClient", experiment_id: str, parent: str, record: RoundRecord) -> str:
    tags = {
        **record.run_tags,
        "mlflow.parentRunId": parent,
        EXPERIMENT_TAG: record.experiment,
        ROUND_TAG: str(record.round_number),
        "paced.kind": "round",
        **_SOURCE,
        **record.tags,
    }
    if record.rollouts is not None:
        tags["mlflow.loggedArtifacts"] = json.dumps([{"path": _ROLLOUT_TABLE, "type": "table"}])
    if record.error is not None:
        tags["paced.error"] = record.error[:_MAX_TAG_LENGTH]
    name = f"{record.experiment} round {record.round_number:04d}"
    run = client.create_run(experiment_id, start_time=int(record.started * 1000), tags=tags, run_name=name)
    return run.info.run_id


def _log_artifacts(client: "MlflowClient", run_id: str, record: RoundRecord) -> None:
    # With the tag of _create_round_run this is what `client.log_table` does, without its three extra transactions.
    with tempfile.TemporaryDirectory() as folder:
        if record.rollouts is not None:
            record.rollouts.to_json(Path(folder, _ROLLOUT_TABLE), orient="split", index=False)
        for figure in record.figures:
            Path(folder, "figures").mkdir(exist_ok=True)
            shutil.copy(figure, Path(folder, "figures"))
        client.log_artifacts(run_id, folder)


def _points_at(client: "MlflowClient", run_id: str, metrics: "Sequence[Metric]") -> dict[str, float]:
    """The value that each metric's curve last got at the step that is about to be written."""
    points: dict[str, float] = {}
    for metric in metrics:
        at_step = [m for m in client.get_metric_history(run_id, metric.key) if m.step == metric.step]
        if at_step:
            points[metric.key] = max(at_step, key=lambda m: m.timestamp).value
    return points


def _log(
    client: "MlflowClient", run_id: str, *, metrics: "Sequence[Metric]", params: Mapping[str, str] | None = None
) -> None:
    from mlflow.entities import Param

    all_params = [Param(name, value[:_MAX_PARAM_LENGTH]) for name, value in (params or {}).items()]
    while metrics or all_params:
        # Their sum may not exceed _MAX_METRICS either.
        now_params, all_params = all_params[:_MAX_PARAMS], all_params[_MAX_PARAMS:]
        room = _MAX_METRICS - len(now_params)
        client.log_batch(run_id, metrics=metrics[:room], params=now_params)
        metrics = metrics[room:]
