"""The old or the new content is on disk after every kind of failure, and nothing else is."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from paced_rl.atomic import remove_leftovers, temporary_file, write_atomically, write_folder_atomically


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    command = [mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_is_made_with_its_folders_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "table.txt"
    for text in ("old", "new"):
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text))
        assert path.read_text() == text
        assert _names(path.parent) == ["table.txt"]


def test_the_temporary_is_a_hidden_sibling(tmp_path: Path) -> None:
    seen: list[Path] = []

    def writer(temporary: Path) -> None:
        seen.append(temporary)
        temporary.write_text("x")

    write_atomically(tmp_path / "table.txt", writer)
    assert seen[0].parent == tmp_path
    assert seen[0].name.startswith(".table.txt.")


def test_a_writer_that_raises_midway_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text("old")
    (tmp_path / ".neighbour.tmp").write_text("not ours")

    def writer(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise KeyError("boom")

    with pytest.raises(KeyError, match="boom"):
        write_atomically(path, writer)
    assert path.read_text() == "old"
    assert _names(tmp_path) == [".neighbour.tmp", "table.txt"]


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "no space left on device"), (errno.EDQUOT, "quota reached")]
)
def test_a_full_disk_is_explained_and_changes_nothing(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.txt"
    path.write_text("old")
    folder = tmp_path / "folder"
    write_folder_atomically(folder, lambda staging: (staging / "x").write_text("old"))

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"{words} while writing .*table\.txt: \d+ bytes free; .* untouched") as caught:
        write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert caught.value.errno == number
    with pytest.raises(OSError, match=rf"{words} while writing .*folder: "):
        write_folder_atomically(folder, lambda staging: (staging / "x").write_text("new"))
    assert path.read_text() == (folder / "x").read_text() == "old"
    assert _names(tmp_path) == ["folder", "table.txt"]


def test_a_really_full_disk(small_disk: Path) -> None:
    path = small_disk / "table.bin"
    write_atomically(path, lambda temporary: temporary.write_bytes(b"o" * 20_000))
    with pytest.raises(OSError, match=r"no space left on device while writing .* free space and run the same"):
        write_atomically(path, lambda temporary: temporary.write_bytes(b"n" * 100_000))
    assert path.read_bytes() == b"o" * 20_000
    assert _names(small_disk) == ["table.bin"]


def test_a_file_size_limit_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "table.bin"
    path.write_bytes(b"old")
    script = (
        "import sys; from pathlib import Path; from paced_rl.atomic import write_atomically\n"
        "write_atomically(Path(sys.argv[1]), lambda temporary: temporary.write_bytes(b'n' * 100_000))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "file too large for the limit of this process (`ulimit -f`) while writing" in done.stderr
    assert "raise the limit and run the same command again" in done.stderr
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["table.bin"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"

    def first(staging: Path) -> None:
        (staging / "sub").mkdir()
        (staging / "sub" / "a").write_text("1")

    write_folder_atomically(folder, first)
    assert (folder / "sub" / "a").read_text() == "1"
    write_folder_atomically(folder, lambda staging: (staging / "b").write_text("2"))
    assert _names(folder) == ["b"]
    assert _names(folder.parent) == ["folder"]


def test_a_folder_writer_that_raises_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write_folder_atomically(folder, lambda staging: (staging / "a").write_text("1"))

    def writer(staging: Path) -> None:
        (staging / "a").write_text("2")
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        write_folder_atomically(folder, writer)
    assert (folder / "a").read_text() == "1"
    assert _names(tmp_path) == ["folder"]


def ended_process() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_next_writer_deletes_what_killed_ones_left(tmp_path: Path) -> None:
    gone, running = ended_process(), os.getppid()
    (tmp_path / f".table.txt.tmp-{gone}").write_text("half a ta")
    (tmp_path / f".table.txt.tmp-{running}").write_text("of a process that is still writing")
    (tmp_path / f".table.txt.tmp-{gone}x").write_text("of somebody else")
    (tmp_path / f".other.txt.tmp-{gone}").write_text("of another file")
    for kind in ("staging", "old"):
        (tmp_path / f".folder.{kind}-{gone}" / "sub").mkdir(parents=True)
    write_atomically(tmp_path / "table.txt", lambda temporary: temporary.write_text("whole"))
    write_folder_atomically(tmp_path / "folder", lambda staging: (staging / "a").write_text("1"))
    assert _names(tmp_path) == sorted(
        [f".other.txt.tmp-{gone}", f".table.txt.tmp-{gone}x", f".table.txt.tmp-{running}", "folder", "table.txt"]
    )
    assert (tmp_path / "table.txt").read_text() == "whole"


def test_the_old_folder_stays_until_a_new_one_is_in_place(tmp_path: Path) -> None:
    """A process that was killed between the two renames has left the only whole content under the old one's name."""
    aside = tmp_path / f".folder.old-{ended_process()}"
    aside.mkdir()

    def writer(staging: Path) -> None:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        write_folder_atomically(tmp_path / "folder", writer)
    assert _names(tmp_path) == [aside.name]


def test_leftovers_in_a_folder_that_is_not_there_are_none(tmp_path: Path) -> None:
    remove_leftovers(temporary_file(tmp_path / "nowhere" / "table.txt"))
    assert _names(tmp_path) == []


SAVE_LOOP = """
import sys
from pathlib import Path
from paced_rl.atomic import write_atomically
path = Path(sys.argv[1])
print("ready", flush=True)
for index in range(10**9):
    content = bytes([index % 256]) * 300_000
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
"""


def test_kill_during_saves_leaves_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "table.bin"
    for delay in (0.01, 0.023, 0.037, 0.051, 0.064):
        process = subprocess.Popen([sys.executable, "-c", SAVE_LOOP, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        _wait_for(path)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
