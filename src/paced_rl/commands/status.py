"""`kedro paced status`: what of an experiment is up to date, which policies there are, and what it takes on disk."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.utils import _split_params, env_option

from paced_rl.commands.experiments import open_or_fail

if TYPE_CHECKING:
    from rich.table import Table

    from paced_rl.inspection.states import NodeState
    from paced_rl.inspection.storage import PolicyVersion

_STYLES = {"cached": "green", "stale": "yellow", "running": "cyan", "failed": "red", "interrupted": "red"}
_MIN_WIDTH = 110
"""Columns that eight stages take; a narrower terminal wraps lines, a file or a pipe gets them whole."""
_NUM_KINDS = 8


@click.command()
@click.option("--experiment", help="Experiment to look at; default is that of the configuration.")
@env_option
@click.option(
    "--params", "runtime_params", default="", callback=_split_params, help="As for kedro run: judged under these."
)
def status(*, experiment: str | None, env: str | None, runtime_params: dict[str, Any]) -> None:
    """Show which stages of which rounds are up to date, and why others are not. Changes nothing and waits for nobody.

    Every round is judged under the parameters that apply now: a changed one shows all rounds that it would run again.
    """
    from rich.console import Console

    from paced_rl.inspection import states, storage

    params = {name: value for name, value in runtime_params.items() if name != "round"}
    opened = open_or_fail(experiment, env=env, params=params)
    nodes = states.experiment_states(opened)
    console = Console(width=None if Console().is_terminal else _MIN_WIDTH, highlight=False)
    console.print(_stage_table(opened.name, nodes))
    for numbers, what, why in states.reasons(nodes):
        where = f"round {numbers}" if numbers.isdigit() else f"rounds {numbers}"
        console.print(f"  {'once' if numbers == '0' else where}, {what}: {why}", markup=False)
    console.print(_policy_table(storage.policy_versions(opened)))
    console.print(_disk_line(storage.bytes_by_kind(opened)), markup=False)


def _stage_table(title: str, nodes: "list[NodeState]") -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from paced_rl.inspection.states import same_rounds, stage_states
    from paced_rl.stages import STAGES

    stages = [stage for stage in STAGES if any(node.stage == stage for node in nodes)]
    table = Table(title=f"experiment {title}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for header in ("round", *(stage.replace("_", " ") for stage in stages)):
        table.add_column(header)
    for numbers, row in same_rounds(stage_states(nodes)):
        cells = [Text(row.get(stage, ""), style=_STYLES.get(row.get(stage, ""), "")) for stage in stages]
        table.add_row("once" if numbers == "0" else numbers, *cells)
    return table


def _policy_table(versions: "list[PolicyVersion]") -> "Table":
    from rich import box
    from rich.table import Table

    from paced_rl.inspection.states import ranges
    from paced_rl.inspection.storage import readable_bytes

    table = Table(title="policy after round", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for header in ("round", "weights", "size each"):
        table.add_column(header)
    # Neighbours that differ in their content alone are one line.
    groups: list[list[PolicyVersion]] = []
    for version in versions:
        last = groups[-1][-1] if groups else None
        if last and (last.size_bytes, last.state) == (version.size_bytes, version.state):
            groups[-1].append(version)
        else:
            groups.append([version])
    for group in groups:
        first = group[0]
        weights = first.folder if len(group) == 1 else f"{first.folder} … {group[-1].folder}"
        size = readable_bytes(first.size_bytes)
        table.add_row(
            ranges([version.round_number for version in group]),
            weights if first.state == "kept" else f"{first.state}: {weights}",
            size if first.state == "kept" else f"0 B, was {size}",
        )
    return table


def _disk_line(sizes: Mapping[str, int]) -> str:
    from paced_rl.inspection.storage import readable_bytes

    largest = dict(list(sizes.items())[:_NUM_KINDS])
    parts = [f"{kind} {readable_bytes(size)}" for kind, size in largest.items()]
    rest = sum(sizes.values()) - sum(largest.values())
    if len(sizes) > len(largest):
        parts.append(f"{len(sizes) - len(largest)} others {readable_bytes(rest)}")
    return f"  {readable_bytes(sum(sizes.values()))} on disk: {', '.join(parts)}"
