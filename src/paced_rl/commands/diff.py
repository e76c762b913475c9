"""`kedro paced diff`: what differs between two experiments."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import click
from kedro.framework.cli.utils import env_option

from paced_rl.commands.experiments import open_or_fail

if TYPE_CHECKING:
    from paced_rl.inspection.differences import Difference


@click.command()
@click.argument("first")
@click.argument("second")
@env_option
def diff(*, first: str, second: str, env: str | None) -> None:
    """Show what differs between the experiments FIRST and SECOND: settings, machine, code, and where data part.

    Exit status 0 if nothing does, 1 if something does, 2 if one of them is not there.
    """
    from paced_rl.inspection.differences import first_data_difference, setting_differences
    from paced_rl.inspection.states import ranges

    ours, theirs = (open_or_fail(name, env=env) for name in (first, second))
    lengths = [len(experiment.rounds()) for experiment in (ours, theirs)]
    settings = setting_differences(ours, theirs)
    round_number, comparisons = first_data_difference(ours, theirs)
    _print_settings(settings)
    if lengths[0] != lengths[1]:
        click.echo(f"rounds: {lengths[0]} | {lengths[1]}")
    common = ranges([*range(min(lengths) + 1)])
    if round_number is None:
        click.echo(f"data: identical in rounds {common}" if min(lengths) else "data: identical before the first round")
    else:
        where = f"in round {round_number}" if round_number else "before the first round"
        click.echo(f"data: the first difference is {where}")
        for comparison in comparisons:
            click.echo(f"  {comparison.name}: {comparison.detail}")
    if not settings and round_number is None and lengths[0] == lengths[1]:
        click.echo(f"{first} and {second} are identical")
        return
    raise click.exceptions.Exit(1)


def _print_settings(differences: "Sequence[Difference]") -> None:
    for section, group in groupby(differences, key=lambda difference: difference.section):
        click.echo(f"{section}:")
        for difference in group:
            rounds = f"round {difference.rounds}" if difference.rounds.isdigit() else f"rounds {difference.rounds}"
            # Of code only digests are kept, which tell a reader nothing.
            values = "" if section == "code" else f": {difference.first} | {difference.second}"
            click.echo(f"  {difference.name}{values} ({rounds})")
