"""Writes `provenance.json` of a round: what its files were computed from, under which code and on what machine."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.io.core import is_parameter
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from paced_rl import provenance
from paced_rl.datasets.table_contract import path_partitions
from paced_rl.hooks.common import read, stage_of
from paced_rl.runner.code_fingerprints import code_digest
from paced_rl.runner.content_fingerprints import canonical_json, file_fingerprint, local_path
from paced_rl.runner.records import record_path, source_fingerprints, why_not_cacheable
from paced_rl.stages import STAGES

FORMAT = 1
"""Raise it when the meaning of a field changes."""


class ProvenanceHook:
    """Merges what a run has executed into the round's file; one in which every node was cached does not touch it."""

    def __init__(self) -> None:
        self._git: dict[str, Any] | None = None
        self._started: list[Node] = []
        self._saved: defaultdict[Node, set[str]] = defaultdict(set)

    @hook_impl
    def before_pipeline_run(self, run_params: Mapping[str, Any], pipeline: Pipeline) -> None:
        """Forgets what an earlier run in this process left."""
        self._project, self._env = Path(run_params["project_path"]), run_params.get("env")
        self._pipeline = pipeline
        self._git = None
        self._started.clear()
        self._saved.clear()

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Notes which code the first executed node finds; a later edit is not what ran."""
        if not self._started:
            self._git = provenance.git_state(self._project)
        self._started.append(node)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Notes what has reached the disk."""
        self._saved[node].add(dataset_name)

    @hook_impl(tryfirst=True)
    def after_pipeline_run(self, catalog: CatalogProtocol) -> None:
        """Writes the file, before any hook that reads it."""
        number = catalog["params:round"].load() if "params:round" in catalog else None
        self._write(catalog, up_to_date=[node for node in self._pipeline.nodes if _round_of(node, catalog) == number])

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self, catalog: CatalogProtocol) -> None:
        """Writes what had been executed before the failure; those nodes will be cached when the round is resumed."""
        self._write(catalog, up_to_date=[])

    def _write(self, catalog: CatalogProtocol, *, up_to_date: Sequence[Node]) -> None:
        """Merges this run into the file.

        Args:
            catalog: of the run.
            up_to_date: nodes of the round that are now, whether this run has executed them or not.
        """
        finished = [node for node in self._started if set(node.outputs) <= self._saved[node]]
        if "provenance" not in catalog:
            return
        earlier = read(catalog, "provenance") or {}
        # A run that was killed between its last node and this hook has left a finished round without the file.
        news = self._started if earlier else [*self._started, *up_to_date]
        if not any("experiment" in _partitions(node, catalog) for node in news):
            return
        stages = {stage_of(node) for node in finished}
        parameters = _merged_parameters(_full_parameters(catalog), earlier.get("parameters", {}), stages)
        nodes = dict(earlier.get("nodes", {}))
        for node in self._started:
            nodes.pop(node.name, None)  # one that failed has left nothing that can be trusted
        nodes |= {node.name: _entry(node, catalog, self._git) for node in finished}
        # A run that was killed could not say under which commit it did what is cached now.
        killed = [node for node in up_to_date if node.name not in nodes and _has_record(node, catalog)]
        nodes |= {node.name: _entry(node, catalog, None) for node in killed}
        document = {
            "format": FORMAT,
            "environment": self._env,
            "git": self._git,
            "parameters": parameters,
            "seeds": provenance.named_seeds(parameters["seed"], parameters["round"]),
            "versions": dict(provenance.library_versions()),
            "hardware": _hardware(earlier.get("hardware", {})),
            "inputs": earlier.get("inputs", {}) | _inputs([*up_to_date, *finished], catalog, parameters["round"]),
            "nodes": nodes,
        }
        catalog["provenance"].save(provenance.without_places(document, self._project))


def _partitions(node: Node, catalog: CatalogProtocol) -> Mapping[str, Any]:
    """Experiment and round in the path of a node's first output."""
    path = local_path(catalog.get(node.outputs[0])) if node.outputs else None
    return path_partitions(path) if path else {}


def _round_of(node: Node, catalog: CatalogProtocol) -> int | None:
    """The round whose file tells of a node: what an experiment does once belongs to the first."""
    partitions = _partitions(node, catalog)
    return max(1, partitions.get("round", 0)) if "experiment" in partitions else None


def _full_parameters(catalog: CatalogProtocol) -> dict[str, Any]:
    from paced_rl.preflight import check_groups

    given = catalog["parameters"].load()
    parameters: dict[str, Any] = json.loads(canonical_json({**given, **check_groups(given)}))
    return parameters


def _merged_parameters(now: Mapping[str, Any], earlier: Mapping[str, Any], stages: Collection[str]) -> dict[str, Any]:
    """Each group of parameters as of the last run that executed its stage; what belongs to no stage, as of training.

    Who runs a report again with other parameters has not trained with them.
    """
    stage = {name: name if name in STAGES else "training" for name in now}
    return {name: earlier.get(name, value) if stage[name] not in stages else value for name, value in now.items()}


def _entry(node: Node, catalog: CatalogProtocol, git: Mapping[str, Any] | None) -> dict[str, Any]:
    values = {name: catalog[name].load() for name in node.inputs if is_parameter(name)}
    return {
        "commit": git and git["commit"],
        "is_dirty": git and git["is_dirty"],
        "code": code_digest(node.func),
        "parameters": json.loads(canonical_json(values)),
    }


def _has_record(node: Node, catalog: CatalogProtocol) -> bool:
    return why_not_cacheable(node, catalog) is None and record_path(node, catalog).is_file()


def _hardware(earlier: Mapping[str, Any]) -> dict[str, Any]:
    """The hardware; of what only torch knows, a run without torch takes over what an earlier one found."""
    return {name: earlier.get(name) if value is None else value for name, value in provenance.hardware().items()}


def _inputs(nodes: Sequence[Node], catalog: CatalogProtocol, round_number: int) -> dict[str, str | None]:
    """Digest of every file that the nodes read and that the round itself does not write, source files included."""
    digests: dict[str, str | None] = {}
    for name in dict.fromkeys(name for node in nodes for name in node.inputs):  # most are read by several nodes
        if is_parameter(name):
            value = json.loads(canonical_json(catalog[name].load()))
            digests |= source_fingerprints({name: value})
            continue
        path = local_path(catalog.get(name))
        if path is not None and path_partitions(path).get("round") != round_number:
            digests[name] = file_fingerprint(path)
    return digests
