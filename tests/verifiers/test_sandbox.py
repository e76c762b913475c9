"""The sandbox under attack. The scorer is Python's `eval`, so that an answer is any code the test wants to run."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paced_rl.types import VerdictStatus
from paced_rl.verifiers.sandbox import Sandbox, WorkerStartError

MEMORY_BYTES = 512 * 1024**2
DIED, STALLED = VerdictStatus.VERIFIER_ERROR, VerdictStatus.TIMED_OUT

# What code written for the purpose can do: switch the audit hook off, so that only the kernel's limits are left.
UNHOOK = "vars(__import__('__main__')).update(_REFUSED=('nothing',), _WRITE_FLAGS=0)"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox("builtins:eval", timeout_seconds=10.0, memory_bytes=MEMORY_BYTES) as running:
        yield running


def _flood(data: str) -> str:
    """An answer that writes `data` to every descriptor it has, the one its score goes through included."""
    return f"exec('import os\\nfor fd in range(50):\\n  try: os.write(fd, {data})\\n  except OSError: pass')"


def _marked_processes(marker: str) -> list[int]:
    """Processes with `marker` in their command line, the living only (a zombie's command line is empty)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # It ended between listing and reading.
    return found


def _assert_gone(marker: str) -> None:
    """A killed process may take a moment to leave /proc."""
    deadline = time.monotonic() + 10
    while _marked_processes(marker):
        assert time.monotonic() < deadline, "a process outlived its answer"
        time.sleep(0.02)


def test_scores_and_arguments_arrive(sandbox: Sandbox) -> None:
    assert sandbox.score("1 + 1", {}) == 2.0
    assert sandbox.score("a * b", {"a": 3, "b": 0.5}) == 1.5
    assert sandbox.score("len(text)", {"text": "\x00\ud800٣\n" * 30_000}) == 120_000


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os')._exit(0)",
        "__import__('os')._exit(7)",
        "__import__('os').abort()",
        "__import__('signal').raise_signal(9)",
        "exec('raise SystemExit(0)')",
        "exec('raise KeyboardInterrupt')",
        "exec('raise BaseException')",
        "1 / 0",
        "not python",
        "'text'",
        "None",
        "float('nan')",
        "float('inf')",
        "[0] * 10**12",
        "exec('x = []\\nwhile True: x.append(bytes(10**7))')",
        "'(' * 10**9",
        "exec('(' * 100000)",
        "exec('def f(): f()\\nf()')",
        "__import__('os').closerange(0, 1000)",
        _flood('b"[" * 100000'),
        _flood('b"x" * 60000 + bytes([10])'),
        _flood('b"[" * 60000 + bytes([10])'),
        _flood('b"[1]" + bytes([10])'),
        _flood('b"[[" + bytes([10, 255, 10])'),
    ],
)
def test_an_answer_that_breaks_its_process_is_an_error_and_the_next_one_is_scored(
    sandbox: Sandbox, answer: str
) -> None:
    assert sandbox.score(answer, {}) is DIED
    assert sandbox.score("4.5", {}) == 4.5


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('time').sleep(600)",
        "exec('while True: pass')",
        "9**9**9",
        "__import__('os').closerange(0, 3) or __import__('time').sleep(600)",
    ],
)
def test_an_answer_that_stalls_times_out_and_the_next_one_is_scored(answer: str) -> None:
    with Sandbox("builtins:eval", timeout_seconds=0.3, memory_bytes=MEMORY_BYTES) as sandbox:
        assert sandbox.score(answer, {}) is STALLED
        assert sandbox.score("4.5", {}) == 4.5


def test_prints_do_not_reach_the_protocol_or_the_host(sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    printed = (
        "print('x' * 10**7) or __import__('sys').stderr.write('y' * 10**6) or __import__('os').write(1, b'z' * 9) * 0"
    )
    assert sandbox.score(f"[{printed}, 5][1]", {}) == 5.0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "attack",
    [
        "open({path!r}, 'w').write('x')",
        "open({path!r}, 'a')",
        "open({path!r}, 'r+')",
        "__import__('os').open({path!r}, 1)",
        "__import__('os').truncate({path!r}, 0)",
        "__import__('os').remove({path!r})",
        "__import__('os').rename({path!r}, '/tmp/stolen')",
        "__import__('os').chmod({path!r}, 0)",
        "__import__('os').symlink({path!r}, 'link')",
        "__import__('shutil').rmtree({folder!r})",
        "__import__('pathlib').Path({path!r}).unlink()",
        "__import__('os').system('rm -f {path}')",
        "__import__('subprocess').run(['rm', '-f', {path!r}])",
        "__import__('os').posix_spawn('/bin/rm', ['rm', '-f', {path!r}], {{}})",
        "__import__('os').execv('/bin/rm', ['rm', '-f', {path!r}])",
        "__import__('os').fork()",
        "__import__('os').kill({host}, 9)",
        "__import__('os').killpg({group}, 9)",
        "__import__('os').chdir('/')",
        "__import__('socket').socket()",
        "__import__('socket').create_connection(('127.0.0.1', 9))",
        "__import__('ctypes').CDLL(None).unlink({path!r}.encode())",
        "__import__('resource').setrlimit(7, (999, 999))",
        "__import__('sqlite3').connect({path!r})",
    ],
)
def test_the_cheap_attacks_change_nothing_outside(sandbox: Sandbox, tmp_path: Path, attack: str) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    mode = victim.stat().st_mode
    answer = attack.format(path=str(victim), folder=str(tmp_path), host=os.getpid(), group=os.getpgrp())
    assert sandbox.score(answer, {}) is DIED
    assert victim.read_text() == "precious"
    assert victim.stat().st_mode == mode
    assert sandbox.score("1", {}) == 1.0


def test_without_the_audit_hook_the_kernel_still_keeps_bytes_from_the_disk(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "new.txt"
    assert sandbox.score(f"[{UNHOOK}, open({str(path)!r}, 'w').write('x' * 10**6)][1]", {}) is DIED
    # Its name is there, which is the honest part: the hook is what refuses opening, and the hook is gone.
    assert path.stat().st_size == 0


_GRANDCHILD = f"""
{UNHOOK}
import os, sys, time
try:
    for _ in range(3):
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)', marker])
except BlockingIOError:
    pass  # RLIMIT_NPROC, which holds for everybody but root.
"""


@pytest.mark.parametrize("ending", ["1.0", "__import__('time').sleep(600)", "__import__('os')._exit(1)"])
def test_killing_reaches_grandchildren(tmp_path: Path, ending: str) -> None:
    expected: Any = {"1.0": 1.0, "__import__('os')._exit(1)": DIED}.get(ending, STALLED)
    marker = f"marker-of-{tmp_path.name}-{os.getpid()}"
    with Sandbox("builtins:eval", timeout_seconds=1.0, memory_bytes=MEMORY_BYTES) as sandbox:
        arguments = {"code": _GRANDCHILD, "marker": marker}
        assert sandbox.score(f"[exec(code, globals()), {ending}][1]", arguments) == expected
        _assert_gone(marker)
        assert sandbox.score("2", {}) == 2.0


@pytest.mark.parametrize("then", ["__import__('time').sleep(600)", "1.0"])
def test_an_answer_that_kills_the_worker_itself_is_survived(then: str) -> None:
    kill = f"[{UNHOOK}, __import__('os').kill(__import__('os').getppid(), 9), {then}][2]"
    with Sandbox("builtins:eval", timeout_seconds=5.0, memory_bytes=MEMORY_BYTES) as sandbox:
        assert sandbox.score(kill, {}) is DIED
        assert sandbox.score("2", {}) == 2.0


def test_an_answer_that_stops_the_worker_itself_times_out() -> None:
    stop = f"[{UNHOOK}, __import__('os').kill(__import__('os').getppid(), 19), 1.0][2]"
    with Sandbox("builtins:eval", timeout_seconds=0.5, memory_bytes=MEMORY_BYTES) as sandbox:
        assert sandbox.score(stop, {}) is STALLED
        assert sandbox.score("2", {}) == 2.0


@pytest.mark.parametrize(("ending", "expected"), [("1.0", 1.0), ("__import__('os').closerange(0, 99)", DIED)])
def test_an_answer_that_leaves_its_group_is_still_ended(sandbox: Sandbox, ending: str, expected: Any) -> None:
    leave = f"[{UNHOOK}, __import__('os').setpgid(0, __import__('os').getppid()), {ending}][2]"
    assert sandbox.score(leave, {}) == expected
    assert sandbox.score("2", {}) == 2.0


def test_an_answer_cannot_change_how_later_ones_are_scored(sandbox: Sandbox) -> None:
    forge = "setattr(__import__('builtins'), 'len', lambda _: 1) or setattr(__import__('json'), 'dumps', None) or 1.0"
    sandbox.score(forge, {})
    assert sandbox.score("len('four')", {}) == 4.0


def test_nothing_is_inherited(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    with Path(os.devnull).open() as secret:
        os.set_inheritable(secret.fileno(), True)
        assert sandbox.score("'HF_TOKEN' in __import__('os').environ", {}) == 0.0
        # Standard streams, the pipe for the result, and the listing's own descriptor.
        assert sandbox.score("len(__import__('os').listdir('/proc/self/fd'))", {}) <= 6


def test_the_worker_stays_warm_and_its_scratch_folder_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Sandbox("builtins:eval", timeout_seconds=10.0, memory_bytes=MEMORY_BYTES) as sandbox:
        assert list(tmp_path.iterdir()) == []  # Nothing is started before the first answer.
        parent = sandbox.score("__import__('os').getppid()", {})
        assert sandbox.score("1/0", {}) is DIED
        assert sandbox.score("__import__('os').getppid()", {}) == parent
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
    assert isinstance(parent, float)
    assert not Path(f"/proc/{int(parent)}").exists()


def test_it_can_be_used_again_after_close(sandbox: Sandbox) -> None:
    assert sandbox.score("1", {}) == 1.0
    sandbox.close()
    sandbox.close()
    assert sandbox.score("2", {}) == 2.0


def test_a_worker_that_cannot_start_is_an_error_that_says_why() -> None:
    with (
        Sandbox("no_such_module:score", timeout_seconds=1.0, memory_bytes=MEMORY_BYTES) as sandbox,
        pytest.raises(WorkerStartError, match="ModuleNotFoundError"),
    ):
        sandbox.score("1", {})
