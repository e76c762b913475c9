"""How a command ends on an error that says itself what is wrong: with its message, and without a traceback."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click
from kedro.config import MissingConfigException
from kedro.io import DatasetError

from paced_rl.generation.vllm_engine import EngineError
from paced_rl.verifiers.sandbox import WorkerStartError

logger = logging.getLogger(__name__)

EXPECTED = (
    ValueError,
    OSError,
    FloatingPointError,
    DatasetError,
    MissingConfigException,
    WorkerStartError,
    EngineError,
)
"""What bad inputs, full disks, diverging runs and dying engines raise; any other error is a fault of the program."""


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turns expected errors into one that click shows as a message; others keep their traceback.

    The traceback of an expected error is logged at DEBUG (`paced_rl: level: DEBUG` in conf/logging.yml).

    Raises:
        click.ClickException: in place of an error in `EXPECTED`.
    """
    try:
        yield
    except EXPECTED as error:
        logger.debug("Where the error comes from:", exc_info=True)
        raise click.ClickException(f"{type(error).__name__}: {error}") from error
