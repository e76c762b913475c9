"""Seconds of every executed node, dataset load and dataset save, kept in the `timings` table of the round."""

import logging
import time
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol, DatasetError
from kedro.pipeline.node import Node

from paced_rl import timing
from paced_rl.atomic import remove_leftovers, temporary_file
from paced_rl.hooks.common import read, stage_of
from paced_rl.runner.content_fingerprints import local_path

logger = logging.getLogger(__name__)

_COLUMNS = ("stage", "name", "seconds", "peak_memory_bytes")


class TimingsHook:
    """Times nodes (`<node>`), loads (`load:<dataset>`) and saves (`save:<dataset>`, validation included).

    Rows of nodes that were not executed stay as the run that executed them left them, so that the table always covers
    the whole round; a run that fails leaves the rows of what it had executed.
    """

    def __init__(self) -> None:
        self._starts: dict[tuple[str, str], float] = {}
        self._executed_stages: set[str] = set()

    @hook_impl
    def before_pipeline_run(self, catalog: CatalogProtocol) -> None:
        """Forgets what an earlier run in this process left, and deletes what a killed one left of the table."""
        file = local_path(catalog.get("timings")) if "timings" in catalog else None
        if file is not None:
            remove_leftovers(temporary_file(file))
        timing.take()
        self._starts.clear()
        self._executed_stages.clear()

    @hook_impl(trylast=True)  # last before the function, first after it: other hooks' time is not the node's
    def before_node_run(self, node: Node) -> None:
        """Starts a node's clock."""
        self._executed_stages.add(stage_of(node))
        self._start(node, node.name)

    @hook_impl(tryfirst=True)
    def after_node_run(self, node: Node) -> None:
        """Stops a node's clock."""
        self._stop(node, node.name)

    @hook_impl(trylast=True)
    def before_dataset_loaded(self, dataset_name: str, node: Node) -> None:
        """Starts a load's clock."""
        self._start(node, f"load:{dataset_name}")

    @hook_impl(tryfirst=True)
    def after_dataset_loaded(self, dataset_name: str, node: Node) -> None:
        """Stops a load's clock."""
        if dataset_name != "parameters" and not dataset_name.startswith("params:"):
            self._stop(node, f"load:{dataset_name}")

    @hook_impl(trylast=True)
    def before_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Starts a save's clock."""
        self._start(node, f"save:{dataset_name}")

    @hook_impl(tryfirst=True)
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Stops a save's clock."""
        self._stop(node, f"save:{dataset_name}")

    @hook_impl(tryfirst=True)
    def after_pipeline_run(self, catalog: CatalogProtocol) -> None:
        """Writes the table, before any hook that reads it."""
        self._write(catalog)

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self, catalog: CatalogProtocol) -> None:
        """Writes what was executed before the failure; those nodes will be cached when the round is resumed."""
        try:
            self._write(catalog)
        except (DatasetError, OSError) as error:  # the run's own error is the one to report
            logger.warning("The timings of the failed run could not be saved: %s", error)

    def _start(self, node: Node, name: str) -> None:
        self._starts[node.name, name] = time.perf_counter()

    def _stop(self, node: Node, name: str) -> None:
        timing.record(stage_of(node), name, time.perf_counter() - self._starts.pop((node.name, name)))

    def _write(self, catalog: CatalogProtocol) -> None:
        rows = timing.take()
        if not self._executed_stages or "timings" not in catalog:
            return
        catalog.save("timings", merge_timings(read(catalog, "timings"), rows, self._executed_stages))


def merge_timings(earlier: Any, rows: list[timing.Timing], executed_stages: set[str]) -> Any:
    """The table after a run.

    Args:
        earlier: data frame as it was, or None.
        rows: what this run recorded; replaces earlier rows of the same stage and name.
        executed_stages: stages of which any node ran; their `verifier:` rows come from this run alone, because a
            verifier that is no longer used would otherwise stay for ever.

    Returns:
        Data frame with the columns of `schemas.TIMINGS`.
    """
    import pandas as pd

    new = pd.DataFrame([[getattr(row, name) for name in _COLUMNS] for row in rows], columns=list(_COLUMNS))
    if earlier is None or earlier.empty:
        return new
    recorded = {(row.stage, row.name) for row in rows}
    kept = [
        (stage, name) not in recorded and not (stage in executed_stages and name.startswith("verifier:"))
        for stage, name in zip(earlier["stage"], earlier["name"], strict=True)
    ]
    return pd.concat([earlier.loc[kept, list(_COLUMNS)], new], ignore_index=True)


def seconds_per_stage(timings: Any) -> dict[str, float]:
    """Stage → seconds over nodes, loads and saves; a node's own parts (`verifier:…`) are inside the node."""
    whole = timings[~timings["name"].str.startswith("verifier:")]
    sums = whole.groupby("stage", sort=False)["seconds"].sum()
    return {str(stage): float(seconds) for stage, seconds in sums.items()}
