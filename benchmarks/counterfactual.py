"""What a replay of every selector and estimator costs: thousands of rounds, 100,000 prompts, read from Parquet.

    python benchmarks/counterfactual.py                                  # 2,000 rounds × 64 of 100,000 prompts
    python benchmarks/counterfactual.py --num-rounds 500 --num-prompts 1000000

The tables are generated in the layout of the project's own, with the columns that nobody reads here too: accuracies are
drawn once, the head errs on each prompt, and nothing is learned. Memory is shown because it should grow with what is
looked back at and not with rounds or prompts; a prompt that has been seen costs its id.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from paced_rl.counterfactual.history import TABLES, Source, read_rounds
from paced_rl.counterfactual.replay import Replayed, replay_rounds
from paced_rl.scheduling import SelectorSettings
from paced_rl.scheduling.counterfactual import PastRound, ReplaySettings
from paced_rl.schemas import ROLLOUTS, SCHEDULE, VERDICTS
from paced_rl.seeds import derive_generator

REWARD_TEMPERATURE = 0.05
MAX_TOKENS = 32
SETTINGS = ReplaySettings(
    share=0.25,
    target_accuracy=0.5,
    experiment_seed=0,
    selectors=SelectorSettings(softening=0.1, outcome_half_life=10.0, retest_share=0.25, retest_after=10),
)


def main() -> None:
    arguments = parse_arguments()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory(prefix="paced_rl_counterfactual_", dir=arguments.folder) as folder:
        started = clock()
        files = {name: Path(folder) / name / "round=0001" / f"{name}.parquet" for name in TABLES}
        write_rounds(files, arguments)
        megabytes = sum(path.stat().st_size for path in Path(folder).rglob("*.*")) / 1e6
        print(
            f"{arguments.num_rounds:,} rounds × {arguments.round_size} of {arguments.num_prompts:,} prompts, ", end=""
        )
        print(f"{megabytes:,.0f} MB in {4 * arguments.num_rounds:,} files, in {clock() - started:.0f} s")
        source = Source(
            files=files,
            rounds=range(1, arguments.num_rounds + 1),
            warm_up_rounds=3,
            reward_temperature=REWARD_TEMPERATURE,
        )
        show("start", 0.0, arguments)
        started = clock()
        num_groups = sum(len(past.prompts) for past in read_rounds(source))
        show("read alone", clock() - started, arguments)
        started = clock()
        replayed = replay(read_rounds(source), arguments)
        show("read + replay", clock() - started, arguments)
    table = replayed.table.to_pandas()
    total = table[table["is_total"] & (table["measure"] == "reward_variance")].set_index(["selector", "estimator"])
    for rule in (("uniform", ""), ("nearest", "learned"), ("posterior", "learned"), ("oracle", "")):
        print(f"{' '.join(rule):<20}{total.loc[rule, 'value']:.4f}")
    assert num_groups == arguments.num_rounds * arguments.round_size


def replay(rounds: Iterator[PastRound], arguments: argparse.Namespace) -> Replayed:
    return replay_rounds(rounds, SETTINGS, last_round=arguments.num_rounds, num_blocks=8)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-rounds", type=int, default=2000)
    parser.add_argument("--num-prompts", type=int, default=100_000, help="train prompts to draw from")
    parser.add_argument("--round-size", type=int, default=64, help="prompts of a round, all drawn uniformly")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--head-error", type=float, default=0.2, help="standard deviation of the head's estimates")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of this process, on a machine that others use")
    parser.add_argument("--folder", default=None, help="where the temporary tables go; the system's by default")
    return parser.parse_args()


def write_rounds(files: dict[str, Path], arguments: argparse.Namespace) -> None:
    """Every table of every round, from accuracies of which most are low."""
    accuracies = derive_generator(0, "accuracies").beta(0.4, 0.8, size=arguments.num_prompts)
    errors = derive_generator(0, "errors").normal(0.0, arguments.head_error, size=arguments.num_prompts)
    learned = np.clip(accuracies + errors, 0.0, 1.0)
    provenance = {"nodes": {"schedule_prompts": {"parameters": {"params:scheduling": {"selector": "uniform"}}}}}
    for round_number in range(1, arguments.num_rounds + 1):
        generator = derive_generator(0, "round", round_number)
        drawn = generator.choice(arguments.num_prompts, arguments.round_size, replace=False)
        rewards = generator.random((arguments.round_size, arguments.group_size)) < accuracies[drawn, None]
        tables = make_tables(drawn, learned[drawn] / REWARD_TEMPERATURE, rewards, generator)
        for name, table in tables.items():
            path = place(files[name], round_number)
            path.parent.mkdir(parents=True)
            pq.write_table(table, path)
        path = place(files["provenance"], round_number)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(provenance))


def place(first: Path, round_number: int) -> Path:
    return first.parents[1] / f"round={round_number:04d}" / first.name


def make_tables(
    drawn: np.ndarray, log_z: np.ndarray, rewards: np.ndarray, generator: np.random.Generator
) -> dict[str, pa.Table]:
    """schedule, verdicts and rollouts of one round; texts and log-probabilities are filler of the usual size."""
    group_size = rewards.shape[1]
    ids = [f"{prompt:016x}" for prompt in drawn]
    each = [prompt_id for prompt_id in ids for _ in range(group_size)]
    lengths = generator.integers(4, MAX_TOKENS, size=len(each))
    filler = {
        "rollout_id": [f"{prompt_id}-{index:03d}" for index, prompt_id in enumerate(each)],
        "prompt_id": each,
        "verifier": ["arithmetic"] * len(each),
        "status": ["right" if reward else "wrong" for reward in rewards.ravel()],
        "reward": rewards.ravel().astype(np.float64),
        "extracted_answer": ["1+2*3"] * len(each),
        "sample_index": np.tile(np.arange(group_size), len(ids)),
        "policy_version": np.zeros(len(each), dtype=np.int32),
        "seed": np.arange(len(each)),
        "completion": ["(1+2)*3"] * len(each),
        "completion_token_ids": [np.zeros(length, dtype=np.int32) for length in lengths],
        "sampler_log_probs": [generator.random(length, dtype=np.float32) for length in lengths],
        "num_tokens": lengths,
        "finish_reason": ["eos"] * len(each),
        "sampling_temperature": np.ones(len(each)),
    }
    schedule = {
        "prompt_id": ids,
        "rank": np.arange(len(ids)),
        "reason": ["selected"] * (len(ids) - len(ids) // 8) + ["audit"] * (len(ids) // 8),
        "log_z": log_z,
        "estimated_accuracy": log_z * REWARD_TEMPERATURE,
    }
    return {
        "schedule": pa.table(schedule, schema=SCHEDULE),
        "verdicts": pa.table({name: filler[name] for name in VERDICTS.names}, schema=VERDICTS),
        "rollouts": pa.table({name: filler[name] for name in ROLLOUTS.names}, schema=ROLLOUTS),
    }


def show(stage: str, seconds: float, arguments: argparse.Namespace) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB elsewhere
    rate = f"{seconds / arguments.num_rounds * 1000:.2f} ms a round" if seconds else ""
    print(f"{stage:<16}{seconds:>8.2f} s  {rate:<18}{megabytes:>8,.0f} MB peak RSS")


if __name__ == "__main__":
    main()
