"""Does a round come out again? It is executed anew beside its own files, from the inputs and parameters it had."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kedro.io import DataCatalog
from kedro.io.core import is_parameter
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner

from paced_rl import provenance
from paced_rl.datasets.checkpoint import CheckpointDataset
from paced_rl.datasets.pruning import has_weights, how_to_restore, is_pruned
from paced_rl.inspection.compare import DIFFERENT, Comparison, compare_datasets
from paced_rl.inspection.differences import plain_name, provenance_of
from paced_rl.inspection.experiment import Experiment, open_experiment
from paced_rl.runner.code_fingerprints import code_digest
from paced_rl.runner.content_fingerprints import file_fingerprint, local_path

DEFAULT_TOLERANCE = 1e-4
"""Of a float: far above what another number of threads or another library changes in float32, far below a real change.
One token that is sampled otherwise is such a real change, and everything after it differs too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How one round came out."""

    round_number: int
    comparisons: list[Comparison] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    """What is not as it was when the round ran."""
    obstacle: str = ""
    """Why it could not be executed again; empty where it could."""

    @property
    def is_different(self) -> bool:
        """Whether anything came out otherwise."""
        return any(comparison.verdict == DIFFERENT for comparison in self.comparisons)


def verify_round(
    experiment: Experiment, round_number: int, *, env: str | None = None, tolerance: float = DEFAULT_TOLERANCE
) -> Verification:
    """Executes every node of a round again, in a temporary folder, and compares what comes out with what is stored.

    Args:
        experiment: nothing of it is written to.
        round_number: 0 is what is done once.
        env: the configuration environment whose catalog applies; parameters are those of `provenance.json`.
        tolerance: see `compare.compare_tables`.

    Raises:
        ExperimentError: the catalog has absolute paths.
        PreflightError: parameters that were recorded can no longer be used.
    """
    number = max(round_number, 1)  # what is done once is executed for the first round
    document = provenance_of(experiment, number)
    if document is None:
        obstacle = "it has no provenance.json, so nobody knows its parameters: it was made before there was one"
        return Verification(round_number=round_number, obstacle=obstacle)
    experiment = open_experiment(
        experiment.project, name=experiment.name, env=env, params=recorded_parameters(document)
    )
    nodes = experiment.round_nodes if round_number else experiment.start_nodes
    stored = experiment.catalog(number)
    obstacle = _obstacle(nodes, stored)
    if obstacle:
        return Verification(round_number=round_number, obstacle=obstacle)
    with TemporaryDirectory(prefix="paced-verify-") as folder:
        # CheckpointDataset looks for it to know where the project begins.
        shutil.copy(experiment.project / "pyproject.toml", folder)
        again = experiment.catalog(number, root=Path(folder))
        free = nodes.inputs()
        # No session: its hooks would lock the experiment, prune weights and write to MLflow.
        SequentialRunner().run(nodes, DataCatalog({x: (stored if x in free else again)[x] for x in nodes.datasets()}))
        found = [
            compare_datasets(plain_name(name), stored[name], again[name], tolerance=tolerance)
            for name in experiment.data_names(round_number)
        ]
    return Verification(
        round_number=round_number,
        comparisons=[comparison for comparison in found if comparison is not None],
        causes=[*_conflicts(document), *_causes(document, nodes, stored, experiment.project)],
    )


def recorded_parameters(document: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a round's nodes were executed under, without `round` and `experiment`.

    Where nodes were executed by several runs, each group is taken from the nodes that read it.
    """
    parameters = {**document["parameters"]}
    for entry in document["nodes"].values():
        parameters |= {name.removeprefix("params:"): value for name, value in entry["parameters"].items()}
    kept = {name: value for name, value in parameters.items() if name not in ("round", "experiment")}
    restored: dict[str, Any] = provenance.with_home(kept)
    return restored


def _conflicts(document: Mapping[str, Any]) -> Iterator[str]:
    values: dict[str, dict[str, list[str]]] = {}
    for node, entry in document["nodes"].items():
        for name, value in entry["parameters"].items():
            values.setdefault(name, {}).setdefault(json.dumps(value, sort_keys=True), []).append(node)
    for name, nodes in values.items():
        if len(nodes) > 1:
            groups = " and ".join(", ".join(group) for group in nodes.values())
            yield f"{name} had several values within the round: {groups} were executed under different ones"


def _obstacle(nodes: Pipeline, stored: DataCatalog) -> str:
    """Which input keeps the nodes from being executed; empty if none does."""
    for name in sorted(name for name in nodes.inputs() if not is_parameter(name)):
        dataset = stored[name]
        path = local_path(dataset)
        if path is None or not path.exists():
            return f"its input {name} is not on disk"
        if isinstance(dataset, CheckpointDataset) and not has_weights(path):
            how = "were pruned" if is_pruned(path) else "are gone"
            return f"the weights of its input {name} {how}. {how_to_restore(path)}"
    return ""


def _causes(document: Mapping[str, Any], nodes: Pipeline, stored: DataCatalog, project: Path) -> Iterator[str]:
    """What is not as it was: inputs, code, libraries, machine."""
    for name in sorted(nodes.inputs()):
        path = None if is_parameter(name) else local_path(stored[name])
        recorded = document["inputs"].get(name)
        if path is not None and recorded is not None and file_fingerprint(path) != recorded:
            yield f"input {name} is not the one that the round read"
    changed = [
        node.name
        for node in nodes.nodes
        if node.name in document["nodes"] and document["nodes"][node.name]["code"] != code_digest(node.func)
    ]
    if changed:
        yield f"code of {', '.join(changed)} has changed"
    git = provenance.git_state(project)
    now = {"versions": provenance.library_versions(), "hardware": provenance.hardware(), "git": git or {}}
    for section, values in now.items():
        before = document[section] or {}
        for name in sorted({*before, *values}):
            if before.get(name) != values.get(name):
                yield f"{section} {name}: {before.get(name)} then, {values.get(name)} now"
