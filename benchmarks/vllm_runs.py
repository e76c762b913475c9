"""VllmGenerator and vLLM's own interface as rows of `benchmarks/generation.py`."""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from paced_rl.generation.vllm_backend import EngineSettings, VllmGenerator, engine_arguments
from paced_rl.generation.vllm_backend import logger as backend_logger
from paced_rl.generation.vllm_engine import EAGER_ENVIRONMENT, ENVIRONMENT
from paced_rl.generation.vllm_requests import sampling_fields
from paced_rl.policies import describe_policy, file_digests
from paced_rl.seeds import derive_seed
from paced_rl.types import Checkpoint, GenerationRequest, SamplingSettings

DIRECT = Path(__file__).with_name("vllm_direct.py")


class VllmRuns:
    """Two engines with the same arguments: the generator's, and one that is asked without it."""

    def __init__(self, checkpoint: Checkpoint, prompts: list[list[int]], arguments: argparse.Namespace) -> None:
        self._checkpoint, self._prompts, self._group_size = checkpoint, prompts, arguments.group_size
        self._settings = SamplingSettings(temperature=1.0, max_new_tokens=arguments.max_new_tokens)
        engine: dict[str, Any] = {
            "dtype": arguments.dtype,
            "batch_size": max(arguments.batch_sizes),
            "settings": EngineSettings(),
        }
        self._generator = VllmGenerator(**engine)
        self._is_wall_clock = arguments.clock == "wall"
        self._direct = subprocess.Popen(
            [sys.executable, str(DIRECT), arguments.clock],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **ENVIRONMENT, **EAGER_ENVIRONMENT},
        )
        fields = sampling_fields(self._settings, eos_token_ids=describe_policy(checkpoint).eos_token_ids)
        start = {
            "arguments": {**engine_arguments(checkpoint, **engine), "skip_tokenizer_init": False},
            "prompts": prompts,
            "group_size": arguments.group_size,
            "fields": fields,
        }
        self._seconds: dict[str, float] = {"start of plain vLLM": self._ask({"start": start})["seconds"]}
        self.runs = {
            "vLLM direct, a request per group": lambda repeat: self._run_direct(repeat, as_groups=True, has_text=True),
            "  the same without text": lambda repeat: self._run_direct(repeat, as_groups=True, has_text=False),
            "  without text, a request per completion": lambda repeat: self._run_direct(
                repeat, as_groups=False, has_text=False
            ),
            "VllmGenerator": self._run_ours,
        }

    def __enter__(self) -> Self:
        began = self.clock()
        self._run_ours(0)
        self._seconds["start of VllmGenerator, and a first call"] = self.clock() - began
        return self

    def clock(self) -> float:
        """Seconds of the wall's clock, or of this process and the generator's engine."""
        if self._is_wall_clock:
            return time.perf_counter()
        engine = self._generator.process_id
        ticks = Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[11:13] if engine else ()
        return time.process_time() + sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def __exit__(self, *_: object) -> None:
        self._generator.close()
        self._direct.communicate()

    def print_seconds(self) -> None:
        """Seconds of the starts, and of a change of weights with and without the reading of every file before it."""
        taken: list[float] = []
        handler = logging.Handler()
        handler.emit = lambda record: taken.append(record.args[-1])  # type: ignore[method-assign, index]
        backend_logger.addHandler(handler)
        backend_logger.setLevel(logging.INFO)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(shutil.copytree(self._checkpoint.folder, Path(scratch) / "policy"))
            with (folder / "model.safetensors").open("r+b") as weights:
                weights.seek(-1, os.SEEK_END)
                last = weights.read(1)
                weights.seek(-1, os.SEEK_END)
                weights.write(bytes([last[0] ^ 1]))
            began = time.perf_counter()
            files = file_digests(folder)
            self._seconds["reading and hashing every file"] = time.perf_counter() - began
            changed = Checkpoint(folder=folder, files=files, metadata={"policy_version": 1})
            request = GenerationRequest(prompt_token_ids=tuple(self._prompts[0]), seeds=(0,))
            for checkpoint in (changed, self._checkpoint, changed):
                self._generator.generate(checkpoint, [request], self._settings)
        self._seconds["new weights in a warm engine"] = min(taken)
        for name, seconds in self._seconds.items():
            print(f"{name:44}{seconds:16.3f} s")

    def _run_ours(self, repeat: int) -> int:
        requests = [
            GenerationRequest(
                prompt_token_ids=tuple(prompt),
                seeds=tuple(derive_seed(repeat, index, sample) for sample in range(self._group_size)),
            )
            for index, prompt in enumerate(self._prompts)
        ]
        groups = self._generator.generate(self._checkpoint, requests, self._settings)
        return sum(len(completion.token_ids) for group in groups for completion in group)

    def _run_direct(self, repeat: int, *, as_groups: bool, has_text: bool) -> tuple[float, int]:
        answer = self._ask({"repeat": repeat, "as_groups": as_groups, "has_text": has_text})
        return answer["seconds"], int(answer["tokens"])

    def _ask(self, message: dict[str, Any]) -> dict[str, float]:
        assert self._direct.stdin is not None
        assert self._direct.stdout is not None
        self._direct.stdin.write(json.dumps(message) + "\n")
        self._direct.stdin.flush()
        answer: dict[str, float] = json.loads(self._direct.stdout.readline())
        return answer
