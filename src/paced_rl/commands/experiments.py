"""What the commands that look at experiments on disk share."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from paced_rl.inspection.experiment import Experiment


class TroubleError(click.ClickException):
    """Nothing could be compared: exit status 2, as of diff(1), where 1 says that something differs."""

    exit_code = 2


def open_or_fail(name: str | None, *, env: str | None, params: Mapping[str, Any] | None = None) -> "Experiment":
    """The experiment of the project in the current folder.

    Raises:
        TroubleError: it is not there, or the configuration cannot be used.
    """
    from paced_rl.inspection.experiment import ExperimentError, open_experiment
    from paced_rl.preflight import PreflightError

    try:
        return open_experiment(Path.cwd(), name=name, env=env, params=params)
    except ExperimentError as error:
        raise TroubleError(str(error)) from error
    except PreflightError as error:
        raise TroubleError(error.format_message()) from error
