"""What the hooks share: which stage a node is of, whether a run is a round, and quiet reads from the catalog."""

from pathlib import Path
from typing import Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from paced_rl.stages import STAGES


def stage_of(node: Node) -> str:
    """The stage a node is tagged with; a node of no stage of ours is a stage of its own."""
    return next((stage for stage in STAGES if stage in node.tags), node.name)


def is_round(pipeline: Pipeline) -> bool:
    """Whether a run ends a round: it writes `round_summary`. Single stages before that are steps towards one."""
    return "round_summary" in pipeline.all_outputs()


def read(catalog: CatalogProtocol, name: str) -> Any:
    """What the catalog holds under `name`, None where it has no such entry or nothing has been saved.

    Unlike `catalog.load` it logs nothing, because what hooks read is no step of the pipeline.
    """
    dataset = catalog.get(name) if name in catalog else None
    return dataset.load() if dataset is not None and dataset.exists() else None


def file_of(catalog: CatalogProtocol, name: str) -> Path | None:
    """The file of a catalog entry, None where it has no entry, no file of its own, or has not been written."""
    dataset = catalog.get(name) if name in catalog else None
    # Kedro's datasets have no public name for their path; `_filepath` is what every file dataset calls it.
    path = getattr(dataset, "_filepath", None)
    return Path(str(path)) if path is not None and Path(str(path)).is_file() else None
