"""Rounds that are killed again and again, as a program: `python killed_rounds.py FOLDER`.

Everything is imported once; each attempt is a fork of that process, so that it costs the time of its rounds alone. The
attempts get no PyTorch model and no digest from their parent: it has warmed up on another seed, in another folder.

Under FOLDER it leaves `reference/` (never interrupted), `killed/` (interrupted, then continued until it was done) and
`report.json`: where each kill struck, and what was visibly wrong on disk right after it.
"""

import filecmp
import gc
import itertools
import json
import logging
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from project_folders import inside, make_project

NUM_ROUNDS = 3
PARAMS: dict[str, Any] = {
    # Three of five prompts a round and the audit slice: the order of prompts begins anew within round 2.
    "data_preparation": {"num_train": 5, "num_audit": 4, "num_validation": 4, "num_test": 4},
    "scheduling": {"selector": "uniform", "num_prompts": 4, "audit_fraction": 0.25},
    "rollout": {"group_size": 3, "max_new_tokens": 8},
    "evaluation": {"num_samples": 1},
}
RANDOM_STATE = 20260101
NOT_EQUAL = ("timings.parquet", "provenance.json")
"""Files that say when a run was: no two runs write the same, and a run that is killed as it ends writes none."""


Point = tuple[str, str]
"""(kind, target) of a moment: the same in every run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A step of a run."""

    kind: str
    """`node started`, or a step of a write."""
    target: str
    """A node and its round, or what is written: its path in the project, without process numbers."""
    stage: str
    """Of the last node that has started; empty where none has."""
    seconds: float
    """Of a clock that all processes share."""

    @property
    def point(self) -> Point:
        return self.kind, self.target


def main(folder: Path) -> None:
    """Runs the reference, then as many attempts as there are kills, then one that nobody kills."""
    logging.disable(logging.INFO)
    import torch

    torch.set_num_threads(1)
    generator = random.Random(RANDOM_STATE)
    for name in ("warm", "reference", "killed"):
        make_project(folder / name)
    _run(folder / "warm", seed=1)
    gc.freeze()  # else each fork's collector walks through, and so copies, all that was imported
    _, moments = _attempt(folder / "reference", folder / "reference.journal", positions={}, strike_at=None)
    positions: dict[Point, int] = {}
    for position, moment in enumerate(moments):
        positions.setdefault(moment.point, position)
    strikes, wrong = [], []
    for number, (position, delay) in enumerate(_plan(moments, generator)):
        is_killed, seen = _attempt(
            folder / "killed",
            folder / f"{number:02d}.journal",
            positions=positions,
            strike_at=position,
            delay=delay,
        )
        if is_killed:
            strikes.append({**asdict(seen[-1]), "by": "clock" if delay is not None else "step"})
            wrong += [f"kill {number}: {text}" for text in _differences(folder, is_finished=False)]
    is_killed, _ = _attempt(folder / "killed", folder / "last.journal", positions=positions, strike_at=None)
    wrong += [f"at the end: {text}" for text in _differences(folder, is_finished=True)]
    (folder / "report.json").write_text(json.dumps({"strikes": strikes, "wrong": wrong}, indent=1))


def _plan(moments: list[Moment], generator: random.Random) -> list[tuple[int, float | None]]:
    """(position, delay) in order: a step of each kind in each stage, and two nodes of each stage by the clock.

    A delay is in seconds after a node has started, and shorter than the node took; None kills at the step itself.
    """
    plan: list[tuple[int, float | None]] = []
    starts = [i for i, moment in enumerate(moments) if moment.kind == "node started"]
    seconds = {i: moments[j].seconds - moments[i].seconds for i, j in itertools.pairwise(starts)}
    for stage, kind in sorted({(moment.stage, moment.kind) for moment in moments}):
        if kind == "node started":
            chosen = [i for i in seconds if moments[i].stage == stage]
            plan += [(i, seconds[i] * generator.random()) for i in generator.sample(chosen, min(2, len(chosen)))]
        else:
            chosen = [i for i, moment in enumerate(moments) if (moment.stage, moment.kind) == (stage, kind)]
            plan.append((generator.choice(chosen), None))
    return sorted(plan, key=lambda item: item[0])


def _attempt(
    project: Path, journal: Path, *, positions: dict[Point, int], strike_at: int | None, delay: float | None = None
) -> tuple[bool, list[Moment]]:
    """The command, in a fork of this process; whether it was killed, and the moments it passed.

    Raises:
        RuntimeError: it failed by itself.
    """
    log = journal.with_suffix(".log")
    child = os.fork()
    if child == 0:
        _live(project, journal, log, positions, strike_at if delay is None else None)
    if delay is not None and strike_at is not None:
        while strike_at > max((positions.get(moment.point, -1) for moment in _read(journal)), default=-1):
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            time.sleep(0.002)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)  # a child that has ended is still there until it is waited for
    _, status = os.waitpid(child, 0)
    if status not in (0, signal.SIGKILL):
        raise RuntimeError(f"the attempt of {journal} ended with status {status}:\n{log.read_text()[-5000:]}")
    return status == signal.SIGKILL, list(_read(journal))


def _read(journal: Path) -> Iterator[Moment]:
    if journal.exists():
        for line in journal.read_text().split("\n")[:-1]:  # behind the last end of line is nothing, or half a line
            yield Moment(**json.loads(line))


def _live(project: Path, journal: Path, log: Path, positions: dict[Point, int], strike_at: int | None) -> NoReturn:
    """The child's life; never returns into the parent's code."""
    status = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        now: dict[str, Any] = {"round_number": 1, "stage": ""}

        def visit(kind: str, target: str | Path, spoil: Callable[[], object] | None = None) -> None:
            if isinstance(target, Path):
                target = re.sub(r"(tmp|staging|old)-\d+", r"\1", os.path.relpath(target, project))
            moment = Moment(kind=kind, target=target, stage=now["stage"], seconds=time.monotonic())
            os.write(file, (json.dumps(asdict(moment)) + "\n").encode())
            if strike_at is not None and positions.get(moment.point, -1) >= strike_at:
                if spoil is not None:
                    spoil()
                os.kill(os.getpid(), signal.SIGKILL)

        _watch(visit, now)
        _run(project, seed=0, now=now)
        status = 0
    except BaseException:
        logging.getLogger(__name__).exception("attempt failed")
        raise
    finally:
        os._exit(status)  # not the parent's clean-up


def _run(project: Path, *, seed: int, now: dict[str, Any] | None = None) -> None:
    from paced_rl.loop import run_rounds

    with inside(project):
        for done in run_rounds(project, range(1, NUM_ROUNDS + 1), env="test", params={**PARAMS, "seed": seed}):
            if now is not None:
                now["round_number"] = done + 1


def _watch(visit: Callable[..., None], now: dict[str, Any]) -> None:
    """Has `visit` called when a node starts and at the steps of every write; for good, in a child that will end."""
    import pyarrow.parquet as pq
    import safetensors.torch
    from kedro.pipeline.node import Node
    from PIL.Image import Image

    from paced_rl.hooks.common import stage_of

    def around(owner: Any, name: str, watcher: Callable[..., Any]) -> None:
        real = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: watcher(real, *args, **kwargs))

    def run(real: Any, node: Any, *args: Any, **kwargs: Any) -> Any:
        now["stage"] = stage_of(node)
        visit("node started", f"{node.name} of round {now['round_number']}")
        return real(node, *args, **kwargs)

    def rename(real: Any, source: Any, target: Any, **kwargs: Any) -> None:
        visit("before a rename", Path(target))
        real(source, target, **kwargs)
        visit("after a rename", Path(target))

    def write(real: Any, path: Path, content: Any, *args: Any, **kwargs: Any) -> Any:
        visit("inside a text", path, lambda: real(path, content[: len(content) // 2], *args, **kwargs))
        return real(path, content, *args, **kwargs)

    def write_rows(real: Any, writer: Any, *args: Any, **kwargs: Any) -> None:
        real(writer, *args, **kwargs)
        visit("inside a table", Path(writer.where))  # without its footer

    def save_tensors(real: Any, tensors: Any, path: Path, **kwargs: Any) -> None:
        real(tensors, path, **kwargs)
        visit("inside weights", path, lambda: os.truncate(path, path.stat().st_size // 2))

    def save_image(real: Any, image: Any, path: Any, **kwargs: Any) -> None:
        real(image, path, **kwargs)
        visit("inside a figure", Path(path), lambda: os.truncate(path, 100))

    def delete(real: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        if Path(path).exists():
            visit("before a deletion", Path(path))
        real(path, *args, **kwargs)

    for owner, name, watcher in (
        (Node, "run", run),
        (os, "replace", rename),
        (os, "rename", rename),
        (Path, "write_text", write),
        (Path, "write_bytes", write),
        (pq.ParquetWriter, "write_table", write_rows),
        (safetensors.torch, "save_file", save_tensors),
        (Image, "save", save_image),
        (shutil, "rmtree", delete),
    ):
        around(owner, name, watcher)


def _differences(folder: Path, *, is_finished: bool) -> Iterator[str]:
    """What is on disk and should not be: at the end anything that differs, before that what a reader would see.

    Every run writes the same bytes, so a visible file is whole if and only if it is the reference's.
    """
    killed, reference = (_files(folder / name / "data") for name in ("killed", "reference"))
    for name in sorted(killed.keys() | reference.keys()):
        is_hidden = any(part.startswith(".") for part in Path(name).parts)
        if name not in killed:
            if is_finished and Path(name).name not in NOT_EQUAL:
                yield f"{name} is missing"
        elif name not in reference:
            if is_finished or not is_hidden:
                yield f"{name} should not be there"
        elif Path(name).name in NOT_EQUAL:
            _read_whole(killed[name])
        elif not filecmp.cmp(killed[name], reference[name], shallow=False):
            yield f"{name} differs"


def _read_whole(path: Path) -> None:
    """Raises unless the file is a whole one of its kind."""
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        pq.read_table(path)
    else:
        json.loads(path.read_text())


def _files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
