"""What the cache costs: a round in which nothing runs, the decision about a node, and hashing in a round that runs.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/cache.py [--rounds 6] [--cpu]

Runs rounds of the embedded default in a temporary copy of the project, in one process, with MLflow on, and then the
last of them again and again. A checkpoint's weights are hashed once, when they are saved; afterwards a file whose size,
modification time and inode are unchanged is never read again.
"""

import argparse
import hashlib
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from scratch_project import Clock, copy_project

EXPERIMENT = "benchmark"
EVALUATION_EVERY = 5  # as in conf/base
NUM_REPEATS = 10


@dataclass(slots=True, kw_only=True)
class Costs:
    """What a round took."""

    round_seconds: float = 0.0
    hash_seconds: float = 0.0
    hashed: dict[str, int] = field(default_factory=dict)
    """File → bytes of it that were hashed."""
    decisions: list[float] = field(default_factory=list)
    """Seconds of each decision about a node."""


def main() -> None:
    """Parses the arguments and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="what is copied; default the current folder")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--cpu", action="store_true", help="CPU seconds of this process: on a busy machine")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error(f"--rounds {arguments.rounds}: the first round is left out, so take 2 at least")
    clock = time.process_time if arguments.cpu else time.perf_counter
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        copy_project(arguments.project.absolute(), project)
        os.chdir(project)
        logging.disable(logging.INFO)
        print(f"{'CPU' if arguments.cpu else 'wall-clock'} time")
        executed = [_run(project, number, clock) for number in range(1, arguments.rounds + 1)]
        cached = [_run(project, arguments.rounds, clock) for _ in range(NUM_REPEATS)]
    _print_executed([costs for number, costs in enumerate(executed, 1) if number > 1 and number % EVALUATION_EVERY])
    _print_cached(cached[1:])


def _run(project: Path, round_number: int, clock: Clock) -> Costs:
    from paced_rl.loop import run_rounds

    costs = Costs()
    with _observed(costs, clock):
        start = clock()
        list(run_rounds(project, range(round_number, round_number + 1), params={"experiment": EXPERIMENT}))
        costs.round_seconds = clock() - start
    return costs


@contextmanager
def _observed(costs: Costs, clock: Clock) -> Iterator[None]:
    """Adds the hashes of files and the decisions about nodes to `costs`."""
    from paced_rl.runner import caching

    hash_file, explain = hashlib.file_digest, caching.explain

    def observed_hash(file: BinaryIO, digest: str | Callable[[], Any]) -> Any:
        start = clock()
        result = hash_file(file, digest)  # type: ignore[arg-type]
        costs.hash_seconds += clock() - start
        costs.hashed[file.name] = costs.hashed.get(file.name, 0) + file.tell()
        return result

    def observed_decision(*args: Any, **kwargs: Any) -> str | None:
        start = clock()
        reason = explain(*args, **kwargs)
        costs.decisions.append(clock() - start)
        return reason

    hashlib.file_digest, caching.explain = observed_hash, observed_decision  # type: ignore[assignment]
    try:
        yield
    finally:
        hashlib.file_digest, caching.explain = hash_file, explain


def _print_executed(rounds: list[Costs]) -> None:
    seconds = statistics.median(costs.round_seconds for costs in rounds)
    hashing = statistics.median(costs.hash_seconds for costs in rounds)
    weights = [_weights(costs) for costs in rounds]
    print(f"\nmedian over {len(rounds)} executed rounds")
    print(f"  {'seconds':44}{seconds:10.3f}")
    print(f"  {'seconds of hashing files':44}{hashing:10.4f}   {hashing / seconds:.2%} of the round")
    print(f"  {'MB hashed':44}{statistics.median(sum(c.hashed.values()) for c in rounds) / 1e6:10.3f}")
    print(f"  {'MB hashed of weights and optimiser state':44}{statistics.median(map(sum, weights)) / 1e6:10.3f}")


def _weights(costs: Costs) -> list[int]:
    return [num_bytes for name, num_bytes in costs.hashed.items() if name.endswith(".safetensors")]


def _print_cached(rounds: list[Costs]) -> None:
    decisions = [seconds for costs in rounds for seconds in costs.decisions]
    print(f"\nmedian over {len(rounds)} runs of a round that is cached")
    print(f"  {'seconds':44}{statistics.median(costs.round_seconds for costs in rounds):10.3f}")
    print(f"  {'milliseconds of the decision about a node':44}{1e3 * statistics.median(decisions):10.3f}")
    print(f"  {'milliseconds of all decisions':44}{1e3 * sum(decisions) / len(rounds):10.3f}")
    print(f"  {'MB hashed':44}{statistics.median(sum(costs.hashed.values()) for costs in rounds) / 1e6:10.3f}")


if __name__ == "__main__":
    main()
