"""A round made of trivial nodes over the real tables, run with hooks as a session would run it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.framework.hooks.manager import _create_hook_manager, _register_hooks
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner

from paced_rl import timing
from paced_rl.datasets.figure import FigureDataset
from paced_rl.datasets.json_file import JsonFile
from paced_rl.datasets.parquet_table import ParquetTable
from paced_rl.schemas import TABLES

NUM_PROMPTS, GROUP_SIZE = 4, 3


def table(name: str, num_rows: int, **columns: Any) -> pd.DataFrame:
    """Rows of a table: zeros, empty texts and empty lists, except for the given columns."""
    filler: dict[str, Any] = {}
    for field in TABLES[name]:
        text_or_list = "" if str(field.type) == "string" else []
        is_number = str(field.type).startswith(("int", "double", "float"))
        filler[field.name] = [0 if is_number else text_or_list] * num_rows
    return pd.DataFrame({**filler, **columns})


def round_catalog(project: Path, **parameters: Any) -> DataCatalog:
    """The catalog of one round, its files under `project`."""
    parameters = {"experiment": "paced", "round": 1, "seed": 0, **parameters}
    folder = f"experiment={parameters['experiment']}/round={parameters['round']:04d}"
    names = ("prompts", "rollouts", "verdicts", "training_metrics", "round_summary", "timings")
    datasets: dict[str, Any] = {
        name: ParquetTable(filepath=str(project / "data" / name / folder / f"{name}.parquet"), schema=name)
        for name in names
    }
    figure = project / "data" / "figures" / folder / "calibration_figure.png"
    datasets["calibration_figure"] = FigureDataset(filepath=str(figure))
    datasets["provenance"] = JsonFile(filepath=str(project / "data" / "provenance" / folder / "provenance.json"))
    datasets["parameters"] = MemoryDataset(parameters)
    datasets |= {f"params:{name}": MemoryDataset(value) for name, value in parameters.items()}
    if "tracking" in parameters:
        datasets["params:tracking.enabled"] = MemoryDataset(parameters["tracking"]["enabled"])
    return DataCatalog(datasets)


def round_pipeline(*, accuracy: float = 0.5, error: Exception | None = None) -> Pipeline:
    """Rollout, verification, training and reporting that write fixed rows; training raises `error` if given."""
    num_rollouts = NUM_PROMPTS * GROUP_SIZE
    rollout_ids = [f"r{i}" for i in range(num_rollouts)]
    prompt_ids = [f"p{i}" for i in range(NUM_PROMPTS)]

    def sample(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        prompts = table("prompts", NUM_PROMPTS, prompt_id=prompt_ids, text=[f"1 2>{i}:" for i in range(NUM_PROMPTS)])
        completions = [f"1+{i}" for i in range(num_rollouts)]
        siblings = [x for x in prompt_ids for _ in range(GROUP_SIZE)]
        return prompts, table(
            "rollouts", num_rollouts, rollout_id=rollout_ids, prompt_id=siblings, completion=completions
        )

    def verify(rollouts: pd.DataFrame) -> pd.DataFrame:
        timing.record("verification", "verifier:arithmetic", 0.25)
        return table(
            "verdicts",
            num_rollouts,
            rollout_id=rollouts["rollout_id"],
            status=["right"] * num_rollouts,
            reward=[1.0] * num_rollouts,
        )

    def train(verdicts: pd.DataFrame) -> pd.DataFrame:
        if error is not None:
            raise error
        return table("training_metrics", 2, optimizer_step=[7, 8], policy_loss=[3.0, 2.0], mean_residual=[0.5, None])

    def report(training_metrics: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
        from matplotlib.figure import Figure

        summary = table("round_summary", 1, accuracy=[accuracy], validation_accuracy=[None], tokens_sampled=[1234])
        return summary, Figure(figsize=(0.5, 0.5))

    return Pipeline(
        [
            node(sample, "params:seed", ["prompts", "rollouts"], name="sample", tags="rollout"),
            node(verify, "rollouts", "verdicts", name="verify", tags="verification"),
            node(train, "verdicts", "training_metrics", name="train", tags="training"),
            node(report, "training_metrics", ["round_summary", "calibration_figure"], name="report", tags="reporting"),
        ]
    )


def run_with_hooks(
    hooks: Iterable[Any],
    *,
    project: Path,
    catalog: DataCatalog,
    pipeline: Pipeline,
    executed: Iterable[str] | None = None,
    run_params: Mapping[str, Any] | None = None,
) -> None:
    """What `KedroSession.run` does around a runner that executes only the nodes in `executed` (None: all)."""
    manager = _create_hook_manager()
    _register_hooks(manager, hooks)
    params = {"project_path": str(project), "env": None, "runtime_params": {}, **(run_params or {})}
    manager.hook.before_pipeline_run(run_params=params, pipeline=pipeline, catalog=catalog)
    wanted = pipeline if executed is None else pipeline.filter(node_names=list(executed)) if executed else Pipeline([])
    try:
        result = SequentialRunner().run(wanted, catalog, manager, run_id="test")
    except Exception as error:
        manager.hook.on_pipeline_error(error=error, run_params=params, pipeline=pipeline, catalog=catalog)
        raise
    manager.hook.after_pipeline_run(run_params=params, run_result=result, pipeline=pipeline, catalog=catalog)
