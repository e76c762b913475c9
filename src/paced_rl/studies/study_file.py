"""The YAML file of a study: which arms there are, under which seeds, and what the report compares.

name: selectors
rounds: 60
seeds: [0, 1, 2]
params:                       # of every experiment; dotted or nested names
  evaluation.every: 5
grid:                         # every combination is an arm
  selector: [uniform, nearest]           # `objective`, `selector`, `estimator`, or a parameter's full name
  replay:                                # or names of your own, each with its parameters
    with: {}
    without: {training.replay_max_added: 0}
skip:                         # combinations of the grid that are no arms
  - {selector: uniform, replay: without}
arms:                         # beside the grid or instead of it
  grpo: {training.objective: grpo, training.replay_max_added: 0, scheduling.selector: uniform}
report:
  baseline: uniform-with
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from yaml import YAMLError

SHORT_AXES = {
    "objective": "training.objective",
    "selector": "scheduling.selector",
    "estimator": "scheduling.estimator",
}
"""Axes of a grid that need no full name of a parameter."""

_DEFAULTS = {"evaluation.splits": ["validation", "audit", "test"]}
"""Of every experiment unless the file says otherwise: the report reads the test split, which nothing else does."""

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_OF_THE_STUDY = {
    "experiment": "the study names its experiments",
    "round": "`rounds` says how many there are",
    "seed": "`seeds` lists them",
}


class StudyFileError(ValueError):
    """A study file that cannot be run; one line per problem."""


class _Section(BaseModel):
    """Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReportOptions(_Section):
    """What the report of a study compares."""

    baseline: str | None = None
    """Arm that the others are compared with; null takes the one with the selector `uniform`, else the first."""
    oracle: str | None = None
    """Arm whose saving is what any selector could save; null takes the one with the selector `oracle`, if any."""
    accuracies: tuple[float, ...] = ()
    """Test accuracies whose cost is compared; empty takes a half, three quarters and all of the way from the start to
    the baseline's best."""
    num_resamples: int = Field(2000, ge=100)
    """Of the bootstrap."""


class _StudyFile(_Section):
    """The file as it is written."""

    name: str
    """First part of the experiments' names."""
    rounds: int = Field(ge=1)
    """Last round of every experiment."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """Every arm runs under each of them."""
    env: str | None = None
    """Configuration environment, as --env."""
    params: dict[str, Any] = {}
    """Of every experiment."""
    grid: dict[str, list[Any] | dict[str, dict[str, Any]]] = {}
    """Axis → values, or labels with their parameters; every combination is an arm."""
    skip: tuple[dict[str, Any], ...] = ()
    """Combinations, axis → label, that are no arms; an axis that is not named stands for all of its values."""
    arms: dict[str, dict[str, Any]] = {}
    """Name → parameters, beside the grid."""
    report: ReportOptions = ReportOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One variant of a study: the same parameters under every seed."""

    name: str
    params: Mapping[str, Any]
    """Nested, as `--params`; those of the whole study included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """A study file, read."""

    name: str
    rounds: int
    seeds: tuple[int, ...]
    env: str | None
    arms: tuple[Arm, ...]
    """In the order of the file, the grid's first."""
    report: ReportOptions

    def experiment(self, arm: str, seed: int) -> str:
        """The name of an experiment: `<study>-<arm>-s<seed>`."""
        return f"{self.name}-{arm}-s{seed}"

    def runtime_params(self, arm: Arm, seed: int) -> dict[str, Any]:
        """What `--params` would be for one experiment, but for `round`."""
        tracking = arm.params.get("tracking", {})
        tags = {**tracking.get("run_tags", {}), "study": self.name, "arm": arm.name}
        names = {"experiment": self.experiment(arm.name, seed), "seed": seed}
        return {**arm.params, **names, "tracking": {**tracking, "run_tags": tags}}


def read_study(path: Path) -> StudyPlan:
    """Reads and checks a study file by itself; `check_study` checks it against the project.

    Raises:
        StudyFileError: it is no YAML, holds unknown keys, values of the wrong kind, no arm, or one twice.
    """
    try:
        # OmegaConf's YAML refuses a key that is there twice, and reads 1e-4 as a number.
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise StudyFileError(f"{path} cannot be read: {error}") from error
    try:
        file = _StudyFile.model_validate(content)
    except ValidationError as error:
        raise StudyFileError(_listed(path, _problems(error))) from error
    arms: list[Arm] = []
    problems = [*_name_problems(file), *_grid_problems(file)]
    if not problems:
        arms = list(_arms(file))
        problems = list(_arm_problems(file, arms))
    if problems:
        raise StudyFileError(_listed(path, problems))
    return StudyPlan(
        name=file.name, rounds=file.rounds, seeds=file.seeds, env=file.env, arms=tuple(arms), report=file.report
    )


def _listed(path: Path, problems: Iterable[str]) -> str:
    return f"{path} cannot be run:\n" + "\n".join(f"  - {problem}" for problem in problems)


def _problems(error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        name = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            allowed = (ReportOptions if len(detail["loc"]) > 1 else _StudyFile).model_fields
            near = difflib.get_close_matches(str(detail["loc"][-1]), allowed, n=1)
            yield f"unknown key '{name}': " + (
                f"did you mean {near[0]}?" if near else f"known are {', '.join(allowed)}"
            )
        elif detail["type"] == "missing":
            yield f"'{name}' is missing: a study needs name, rounds, seeds, and grid or arms"
        else:
            yield f"{name} = {detail['input']!r}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _name_problems(file: _StudyFile) -> Iterator[str]:
    for kind, name in [("name", file.name), *(("arm", arm) for arm in file.arms)]:
        if not _NAME.fullmatch(name):
            yield f"{kind} '{name}' cannot be part of a folder's name: letters, digits, '.', '_' and '-' are allowed"
    if len(set(file.seeds)) < len(file.seeds):
        yield f"seeds = {list(file.seeds)}: one is listed twice, and would be the same experiment"
    if not file.grid and not file.arms:
        yield "neither grid nor arms: there is nothing to compare; name at least one arm"
    for accuracy in file.report.accuracies:
        if not 0 < accuracy <= 1:
            yield f"report.accuracies holds {accuracy}: an accuracy to reach is above 0 and at most 1"


def _grid_problems(file: _StudyFile) -> Iterator[str]:
    for axis, values in file.grid.items():
        if not values:
            yield f"grid.{axis} is empty: give at least one value, or leave the axis out"
        if isinstance(values, list) and axis not in SHORT_AXES and "." not in axis:
            yield (
                f"grid.{axis} lists values of no parameter: an axis is called {', '.join(SHORT_AXES)} or by a full "
                "name such as training.learning_rate; under a name of your own give a mapping of labels to parameters"
            )
        labels = [label for label, _ in _values(axis, values)]
        for label in labels:
            if not _NAME.fullmatch(label):
                yield f"grid.{axis}: '{label}' cannot be part of a folder's name; give the values labels of your own"
        if len(set(labels)) < len(labels):
            yield f"grid.{axis} = {labels}: one of them is there twice"
    for combination in file.skip:
        for axis, label in combination.items():
            if axis not in file.grid:
                yield f"skip names the axis '{axis}', the grid has {', '.join(file.grid) or 'none'}"
            elif _label(axis, label) not in dict(_values(axis, file.grid[axis])):
                yield f"skip names {axis}: {label}, which is not on that axis"


def _values(axis: str, values: list[Any] | dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """(label, parameters) of each value of an axis."""
    if isinstance(values, dict):
        return list(values.items())
    return [(_label(axis, value), {SHORT_AXES.get(axis, axis): value}) for value in values]


def _label(axis: str, value: Any) -> str:
    """A value's part of the arm's name: a word stands for itself, a number needs the parameter's name beside it."""
    return value if isinstance(value, str) else f"{axis.rpartition('.')[2]}_{'null' if value is None else value}"


def _arms(file: _StudyFile) -> Iterator[Arm]:
    axes = [[(axis, *value) for value in _values(axis, values)] for axis, values in file.grid.items()]
    for combination in itertools.product(*axes) if axes else ():
        labels = {axis: label for axis, label, _ in combination}
        if not any(all(labels[a] == _label(a, v) for a, v in skipped.items()) for skipped in file.skip):
            groups = [_DEFAULTS, file.params, *(params for _, _, params in combination)]
            yield Arm(name="-".join(labels.values()), params=_merged(groups))
    for name, params in file.arms.items():
        yield Arm(name=name, params=_merged([_DEFAULTS, file.params, params]))


def _merged(groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters of which later ones win, nested, whether they were dotted or nested."""
    merged: dict[str, Any] = {}
    for group in groups:
        _merge_into(merged, group)
    return merged


def _merge_into(target: dict[str, Any], params: Mapping[str, Any]) -> None:
    for name, value in params.items():
        head, _, tail = name.partition(".")
        inner = {tail: value} if tail else value
        if isinstance(inner, Mapping):
            below = target.get(head)
            target[head] = dict(below) if isinstance(below, Mapping) else {}
            _merge_into(target[head], inner)
        else:
            target[head] = inner


def _arm_problems(file: _StudyFile, arms: list[Arm]) -> Iterator[str]:
    if not arms:
        yield "skip leaves no arm of the grid: there is nothing to run"
    seen: dict[str, str] = {}
    for arm in arms:
        if [other.name for other in arms].count(arm.name) > 1:
            yield f"arm '{arm.name}' is there twice, from grid and arms: rename the one under arms"
        if (twin := seen.setdefault(repr(arm.params), arm.name)) != arm.name:
            yield f"arms '{twin}' and '{arm.name}' have the same parameters, so they would be the same experiment twice"
        for name, why in _OF_THE_STUDY.items():
            if name in arm.params:
                yield f"arm '{arm.name}' sets {name}: leave it out, {why}"
    names = [arm.name for arm in arms]
    for role in ("baseline", "oracle"):
        chosen = getattr(file.report, role)
        if chosen is not None and chosen not in names:
            near = difflib.get_close_matches(chosen, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the arms are {', '.join(names)}"
            yield f"report.{role} = '{chosen}' is no arm: {hint}"
