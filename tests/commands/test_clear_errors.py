"""Expected errors end a command with their message, faults of the program with their traceback."""

import errno
import logging
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner
from kedro.io import DatasetError

from paced_rl.commands.clear_errors import clear_errors
from paced_rl.generation.vllm_engine import EngineMemoryError


def command(error: BaseException) -> click.Command:
    @click.command()
    @clear_errors()
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("bad prompt"), "Error: ValueError: bad prompt\n"),
        (DatasetError("no table"), "Error: DatasetError: no table\n"),
        (FloatingPointError("loss is nan"), "Error: FloatingPointError: loss is nan\n"),
        (OSError(errno.ENOSPC, "disk full"), "Error: OSError: [Errno 28] disk full\n"),
        (EngineMemoryError("lower this"), "Error: EngineMemoryError: lower this\n"),
        (click.ClickException("as it is"), "Error: as it is\n"),
    ],
)
def test_an_expected_error_is_one_message(error: Exception, shown: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="paced_rl"):
        result = CliRunner().invoke(command(error))
    assert (result.exit_code, result.output) == (1, shown)


def test_where_it_comes_from_is_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("bad prompt")
    with caplog.at_level(logging.DEBUG, logger="paced_rl"):
        CliRunner().invoke(command(error))
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("make", [TypeError, KeyError, RuntimeError, KeyboardInterrupt])
def test_a_fault_of_the_program_keeps_its_traceback(make: Callable[[str], BaseException]) -> None:
    with pytest.raises(make), clear_errors():  # type: ignore[call-overload]
        raise make("x")
