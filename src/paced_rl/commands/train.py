"""`kedro paced train`: many rounds of one experiment."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.utils import _split_params, env_option

from paced_rl.commands.clear_errors import clear_errors


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), required=True, help="Last round to run, counted from 1.")
@click.option(
    "--from-round",
    type=click.IntRange(min=1),
    help="First round to run; without it 1, or the first own round of an experiment that was branched off another.",
)
@click.option("--experiment", help="Name of the experiment; the same as --params experiment=NAME.")
@click.option(
    "--fork-of",
    metavar="OLD",
    help="Branch OLD: the new --experiment shares its rounds before --from-round, and weights take no further space.",
)
@click.option("--force", "is_forced", is_flag=True, help="Run every node of the rounds, also what is up to date.")
@click.option("--restore", "is_restoring", is_flag=True, help="Make the pruned weights of the rounds again.")
@env_option
@click.option(
    "--params",
    "runtime_params",
    default="",
    callback=_split_params,
    help="As for kedro run: name=value,group.name=value; `round` is set by the loop.",
)
@click.pass_context
def train(
    context: click.Context,
    *,
    rounds: int,
    from_round: int | None,
    experiment: str | None,
    fork_of: str | None,
    is_forced: bool,
    is_restoring: bool,
    env: str | None,
    runtime_params: dict[str, Any],
) -> None:
    """Run the rounds up to ROUNDS in one process, skipping what is cached.

    Ctrl-C ends it after the node that runs, a second Ctrl-C at once; the same command goes on.
    """
    if "round" in runtime_params:
        raise click.UsageError("--params round=… does not go with `paced train`: use --rounds for the last round")
    if from_round is not None and from_round > rounds:
        raise click.UsageError(f"--from-round {from_round} is after the last round, --rounds {rounds}")
    if fork_of is not None and from_round is None:
        raise click.UsageError("--fork-of needs --from-round: the first round that is not shared")
    params = _with_experiment(context, runtime_params, experiment)

    def command(first: int | None) -> str:
        return _command(rounds=rounds, first=first, env=env, params=params, is_forced=is_forced)

    _train(
        {"last": rounds, "first": from_round, "fork_of": fork_of, "is_forced": is_forced, "is_restoring": is_restoring},
        env=env,
        params=params,
        command=command,
    )


def _train(
    options: Mapping[str, Any], *, env: str | None, params: Mapping[str, Any], command: Callable[[int | None], str]
) -> None:
    """Runs `loop.train`, and says in words and by exit status how it ended."""
    # Imported here, so that listing the commands stays fast.
    from paced_rl import loop
    from paced_rl.forks import ForkError
    from paced_rl.interrupts import EXIT_STATUS, StoppedError
    from paced_rl.locks import ExperimentLockedError

    try:
        with clear_errors():
            reason = loop.train(loop.open_study(Path.cwd(), env=env, params=params), **options)
    except (ExperimentLockedError, ForkError) as error:
        raise click.ClickException(str(error)) from error
    except StoppedError as stop:
        # A forced round is half made anew, so it is forced again; the ones before it are not.
        first = stop.round_number if options["is_forced"] else options["first"]
        click.echo(f"{stop}, as asked for. What has finished is kept; to go on: {command(first)}", err=True)
        raise click.exceptions.Exit(EXIT_STATUS) from stop
    except KeyboardInterrupt as interrupt:
        click.echo(
            f"Stopped at once. The node that ran will run again; to go on: {command(options['first'])}", err=True
        )
        raise click.exceptions.Exit(EXIT_STATUS) from interrupt
    if reason is not None:
        click.echo(reason, err=True)


def _with_experiment(context: click.Context, params: dict[str, Any], experiment: str | None) -> dict[str, Any]:
    """The parameters with the experiment's name in them, read as `--params` would read it.

    Raises:
        click.UsageError: `--params` names another experiment.
    """
    if experiment is None:
        return params
    (option,) = (parameter for parameter in context.command.params if parameter.name == "runtime_params")
    named: dict[str, Any] = _split_params(context, option, f"experiment={experiment}")
    if "experiment" in params and params["experiment"] != named["experiment"]:
        raise click.UsageError(
            f"--experiment {experiment} and --params experiment={params['experiment']} contradict each other: give one"
        )
    return {**params, **named}


def _command(*, rounds: int, first: int | None, env: str | None, params: Mapping[str, Any], is_forced: bool) -> str:
    """The command that runs the rest."""
    from paced_rl.command_lines import params_option

    others = {name: value for name, value in params.items() if name != "experiment"}
    return " ".join(
        [
            f"kedro paced train --rounds {rounds}",
            *([f"--from-round {first}"] if first is not None else []),
            *([f"--experiment {params['experiment']}"] if "experiment" in params else []),
            *(["--force"] if is_forced else []),
            *([f"--env {env}"] if env else []),
            *([f"--params {params_option(others)}"] if others else []),
        ]
    )
