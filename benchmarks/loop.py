"""What a round costs beside its work, and whether that grows with the number of rounds.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/loop.py [--rounds 200] [--cpu] [--no-mlflow]

Runs rounds of a few tiny completions in a temporary copy of the project, in one process, with MLflow on: what is left
is Kedro, the tables, their rules, the cache, MLflow and the figures. Generation and training are timed apart and taken
off. Rounds that evaluate do more, so they are left out of the medians.
"""

import argparse
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from scratch_project import Clock, Stopwatch, copy_project

PARAMS: dict[str, Any] = {
    "experiment": "benchmark",
    "data_preparation": {"num_train": 40, "num_audit": 8, "num_validation": 8, "num_test": 8},
    "scheduling": {"num_prompts": 8},
    "rollout": {"group_size": 4, "max_new_tokens": 8},
    "evaluation": {"every": 10, "num_samples": 1},
}
EVALUATION_EVERY = PARAMS["evaluation"]["every"]
WINDOW = 9
"""Rounds in a median: a window between two evaluations."""
NUM_FIRST = 20
"""Rounds of the first table, without the first one, which imports everything."""


def main() -> None:
    """Parses the arguments and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="what is copied; default the current folder")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--cpu", action="store_true", help="CPU seconds of this process: on a busy machine")
    parser.add_argument("--no-mlflow", action="store_true")
    arguments = parser.parse_args()
    if arguments.rounds < 3 * WINDOW:
        parser.error(f"--rounds {arguments.rounds}: two windows of {WINDOW} rounds need {3 * WINDOW} at least")
    if arguments.no_mlflow:
        os.environ["PACED_RL_MLFLOW"] = "off"
    clock = time.process_time if arguments.cpu else time.perf_counter
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        copy_project(arguments.project.absolute(), project)
        os.chdir(project)
        print(f"{'CPU' if arguments.cpu else 'wall-clock'} time, MLflow {'off' if arguments.no_mlflow else 'on'}")
        rounds = _run_rounds(project, arguments.rounds, clock)
    _print_first(rounds)
    _print_growth(rounds)


def _run_rounds(project: Path, num_rounds: int, clock: Clock) -> dict[int, dict[str, float]]:
    """Round → seconds of its parts, of the whole under `round`, and the resident memory after it."""
    from paced_rl.generation.transformers_backend import TransformersGenerator
    from paced_rl.hooks import mlflow_tracking
    from paced_rl.loop import run_rounds
    from paced_rl.training import scoring, trainer

    logging.disable(logging.INFO)
    stopwatch = Stopwatch(clock)
    stopwatch.wrap(TransformersGenerator, "generate", "generation")
    stopwatch.wrap(scoring, "score_completions", "training")
    stopwatch.wrap(trainer, "train_round", "training")
    stopwatch.wrap(mlflow_tracking.MlflowHook, "_record", "MLflow")
    rounds: dict[int, dict[str, float]] = {}
    start = clock()
    for number in run_rounds(project, range(1, num_rounds + 1), params=PARAMS):
        rounds[number] = {**stopwatch.take(), "round": clock() - start, "memory": _resident_bytes()}
        if number % 25 == 0:
            print(f"  round {number}: {_beside(rounds[number]):.3f} s beside generation and training", flush=True)
        start = clock()
    return rounds


def _resident_bytes() -> float:
    """Memory that this process holds now, not its highest."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _beside(parts: dict[str, float]) -> float:
    return parts["round"] - parts.get("generation", 0.0) - parts.get("training", 0.0)


def _print_first(rounds: dict[int, dict[str, float]]) -> None:
    kept = [parts for number, parts in rounds.items() if 1 < number <= NUM_FIRST + 1 and number % EVALUATION_EVERY]
    print(f"\nmedian seconds over {len(kept)} of the first {NUM_FIRST + 1} rounds")
    for name in ("round", "generation", "training", "MLflow"):
        print(f"  {name:36}{statistics.median(parts.get(name, 0.0) for parts in kept):8.3f}")
    print(f"  {'beside generation and training':36}{statistics.median(map(_beside, kept)):8.3f}")


def _print_growth(rounds: dict[int, dict[str, float]]) -> None:
    last = max(rounds)
    begins = sorted({2, *range(50, last - WINDOW, 50), (last - WINDOW) // EVALUATION_EVERY * EVALUATION_EVERY})
    print(f"\nmedian over {WINDOW - 1} rounds from the given one on, beside generation and training")
    print(f"  {'round':>8}{'seconds':>10}{'of MLflow':>11}{'MiB resident':>14}")
    for begin in begins:
        kept = [rounds[n] for n in range(begin, begin + WINDOW) if n in rounds and n % EVALUATION_EVERY]
        seconds, tracking = (statistics.median(map(f, kept)) for f in (_beside, lambda x: x.get("MLflow", 0.0)))
        memory = statistics.median(parts["memory"] for parts in kept) / 2**20
        print(f"  {begin:8}{seconds:10.3f}{tracking:11.3f}{memory:14.0f}")


if __name__ == "__main__":
    main()
