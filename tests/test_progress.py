import io
import re
import sys

import pytest

from paced_rl.progress import in_words, message_console, progress_bar, rounds_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> io.StringIO:
    """The stream, in place of stderr, with nothing else that says what kind of terminal it is."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def output_of_a_bar(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    on_terminal(monkeypatch, stream)
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


def test_the_bar_over_rounds_says_how_far_it_is_and_parts_are_lines_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = on_terminal(monkeypatch, Terminal())
    with rounds_bar(3) as advance:
        advance(4, None)
        with progress_bar("rollout", 10) as count:
            count(10)
            message_console().print("a message")
        advance(5, 0.25)
    output = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert re.search(r"round 4 done ━+╺━+ 1/3 +\d+ s left\nrollout +━+ 10/10", output)
    assert re.search(r"round 5 done, validation accuracy 0.250 ━+╺━+ 2/3 +\d+ s left", output)
    assert output.index("a message") < output.index("round 5 done")
    assert "rollout" not in output[output.index("round 5 done") :]


def test_the_bar_over_rounds_is_silent_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = on_terminal(monkeypatch, io.StringIO())
    with rounds_bar(3) as advance:
        advance(1, 0.5)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (29.4, "29 s"), (31, "1 min"), (720, "12 min"), (7500, "2 h 5 min")]
)
def test_durations_are_said_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
