"""Tokens per second of the backends beside plain `model.generate`, and beside plain vLLM, repeats interleaved.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/generation.py [--vllm] [--policy FOLDER] [--device cuda]

Both sample the same groups under the same settings: `model.generate` gets every prompt repeated group_size times,
padded on the left, in one batch. Its time leaves out decoding into text, log-probabilities and the building of Python
objects; the generator's time includes them. Only completion tokens are counted, the end-of-sequence token included.
The two draw different random numbers, so each is divided by its own tokens.

`--vllm` adds VllmGenerator, and `LLM.generate` in a process of its own under the same arguments: with a request per
group and text, as its documentation has it; without text; and with a request per completion, as VllmGenerator asks.
Building the requests is not in the time of `LLM.generate`. Below the table: seconds to start an engine, to the first
completion, and to take new weights.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from vllm_runs import VllmRuns

from paced_rl.generation import Generator
from paced_rl.generation.transformers_backend import TransformersGenerator
from paced_rl.policies import LoadedPolicy, file_digests, open_policy
from paced_rl.seeds import derive_generator, derive_seed
from paced_rl.starter import build_character_tokenizer, build_tiny_qwen2, write_policy_folder
from paced_rl.types import Checkpoint, GenerationRequest, SamplingSettings

STARTER_POLICY = Path("data/01_raw/starter_policy")
COMMON_DIRECTION = 0.2
"""Added to every embedding of the random policy, so that its hidden states share a direction …"""
EOS_SHIFT = 0.011
"""… along which the end-of-sequence token is likelier: completions of about 9 tokens under a limit of 32."""


Run = Callable[[int], int | tuple[float, int]]
"""Number of a repeat → tokens, or seconds and tokens where the caller's clock would count too much."""


def main() -> None:
    """Parses the arguments and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--policy", type=Path, help=f"folder in Hugging Face format; default {STARTER_POLICY}, or random"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu where others use the machine")
    parser.add_argument("--vllm", action="store_true", help="vLLM too, which must be installed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.policy or STARTER_POLICY
        if arguments.policy is None and not folder.is_dir():
            folder = Path(scratch)
            _write_random_policy(folder)
            print(f"{STARTER_POLICY} is not there: a random policy of the same size instead")
        _compare(folder, arguments)


def _compare(folder: Path, arguments: argparse.Namespace) -> None:
    checkpoint = Checkpoint(folder=folder, files=file_digests(folder), metadata={"policy_version": 0})
    policy = open_policy(checkpoint, device=arguments.device, dtype=arguments.dtype)
    prompts = _countdown_prompts(policy, arguments.prompts)
    runs: dict[str, Run] = {
        "model.generate": lambda repeat: _run_plain(policy, prompts, arguments, repeat),
    }
    for batch_size in arguments.batch_sizes:
        generator = TransformersGenerator(device=arguments.device, dtype=arguments.dtype, batch_size=batch_size)
        runs[f"TransformersGenerator, batch size {batch_size}"] = lambda repeat, generator=generator: _run_ours(
            generator, checkpoint, prompts, arguments, repeat
        )
    seconds: dict[str, list[float]] = {}
    tokens: dict[str, list[int]] = {}
    with VllmRuns(checkpoint, prompts, arguments) if arguments.vllm else contextlib.nullcontext() as vllm:
        runs |= vllm.runs if vllm else {}
        clock = time.perf_counter if arguments.clock == "wall" else vllm.clock if vllm else time.process_time
        for repeat in range(-1, arguments.repeats):  # -1 warms up
            for name, run in runs.items():
                start = clock()
                answer = run(repeat + 1)
                elapsed, count = (clock() - start, answer) if isinstance(answer, int) else answer
                if repeat >= 0:
                    seconds.setdefault(name, []).append(elapsed)
                    tokens.setdefault(name, []).append(count)
        _print_table(seconds, tokens, num_completions=arguments.prompts * arguments.group_size)
        if vllm:
            vllm.print_seconds()


def _print_table(seconds: dict[str, list[float]], tokens: dict[str, list[int]], *, num_completions: int) -> None:
    rates = {
        name: [count / elapsed for count, elapsed in zip(tokens[name], values, strict=True)]
        for name, values in seconds.items()
    }
    baseline = statistics.median(next(iter(rates.values())))
    print(f"{'':44}{'tokens/s median':>16}{'best':>9}{'ratio':>7}{'seconds':>9}{'tokens per completion':>23}")
    for name, values in rates.items():
        median = statistics.median(values)
        print(
            f"{name:44}{median:16,.0f}{max(values):9,.0f}{median / baseline:7.2f}"
            f"{statistics.median(seconds[name]):9.3f}{statistics.mean(tokens[name]) / num_completions:23.1f}"
        )


def _run_plain(policy: LoadedPolicy, prompts: list[list[int]], arguments: argparse.Namespace, repeat: int) -> int:
    width = max(map(len, prompts))
    rows = [prompt for prompt in prompts for _ in range(arguments.group_size)]
    padding = [width - len(row) for row in rows]
    input_ids = torch.tensor([[policy.pad_token_id] * pad + row for pad, row in zip(padding, rows, strict=True)])
    attention_mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding])
    torch.manual_seed(repeat)
    sequences = policy.model.generate(
        input_ids=input_ids.to(policy.model.device),
        attention_mask=attention_mask.to(policy.model.device),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=arguments.max_new_tokens,
        pad_token_id=policy.pad_token_id,
        eos_token_id=list(policy.eos_token_ids),
    )
    is_eos = torch.isin(sequences[:, width:], torch.tensor(policy.eos_token_ids, device=sequences.device))
    before_eos = (is_eos.cumsum(dim=1) - is_eos.long() == 0).sum()
    return int(before_eos)


def _run_ours(
    generator: Generator,
    checkpoint: Checkpoint,
    prompts: list[list[int]],
    arguments: argparse.Namespace,
    repeat: int,
) -> int:
    requests = [
        GenerationRequest(
            prompt_token_ids=tuple(prompt),
            seeds=tuple(derive_seed(repeat, index, sample) for sample in range(arguments.group_size)),
        )
        for index, prompt in enumerate(prompts)
    ]
    settings = SamplingSettings(temperature=1.0, max_new_tokens=arguments.max_new_tokens)
    groups = generator.generate(checkpoint, requests, settings)
    return sum(len(completion.token_ids) for group in groups for completion in group)


def _countdown_prompts(policy: LoadedPolicy, num_prompts: int) -> list[list[int]]:
    random = derive_generator(0, "benchmark", "prompts")
    prompts = []
    for _ in range(num_prompts):
        numbers = random.integers(1, 21, size=random.integers(2, 5))
        text = f"{' '.join(map(str, numbers))}>{random.integers(1, 61)}:"
        prompts.append(policy.tokenizer.encode(text, add_special_tokens=False))
    return prompts


def _write_random_policy(folder: Path) -> None:
    tokenizer = build_character_tokenizer("0123456789 +-*/()=>:,abcdefghi")
    model = build_tiny_qwen2(
        tokenizer,
        hidden_size=128,
        num_layers=4,
        num_heads=4,
        intermediate_size=256,
        max_positions=128,
        seed=0,
    )
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings += COMMON_DIRECTION
        embeddings[tokenizer.eos_token_id] += EOS_SHIFT
    write_policy_folder(model, tokenizer, folder)


if __name__ == "__main__":
    main()
