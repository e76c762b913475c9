"""Seconds of a round by part, and beside them a step of TRL's GRPOTrainer on the same policy and prompts.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/round.py [--rounds 8] [--trl FOLDER]

Runs rounds of the embedded default in a temporary copy of the project, in one process, with MLflow on. The first round
is left out (imports, prompts, embeddings, the database), and so are the rounds that evaluate. A part's time excludes
the parts within it, so that the parts and `other` add up to the round.

TRL is no dependency of the project. To compare, install it into a folder of its own and name it:

    pip install --target FOLDER --no-deps trl==1.16.0 accelerate datasets dill multiprocess xxhash psutil

TRL gets the very prompts that the rounds scheduled, the same number of completions, the same limit and temperature, and
rewards from the same verifier; two optimiser steps per generation, as in a round. Prompts that a round replays, and the
log-Z head, are extra work of ours.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scratch_project import Clock, Stopwatch, copy_project

EXPERIMENT = "benchmark"
EVALUATION_EVERY = 5  # as in conf/base
NUM_STEPS_PER_GENERATION = 2
"""Optimiser steps per round: TRL's `steps_per_generation`, and `training.num_minibatches` of ours here, whose default
does not divide the completions evenly, as TRL needs it."""

WORK = ("generation", "verification", "scoring forward", "training forward and backward")
OVERHEAD = (
    "Kedro session, config, catalog",
    "loading the policy",
    "dataset load",
    "dataset save",
    "validation",
    "hashing, cache decisions",
    "provenance",
    "MLflow",
    "figures",
    "rest of the nodes",
)


def main() -> None:
    """Parses the arguments and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="what is copied; default the current folder")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--trl", type=Path, help="folder that TRL was installed into with pip --target")
    parser.add_argument("--cpu", action="store_true", help="CPU seconds of this process: on a busy machine")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu else time.perf_counter
    if arguments.rounds < 2:
        parser.error(f"--rounds {arguments.rounds}: the first round is left out, so take 2 at least")
    if arguments.trl is not None:
        # Last, so that torch stays the project's; at once, since transformers looks for accelerate when it is imported.
        sys.path.append(str(arguments.trl.absolute()))
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        copy_project(arguments.project.absolute(), project)
        os.chdir(project)  # where Kedro looks for conf/logging.yml and relative paths
        kind = "CPU" if arguments.cpu else "wall-clock"
        print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {kind} time")
        ours = _print_rounds(_run_rounds(project, arguments.rounds, clock))
        _print_trl(_trl_seconds(project, arguments.rounds, clock), ours)


def _run_rounds(project: Path, num_rounds: int, clock: Clock) -> dict[int, dict[str, float]]:
    """Round → part → seconds, with the whole round under `round`."""
    from paced_rl.loop import run_rounds

    logging.disable(logging.INFO)
    stopwatch = Stopwatch(clock)
    _wrap_parts(stopwatch)
    rounds: dict[int, dict[str, float]] = {}
    params = {"experiment": EXPERIMENT, "training": {"num_minibatches": NUM_STEPS_PER_GENERATION}}
    iterator = run_rounds(project, range(1, num_rounds + 1), params=params)
    while True:
        start = clock()
        round_number = next(iterator, None)
        if round_number is None:
            return rounds
        rounds[round_number] = {**stopwatch.take(), "round": clock() - start}


def _wrap_parts(stopwatch: Stopwatch) -> None:
    from kedro.framework.context import KedroContext
    from kedro.framework.session import KedroSession
    from kedro.pipeline.node import Node

    from paced_rl import provenance, validation, verifiers
    from paced_rl.datasets import checkpoint, figure, parquet_table
    from paced_rl.generation.transformers_backend import TransformersGenerator
    from paced_rl.hooks import mlflow_tracking, provenance_hook
    from paced_rl.pipelines.reporting import figures
    from paced_rl.pipelines.training import state
    from paced_rl.policies import loading
    from paced_rl.runner import caching
    from paced_rl.training import scoring, trainer

    session, policy, load, save, checks, cache, origin, tracking, drawing, nodes = OVERHEAD
    table, folder = parquet_table.ParquetTable, checkpoint.CheckpointDataset
    cached = ("explain", "take_record", "write_record", "output_fingerprints", "code_fingerprint", "why_not_cacheable")
    drawn = ("calibration_figure", "estimates_figure", "learning_curve_figure")
    for part, targets in {
        WORK[0]: [(TransformersGenerator, "generate")],
        WORK[1]: [(verifiers, "verify_completions")],
        WORK[2]: [(scoring, "score_completions")],
        WORK[3]: [(trainer, "train_round")],
        session: [(KedroSession, "__init__"), (KedroSession, "load_context"), (KedroContext, "_get_catalog")],
        policy: [(loading, "load_policy"), (loading, "_load_like_an_open_one"), (state, "open_policy")],
        load: [(table, "load"), (folder, "load")],
        save: [(table, "save"), (folder, "save")],
        checks: [(validation.ExpectationSuite, "validate")],
        cache: [(caching, name) for name in cached],
        origin: [(provenance_hook.ProvenanceHook, "_write"), (provenance, "git_state")],
        tracking: [(mlflow_tracking.MlflowHook, "_record")],
        drawing: [(figure.FigureDataset, "save"), *((figures, name) for name in drawn)],
        nodes: [(Node, "run")],
    }.items():
        for owner, name in targets:
            stopwatch.wrap(owner, name, part)


def _print_rounds(rounds: dict[int, dict[str, float]]) -> float:
    """Prints medians; returns the seconds of what a step of TRL does too."""
    kept = [parts for number, parts in rounds.items() if number > 1 and number % EVALUATION_EVERY]
    median = {part: statistics.median(parts.get(part, 0.0) for parts in kept) for part in (*WORK, *OVERHEAD, "round")}
    median["other"] = median["round"] - sum(median[part] for part in (*WORK, *OVERHEAD))
    print(f"\nmedian seconds over {len(kept)} rounds")
    for part in WORK:
        print(f"  {part:36}{median[part]:8.3f}")
    for part in (*OVERHEAD, "other"):
        print(f"    {part:34}{median[part]:8.3f}")
    work = sum(median[part] for part in WORK)
    print(f"  {'not generation, verdicts or model':36}{median['round'] - work:8.3f}")
    print(f"  {'round':36}{median['round']:8.3f}")
    left_out = ", ".join(f"{n}: {parts['round']:.1f} s" for n, parts in rounds.items() if parts not in kept)
    print(f"  left out: {left_out}")
    return work


def _print_trl(seconds: list[float] | None, ours: float) -> None:
    if seconds is None:
        print("\nTRL cannot be imported: no comparison. `--help` says how to install it into a folder.")
        return
    trl = statistics.median(seconds)
    print(f"\nmedian seconds of generation, verdicts, scoring and training over {len(seconds)} rounds")
    print(f"  {'paced-rl':36}{ours:8.3f}")
    print(f"  {'TRL GRPOTrainer':36}{trl:8.3f}   {trl / ours:.2f} times as long")


def _trl_seconds(project: Path, num_rounds: int, clock: Clock) -> list[float] | None:
    """Seconds of each of TRL's generations with its optimiser steps, the first left out; None without TRL."""
    try:
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as error:
        print(f"\nimport failed: {error}")
        return None
    prompts = _scheduled_prompts(project, num_rounds)
    folder = project / "data/01_raw/starter_policy"
    config = GRPOConfig(
        output_dir=str(project / "trl"),
        per_device_train_batch_size=256 // NUM_STEPS_PER_GENERATION,
        steps_per_generation=NUM_STEPS_PER_GENERATION,
        num_generations=8,
        max_completion_length=32,
        temperature=1.0,
        learning_rate=2e-4,
        max_steps=num_rounds * NUM_STEPS_PER_GENERATION,
        shuffle_dataset=False,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    step_clock = _step_clock(clock)
    GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
        reward_funcs=_reward(),
        args=config,
        train_dataset=Dataset.from_pandas(prompts, preserve_index=False),
        callbacks=[step_clock],
    ).train()
    steps = step_clock.seconds
    return [sum(steps[i : i + NUM_STEPS_PER_GENERATION]) for i in range(0, len(steps), NUM_STEPS_PER_GENERATION)][1:]


def _scheduled_prompts(project: Path, num_rounds: int) -> pd.DataFrame:
    """The prompts of the rounds, in order, as TRL's columns."""

    def table(name: str, *folders: str) -> pd.DataFrame:
        return pd.read_parquet(
            project.joinpath("data", name, f"experiment={EXPERIMENT}", *folders, f"{Path(name).name}.parquet"),
            partitioning=None,
        )

    schedule = pd.concat([table("04_feature/schedule", f"round={n:04d}") for n in range(1, num_rounds + 1)])
    merged = schedule[["prompt_id"]].merge(table("03_primary/prompts"), on="prompt_id", how="left")
    return pd.DataFrame(
        {"prompt": merged["text"], "verifier": merged["verifier"], "verifier_arguments": merged["verifier_arguments"]}
    )


def _reward() -> Callable[..., list[float]]:
    """Our verdicts in the form of a reward function of TRL."""
    from paced_rl.verifiers import verify_completions

    def reward(
        prompts: list[str], completions: list[str], verifier: list[str], verifier_arguments: list[str], **_: Any
    ) -> list[float]:
        items = [
            (name, json.loads(given), completion, False)
            for name, given, completion in zip(verifier, verifier_arguments, completions, strict=True)
        ]
        verdicts, _seconds = verify_completions(items, timeout_seconds=5.0, memory_bytes=1024**3)
        return [verdict.reward or 0.0 for verdict in verdicts]

    return reward


def _step_clock(clock: Clock) -> Any:
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):
        """Seconds of each optimiser step, generation included."""

        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self._start = clock()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(clock() - self._start)

    return StepClock()


if __name__ == "__main__":
    main()
