"""The project's commands: `kedro run` with the caching runner, and `kedro paced …`."""

from pathlib import Path

import click
from kedro.framework.cli.project import run
from kedro.framework.cli.utils import CONTEXT_SETTINGS, env_option

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
@click.option("--params", default="", help="As for kedro run: name=value,group.name=value; `round` is set by the loop.")
def train(rounds: int, env: str | None, params: str) -> None:
    """Run the rounds from 1 to ROUNDS in one process, skipping what is cached."""
    from kedro.framework.cli.utils import _split_params

    from paced_rl.loop import run_rounds

    runtime_params = _split_params(None, None, params)
    if "round" in runtime_params:
        raise click.UsageError("--params round=… does not go with `paced train`: use --rounds for the last round")
    for _ in run_rounds(Path.cwd(), range(1, rounds + 1), env=env, params=runtime_params):
        continue


cli.add_command(with_caching_runner(run))
paced.add_command(score)
