"""What is up to date of an experiment, what is not, and why: by node, then by stage and round."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from kedro.io import DataCatalog
from kedro.io.core import is_parameter
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from paced_rl.inspection.experiment import Experiment
from paced_rl.runner import explain
from paced_rl.runner.attempts import read_attempt
from paced_rl.runner.content_fingerprints import local_path
from paced_rl.runner.records import output_fingerprints, record_path, why_not_cacheable
from paced_rl.stages import STAGES

CACHED, STALE, MISSING, RUNNING, FAILED, INTERRUPTED = "cached", "stale", "missing", "running", "failed", "interrupted"
SEVERITY = (RUNNING, FAILED, INTERRUPTED, STALE, MISSING, CACHED)
"""A stage is in the first of these states that any of its nodes is in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """One node in one round."""

    round_number: int
    """0 for the nodes that run once per experiment."""
    stage: str
    node: str
    state: str
    """One of `SEVERITY`."""
    reason: str
    """Why it is not cached; empty where it is."""
    origin: "NodeState | None" = None
    """The earliest node before this one that is not cached."""
    is_waiting: bool = False
    """Whether `origin` is the only reason."""


def experiment_states(experiment: Experiment) -> list[NodeState]:
    """Every node of every round, in the order in which they would run.

    A node whose own record is up to date is stale nevertheless when something before it, in the same round or in an
    earlier one, is not: it is going to be asked again once that has run.
    """
    states: list[NodeState] = []
    producers: dict[Path, NodeState] = {}
    for round_number in (0, *experiment.rounds()):
        nodes = experiment.round_nodes if round_number else experiment.start_nodes
        # A start node takes no round; the catalog of round 1 is the first that holds all of its entries.
        catalog = experiment.catalog(max(round_number, 1))
        states += _round_states(nodes, catalog, round_number, producers)
    return states


def _round_states(
    nodes: Pipeline, catalog: DataCatalog, round_number: int, producers: dict[Path, NodeState]
) -> Iterator[NodeState]:
    for node in nodes.nodes:
        inputs = (name for name in node.inputs if not is_parameter(name))
        before = [producers[path] for path in _paths(inputs, catalog) if path in producers]
        causes = [state.origin or state for state in before if state.state != CACHED]
        origin = min(causes, key=lambda state: (state.round_number, STAGES.index(state.stage)), default=None)
        kind, reason = node_state(node, catalog)
        is_waiting = kind == CACHED and origin is not None
        if is_waiting and origin is not None:
            where = f"round {origin.round_number} {origin.stage}" if origin.round_number else origin.stage
            kind, reason = STALE, f"after {where}"
        state = NodeState(
            round_number=round_number,
            stage=next(name for name in STAGES if name in node.tags),
            node=node.name,
            state=kind,
            reason=reason,
            origin=origin,
            is_waiting=is_waiting,
        )
        producers.update(dict.fromkeys(_paths(node.outputs, catalog), state))
        yield state


def node_state(node: Node, catalog: DataCatalog) -> tuple[str, str]:
    """State and reason of a node by itself, whatever the nodes before it are."""
    reason = explain(node, catalog)
    if reason is None:
        return CACHED, ""
    if why_not_cacheable(node, catalog) is not None:
        return STALE, reason
    attempt = read_attempt(record_path(node, catalog))
    if attempt is not None:
        details = {
            RUNNING: f"since {attempt.started}, process {attempt.pid} on {attempt.host}",
            FAILED: attempt.error,
            INTERRUPTED: f"its run of {attempt.started} was stopped before it ended",
        }
        return attempt.state, details[attempt.state]
    return (STALE if any(output_fingerprints(node, catalog).values()) else MISSING), reason


def stage_states(states: Iterable[NodeState]) -> dict[int, dict[str, str]]:
    """Round → stage → state."""
    table: dict[int, dict[str, str]] = {}
    for state in states:
        row = table.setdefault(state.round_number, {})
        row[state.stage] = min(row.get(state.stage, CACHED), state.state, key=SEVERITY.index)
    return table


def reasons(states: Iterable[NodeState]) -> list[tuple[str, str, str]]:
    """(rounds, what, why) of everything that is not cached; a reason that several rounds share is told once.

    A node with a reason of its own is named. Of a stage where nodes only wait for others, the stage is named.
    """
    rounds: dict[tuple[str, str], list[int]] = {}
    for (number, stage), group in groupby(_by_stage(states), key=lambda state: (state.round_number, state.stage)):
        nodes = [state for state in group if state.state != CACHED]
        own = [(state.node, f"{state.state}: {state.reason}") for state in nodes if not state.is_waiting]
        for key in own or [(stage, f"{state.state} {state.reason}") for state in nodes[:1]]:
            rounds.setdefault(key, []).append(number)
    merged: dict[tuple[str, str], list[str]] = {}
    for (what, why), numbers in rounds.items():
        merged.setdefault((ranges(numbers), why), []).append(what)
    return [(numbers, ", ".join(names), why) for (numbers, why), names in merged.items()]


def _by_stage(states: Iterable[NodeState]) -> list[NodeState]:
    """By round, then by stage; within a stage, what waits for the earliest node comes first."""

    def key(state: NodeState) -> tuple[int, int, int, int]:
        origin = state.origin or state
        return state.round_number, STAGES.index(state.stage), origin.round_number, STAGES.index(origin.stage)

    return sorted(states, key=key)


def same_rounds(table: Mapping[int, Mapping[str, str]]) -> list[tuple[str, Mapping[str, str]]]:
    """(rounds, row) with neighbouring rounds of equal rows in one: a study of 200 rounds is read at a glance."""
    return [
        (ranges([number for number, _ in group]), dict(row))
        for row, rows in groupby(sorted(table.items()), key=lambda item: item[1])
        if (group := list(rows))
    ]


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as a text: [1, 2, 3, 7] is "1–3, 7"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _paths(names: Iterable[str], catalog: DataCatalog) -> Iterator[Path]:
    return (path for name in names if (path := local_path(catalog.get(name))) is not None)
