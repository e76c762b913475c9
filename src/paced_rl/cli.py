"""The project's commands: `kedro run` with the caching runner, and `kedro paced …`."""

import click
from kedro.framework.cli.project import run
from kedro.framework.cli.utils import CONTEXT_SETTINGS

from paced_rl.commands.counterfactual import counterfactual
from paced_rl.commands.diff import diff
from paced_rl.commands.score import score
from paced_rl.commands.status import status
from paced_rl.commands.study import study
from paced_rl.commands.train import train
from paced_rl.commands.verify import verify
from paced_rl.session import with_caching_runner


@click.group(context_settings=CONTEXT_SETTINGS)
def cli() -> None:
    """Commands of paced-rl."""


@cli.group()
def paced() -> None:
    """RL rounds and their parts, outside of a single `kedro run`."""


cli.add_command(with_caching_runner(run))
paced.add_command(counterfactual)
paced.add_command(diff)
paced.add_command(score)
paced.add_command(status)
paced.add_command(study)
paced.add_command(train)
paced.add_command(verify)
