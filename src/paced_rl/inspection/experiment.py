"""An experiment on disk: its rounds, and the catalog of any of them, bound from one reading of the configuration."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedro.framework.context.context import _convert_paths_to_absolute_posix
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog, MemoryDataset
from kedro.io.core import is_parameter, parse_dataset_definition
from kedro.pipeline import Pipeline
from pydantic import BaseModel

from paced_rl.datasets.figure import FigureDataset
from paced_rl.runner.content_fingerprints import local_path
from paced_rl.stages import ROUND_PIPELINE, START_STAGES, round_pipeline

_MARK = 734_906_152
"""A round number that no other part of a path holds: the configuration is resolved for it, and it is then replaced."""

_PLACES = ("filepath", "folder")

_ROUND_FOLDER = re.compile(r"round=(\d{4,})")


class ExperimentError(ValueError):
    """What was asked for is not on disk, or cannot be judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment of a project under the parameters that apply now; nothing on disk is changed by it."""

    project: Path
    name: str
    parameters: Mapping[str, Any]
    """As nodes get them: typed groups. `round` is that of the configuration."""
    pipeline: Pipeline
    """One round."""
    _templates: Mapping[str, Any]
    """Catalog configuration with `_MARK` for the round."""

    def catalog(self, round_number: int, *, root: Path | None = None) -> DataCatalog:
        """What a run of the round would read and write, without validators.

        Args:
            round_number: 0 or more.
            root: where the paths start; None is the project.

        Raises:
            ExperimentError: paths are to start elsewhere, and an entry has an absolute one.
        """
        names = self.pipeline.datasets() | {"timings", "provenance"}
        config = {name: entry for name, entry in _bind(self._templates, round_number).items() if name in names}
        if root is not None:
            _check_is_relative(config)
        catalog = DataCatalog.from_config(_convert_paths_to_absolute_posix(root or self.project, config))
        parameters = {**self.parameters, "round": round_number}
        for name in filter(is_parameter, names):
            catalog[name] = MemoryDataset(_parameter(name, parameters), copy_mode="assign")
        return catalog

    def rounds(self) -> list[int]:
        """Every round from 1 to the last that has a folder; empty when there is none."""
        patterns = {
            Path(entry["filepath"]).parent
            for entry in _convert_paths_to_absolute_posix(self.project, _bind(self._templates, _MARK)).values()
            if f"round={_MARK:04d}" in entry.get("filepath", "")
        }
        found = [
            int(match[1])
            for pattern in patterns
            for folder in Path(*_before_round(pattern)).glob("round=*")
            if (match := _ROUND_FOLDER.fullmatch(folder.name))
        ]
        return list(range(1, max(found, default=0) + 1))

    @property
    def start_nodes(self) -> Pipeline:
        """Round 0: what is done once."""
        return self.pipeline.only_nodes_with_tags(*START_STAGES)

    @property
    def round_nodes(self) -> Pipeline:
        """What every round does."""
        return self.pipeline - self.start_nodes

    def data_names(self, round_number: int) -> list[str]:
        """Catalog names of the tables and checkpoints that a round writes, in that order; figures are left out."""
        nodes = self.round_nodes if round_number else self.start_nodes
        names = (name for node in nodes.nodes for name in node.outputs)
        return [name for name in names if self._templates[name]["type"] is not FigureDataset]


def open_experiment(
    project: Path, *, name: str | None = None, env: str | None = None, params: Mapping[str, Any] | None = None
) -> Experiment:
    """Reads the configuration once, for all rounds.

    Args:
        project: the project's root.
        name: of the experiment; None takes that of the configuration.
        env: configuration environment.
        params: as `--params` of `kedro run`.

    Raises:
        PreflightError: a parameter is unknown or cannot be used.
        ExperimentError: there is nothing of the experiment on disk; names those that are there.
    """
    bootstrap_project(project)
    from kedro.framework.project import pipelines, settings

    given = {**(params or {}), **({} if name is None else {"experiment": name})}
    with settings.SESSION_CLASS.create(project, env=env, runtime_params=given, save_on_close=False) as session:
        context = session.load_context()
        # Only these nodes say what type a parameter has; every pipeline of a round has the same parameters.
        context._pipelines_to_validate = [ROUND_PIPELINE]
        parameters = context.params

    def resolved(key: str, round_number: int) -> dict[str, Any]:
        loader = settings.CONFIG_LOADER_CLASS(
            conf_source=str(project / settings.CONF_SOURCE),
            env=context.env,
            runtime_params={**given, "round": round_number},
            **settings.CONFIG_LOADER_ARGS,
        )
        return loader[key]

    templates, first = (_instantiable(resolved("catalog", number)) for number in (_MARK, 1))
    if _bind(templates, 1) != first:
        raise ExperimentError(
            "the catalog depends on the round by more than folders called ${_this_round} or ${_previous_round}, "
            "so its rounds cannot be read together: use these two as conf/base/catalog.yml defines them"
        )
    experiment = Experiment(
        project=project,
        name=parameters["experiment"],
        parameters=parameters,
        pipeline=pipelines[round_pipeline(parameters["scheduling"].selector)],
        _templates=templates,
    )
    _check_is_there(experiment)
    return experiment


def _check_is_there(experiment: Experiment) -> None:
    paths = [local_path(dataset) for dataset in experiment.catalog(0).values()]
    folders = {parent for path in paths if path for parent in path.parents if parent.name.startswith("experiment=")}
    if not any(folder.is_dir() for folder in folders):
        others = {path.name.partition("=")[2] for folder in folders for path in folder.parent.glob("experiment=*")}
        raise ExperimentError(
            f"there is no experiment '{experiment.name}' under {experiment.project}: "
            + (f"there are {', '.join(sorted(others))}" if others else "nothing has been run here yet")
        )


def _check_is_relative(config: Mapping[str, Any]) -> None:
    absolute = [name for name, entry in config.items() for key in _PLACES if Path(entry.get(key) or "").is_absolute()]
    if absolute:
        raise ExperimentError(
            f"catalog entries {absolute} have absolute paths, so a round cannot be executed beside its own files: make "
            "them relative to the project"
        )


def _instantiable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Catalog entries without their validators, and with classes for their names, which Kedro looks up slowly."""
    bare = {name: {key: item for key, item in entry.items() if key != "validator"} for name, entry in config.items()}
    return {name: {**entry, "type": parse_dataset_definition(entry)[0]} for name, entry in bare.items()}


def _bind(value: Any, round_number: int) -> Any:
    """A copy of configuration in which folders of `_MARK` and of the round before are those of a round."""
    if isinstance(value, Mapping):
        return {key: _bind(item, round_number) for key, item in value.items()}
    if isinstance(value, list):
        return [_bind(item, round_number) for item in value]
    if isinstance(value, str):
        for offset in (0, -1):
            value = value.replace(f"round={_MARK + offset:04d}", f"round={round_number + offset:04d}")
    return value


def _before_round(path: Path) -> tuple[str, ...]:
    return path.parts[: next(i for i, part in enumerate(path.parts) if part.startswith("round="))]


def _parameter(name: str, parameters: Mapping[str, Any]) -> Any:
    """The value of `parameters` or of `params:<dotted name>`."""
    value: Any = parameters
    for part in name.removeprefix("params:").split(".") if name.startswith("params:") else []:
        value = getattr(value, part) if isinstance(value, BaseModel) else value[part]
    return value
