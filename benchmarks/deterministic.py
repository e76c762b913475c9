"""What `policy.deterministic` costs on a device, and whether two runs then leave the same weights.

    python benchmarks/deterministic.py [--device cuda] [--policy FOLDER] [--rounds 8] [--param NAME=VALUE ...]

Runs the same rounds four times, with the mode on and off in turn, each time in a process of its own, because cuBLAS
chooses its workspace when a process first uses a GPU. The first round of each is left out.
"""

import argparse
import hashlib
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scratch_project import Stopwatch, copy_project

EXPERIMENT = "benchmark"
MODES = (True, False, True, False)
PARTS = ("generation", "scoring forward", "training forward and backward", "round")


def main() -> None:
    """Parses the arguments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--policy", type=Path, help="folder in Hugging Face format; default is the starter policy")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="e.g. policy.dtype=bfloat16")
    parser.add_argument("--one-run", choices=["on", "off"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error(f"--rounds {arguments.rounds}: the first round is left out, so take 2 at least")
    if arguments.one_run:
        print(json.dumps(_one_run(arguments, is_deterministic=arguments.one_run == "on")))
        return
    runs = [_in_a_process("on" if mode else "off") for mode in MODES]
    print(f"median seconds over {arguments.rounds - 1} rounds on {arguments.device}, two runs each")
    print(f"{'policy.deterministic':24}" + "".join(f"{part:>32}" for part in PARTS) + f"{'same weights twice':>22}")
    for wanted in (True, False):
        first, second = (run for mode, run in zip(MODES, runs, strict=True) if mode == wanted)
        cells = "".join(f"{first['seconds'][part]:>22.3f}, {second['seconds'][part]:8.3f}" for part in PARTS)
        print(f"{wanted!s:24}{cells}{'yes' if first['weights'] == second['weights'] else 'no':>22}")


def _in_a_process(mode: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--one-run", mode]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    run: dict[str, Any] = json.loads(output.splitlines()[-1])
    return run


def _one_run(arguments: argparse.Namespace, *, is_deterministic: bool) -> dict[str, Any]:
    """Median seconds of a round by part, and a digest of the last policy's weights."""
    project = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        copy_project(project, Path(scratch))
        os.chdir(scratch)  # where Kedro looks for conf/logging.yml and relative paths
        os.environ["PACED_RL_MLFLOW"] = "off"
        rounds = _run_rounds(Path(scratch), arguments, project, is_deterministic=is_deterministic)
        weights = sorted(Path(scratch).glob("data/06_models/policy/*/*/policy/*/model*.safetensors"))[-1]
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return {
        "seconds": {part: statistics.median(seconds[part] for seconds in rounds) for part in PARTS},
        "weights": digest,
    }


def _run_rounds(
    scratch: Path, arguments: argparse.Namespace, project: Path, *, is_deterministic: bool
) -> list[dict[str, float]]:
    from kedro.framework.cli.utils import _split_params

    from paced_rl.generation.transformers_backend import TransformersGenerator
    from paced_rl.loop import run_rounds
    from paced_rl.training import scoring, trainer

    logging.disable(logging.INFO)
    stopwatch = Stopwatch(time.perf_counter)
    for part, (owner, name) in zip(
        PARTS,
        ((TransformersGenerator, "generate"), (scoring, "score_completions"), (trainer, "train_round")),
        strict=False,
    ):
        stopwatch.wrap(owner, name, part)
    params: dict[str, Any] = _split_params(None, None, ",".join(arguments.param))  # as `--params` of `kedro run`
    policy = {"device": arguments.device, "deterministic": is_deterministic}
    if arguments.policy is not None:
        policy["source"] = str((project / arguments.policy).absolute())
    params["policy"] = {**params.get("policy", {}), **policy}
    params |= {"experiment": EXPERIMENT, "evaluation": {**params.get("evaluation", {}), "every": arguments.rounds + 1}}
    rounds = []
    iterator = run_rounds(scratch, range(1, arguments.rounds + 1), params=params)
    start = time.perf_counter()
    for _ in iterator:
        rounds.append({**stopwatch.take(), "round": time.perf_counter() - start})
        start = time.perf_counter()
    return rounds[1:]


if __name__ == "__main__":
    main()
