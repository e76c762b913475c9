"""The project's commands: `kedro run` with the caching runner, and `kedro paced …`."""

from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run
from kedro.framework.cli.utils import CONTEXT_SETTINGS, _split_params, env_option

from paced_rl.commands.score import score
from paced_rl.session import with_caching_runner


@click.group(context_settings=CONTEXT_SETTINGS)
def cli() -> None:
    """Commands of paced-rl."""


@cli.group()
def paced() -> None:
    """RL rounds and their parts, outside of a single `kedro run`."""


@paced.command()
@click.option("--rounds", type=click.IntRange(min=1), required=True, help="Last round to run, counted from 1.")
@env_option
@click.option(
    "--params",
    "runtime_params",
    default="",
    callback=_split_params,
    help="As for kedro run: name=value,group.name=value; `round` is set by the loop.",
)
def train(rounds: int, env: str | None, runtime_params: dict[str, Any]) -> None:
    """Run the rounds from 1 to ROUNDS in one process, skipping what is cached."""
    from paced_rl.loop import run_rounds

    if "round" in runtime_params:
        raise click.UsageError("--params round=… does not go with `paced train`: use --rounds for the last round")
    for _ in run_rounds(Path.cwd(), range(1, rounds + 1), env=env, params=runtime_params):
        continue


cli.add_command(with_caching_runner(run))
paced.add_command(score)
