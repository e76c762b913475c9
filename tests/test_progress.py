import io
import sys

import pytest

from paced_rl.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def output_of_a_bar(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("rollout", 10) as advance:
        advance(4)
        advance(6)
    return stream.getvalue()


def test_a_bar_counts_on_a_terminal_and_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PACED_RL_PROGRESS", raising=False)
    output = output_of_a_bar(monkeypatch, Terminal())
    assert "rollout" in output
    assert "10/10" in output
    assert output.rstrip().endswith("\x1b[2K"), "the last thing written erases the line"


def test_nothing_is_written_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PACED_RL_PROGRESS", raising=False)
    assert output_of_a_bar(monkeypatch, io.StringIO()) == ""


def test_the_environment_variable_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACED_RL_PROGRESS", "off")
    assert output_of_a_bar(monkeypatch, Terminal()) == ""
