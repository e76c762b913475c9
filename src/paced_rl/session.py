"""The project's session: `kedro run` skips what is up to date unless another runner is asked for."""

import copy
import inspect
from typing import Any

import click
from click.core import ParameterSource
from kedro.framework.session import KedroSession
from kedro.runner import AbstractRunner, SequentialRunner

from paced_rl import locks
from paced_rl.commands.clear_errors import clear_errors
from paced_rl.runner import CachingRunner


class PacedSession(KedroSession):
    """A Kedro session whose default runner is `CachingRunner`.

    `kedro run` always hands over a runner, a plain `SequentialRunner` where the user named none. Such a runner is
    replaced, except where click knows that `--runner` was given: then it is the way to run without the cache.
    In Python, where nobody can tell, a plain `SequentialRunner()` is replaced too.
    """

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """`KedroSession.run`, with its arguments, and the project's runner where none was chosen."""
        bound = inspect.signature(super().run).bind(*args, **kwargs)
        asked_for = bound.arguments.get("runner")
        bound.arguments["runner"] = choose_runner(asked_for, is_asked_for=_is_runner_on_command_line())
        _forget_events_of_earlier_runs()
        with locks.RUN_LOCKS:
            return super().run(*bound.args, **bound.kwargs)


def _forget_events_of_earlier_runs() -> None:
    """Kedro-Viz has one hook per process that keeps the events of all runs and writes them all after each.

    Its Workflow tab would show the rounds of a loop as one run, and each round would take longer than the one before.
    """
    from kedro_viz.integrations.kedro.run_hooks import pipeline_run_hook

    pipeline_run_hook.__init__()


def choose_runner(runner: AbstractRunner | None, *, is_asked_for: bool = False) -> AbstractRunner | None:
    """The caching runner in place of none or of a plain sequential one that was not asked for; else `runner`."""
    if runner is None:
        return CachingRunner()
    if type(runner) is SequentialRunner and not is_asked_for:
        # Kedro keeps the flag of `--async` in a private attribute and offers no other way to read it.
        return CachingRunner(is_async=runner._is_async)
    return runner


def with_caching_runner(command: click.Command) -> click.Command:
    """A copy of Kedro's `run` command that makes a `CachingRunner` where no runner is named, and has clear errors.

    The command makes its runner before there is a session, so that `--runner-params=force=True`, which only the caching
    runner understands, needs this.

    Args:
        command: `kedro.framework.cli.project.run`.
    """
    changed = copy.copy(command)
    if command.callback is not None:
        changed.callback = clear_errors()(command.callback)
    changed.params = [copy.copy(parameter) for parameter in command.params]
    for parameter in changed.params:
        if parameter.name == "runner":
            parameter.default = f"{CachingRunner.__module__}.{CachingRunner.__name__}"
    return changed


def _is_runner_on_command_line() -> bool:
    context = click.get_current_context(silent=True)
    given = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
    return context is not None and context.get_parameter_source("runner") in given
