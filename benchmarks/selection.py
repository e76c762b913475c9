"""What one round of scheduling costs at a million prompts: stream the embeddings, estimate, select.

    python benchmarks/selection.py                          # 1,000,000 prompts × 1,536 numbers: 6 GB of temporary disk
    python benchmarks/selection.py --num-prompts 100000

The embeddings are random numbers in the layout of the project's table `prompt_embeddings`. They are written in row
groups and read back batch by batch, so that memory does not grow with the number of prompts.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from paced_rl.objectives.estimate import estimate_in_batches
from paced_rl.objectives.log_z_head import LogPartitionHead
from paced_rl.scheduling import build_schedule, estimated_accuracy
from paced_rl.schemas import PROMPT_EMBEDDINGS
from paced_rl.seeds import derive_generator, derive_seed


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    rows: list[tuple[str, float, float]] = []
    with tempfile.TemporaryDirectory(prefix="paced_rl_selection_", dir=arguments.folder) as folder:
        path = Path(folder) / "prompt_embeddings.parquet"
        rows.append(("start", 0.0, peak_megabytes()))

        started = time.perf_counter()
        write_embeddings(path, arguments.num_prompts, arguments.size, arguments.batch_size)
        rows.append(("write", time.perf_counter() - started, peak_megabytes()))
        megabytes = path.stat().st_size / 1e6

        started = time.perf_counter()
        num_read = sum(len(ids) for ids, _ in stream_embeddings(path, arguments.batch_size))
        rows.append(("stream alone", time.perf_counter() - started, peak_megabytes()))

        head = make_head(arguments.size, arguments.hidden_size)
        started = time.perf_counter()
        log_z = estimate_in_batches(head, stream_embeddings(path, arguments.batch_size))
        rows.append(("stream + estimate", time.perf_counter() - started, peak_megabytes()))
    assert num_read == len(log_z) == arguments.num_prompts

    estimates = estimated_accuracy(log_z, head.reward_temperature)
    for name, round_number in (("select, warm-up", 2), ("select, nearest", 10)):
        started = time.perf_counter()
        schedule = build_schedule(
            estimates,
            round_number=round_number,
            experiment_seed=0,
            selector="nearest",
            target_accuracy=0.5,
            num_prompts=arguments.num_selected,
            candidate_pool_size=arguments.candidate_pool_size,
            audit_fraction=0.125,
            warm_up_rounds=3,
        )
        rows.append((name, time.perf_counter() - started, peak_megabytes()))
    print_table(arguments, rows, megabytes=megabytes)
    chosen = estimates[schedule.indices[schedule.reasons == "selected"]]
    print(f"estimates {estimates.min():.3f} … {estimates.max():.3f}; selected {chosen.min():.4f} … {chosen.max():.4f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-prompts", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=1536, help="numbers per embedding; 1536 is Qwen2.5-1.5B's")
    parser.add_argument("--hidden-size", type=int, default=128, help="of the log-Z head")
    parser.add_argument("--num-selected", type=int, default=256, help="prompts of the round")
    parser.add_argument("--candidate-pool-size", type=int, default=0, help="0: select among all prompts")
    parser.add_argument("--batch-size", type=int, default=8192, help="rows per row group and per batch")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--folder", default=None, help="where the temporary table goes; the system's by default")
    return parser.parse_args()


def write_embeddings(path: Path, num_prompts: int, size: int, batch_size: int) -> None:
    """Write the table one row group at a time."""
    # Random float32 does not compress and embeddings hardly do; a dictionary of them would only cost memory.
    with pq.ParquetWriter(path, PROMPT_EMBEDDINGS, compression="none", use_dictionary=["split"]) as writer:
        for start in range(0, num_prompts, batch_size):
            count = min(batch_size, num_prompts - start)
            values = derive_generator(0, "embeddings", start).standard_normal((count, size), dtype=np.float32)
            offsets = pa.array(np.arange(0, (count + 1) * size, size, dtype=np.int32))
            columns = [
                pa.array([f"{start + position:016x}" for position in range(count)]),
                pa.array(["train"] * count),
                pa.ListArray.from_arrays(offsets, pa.array(values.ravel())),
            ]
            writer.write_table(pa.table(columns, schema=PROMPT_EMBEDDINGS), row_group_size=batch_size)


def stream_embeddings(path: Path, batch_size: int) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """(prompt ids [b], embeddings [b, size]) by batches; the embeddings are Arrow's own memory, not a copy."""
    # pre_buffer would hold the raw bytes of many row groups at once.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=batch_size, columns=["prompt_id", "embedding"], use_threads=False):
            embeddings = batch.column("embedding")
            # `flatten` respects the offset of a sliced batch, which `values` does not.
            yield batch.column("prompt_id"), embeddings.flatten().to_numpy().reshape(len(embeddings), -1)


def make_head(size: int, hidden_size: int) -> LogPartitionHead:
    """A head whose last layer is not zero, so that estimates differ as after training."""
    head = LogPartitionHead(
        size, hidden_size, reward_temperature=0.05, initial_accuracy=0.5, seed=derive_seed(0, "log_z_head")
    )
    torch.nn.init.normal_(head.output_layer.weight, generator=torch.Generator().manual_seed(derive_seed(0, "output")))
    return head


def peak_megabytes() -> float:
    """Largest resident memory of this process so far; it never falls."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB elsewhere


def print_table(arguments: argparse.Namespace, rows: list[tuple[str, float, float]], *, megabytes: float) -> None:
    print(
        f"{arguments.num_prompts:,} prompts × {arguments.size} float32, {megabytes:,.0f} MB, {arguments.threads} thread"
    )
    print(f"{'stage':<20}{'seconds':>12}{'rows/s':>14}{'peak RSS, MB':>15}")
    for stage, seconds, peak in rows:
        rate = f"{arguments.num_prompts / seconds:,.0f}" if seconds else "–"
        print(f"{stage:<20}{seconds:>12.3f}{rate:>14}{peak:>15,.0f}")


if __name__ == "__main__":
    main()
