"""As much of vLLM as `vllm_worker` uses; its completions are arithmetic on prompt, seed and weights.

What it is told is written to the file FAKE_VLLM_JOURNAL, a line each. FAKE_VLLM_FAULT makes it fail, see `_fail`.
"""

import math
import os
import signal
import sys
import time
import types
from pathlib import Path
from typing import Any

EOS = 1
JOURNAL = Path(os.environ["FAKE_VLLM_JOURNAL"])
FAULT, _, LATER = os.environ.get("FAKE_VLLM_FAULT", "").partition(" ")
"""`NAME`, or `NAME always` for an engine that fails again after it was replaced."""


def note(line: str) -> None:
    with JOURNAL.open("a") as file:
        file.write(line + "\n")


class SamplingParams:
    def __init__(self, **fields: Any) -> None:
        self.fields = fields


class Output:
    def __init__(self, request_id: str, token_ids: list[int], log_probs: list[float]) -> None:
        self.request_id = request_id
        logprobs = types.SimpleNamespace(logprobs=log_probs)
        self.outputs = [types.SimpleNamespace(token_ids=token_ids, logprobs=logprobs)]


class LLM:
    def __init__(self, **arguments: Any) -> None:
        note(f"start {Path(arguments['model']).name}")
        self.llm_engine = self
        self._weights = (Path(arguments["model"]) / "model.safetensors").stat().st_size
        self._waiting: dict[str, tuple[list[int], int]] = {}
        self._is_asleep = False
        self._num_steps = 0
        if FAULT == "no_memory":
            raise ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`")

    def add_request(self, request_id: str, prompt: list[int], parameters: SamplingParams) -> None:
        assert parameters.fields["logprobs"] == 0
        self._waiting[request_id] = (prompt, parameters.fields["seed"])

    def has_unfinished_requests(self) -> bool:
        return bool(self._waiting)

    def step(self) -> list[Output]:
        self._num_steps += 1
        request_id, (prompt, seed) = next(iter(self._waiting.items()))
        output = Output(request_id, [2 + (seed + sum(prompt) + self._weights) % 7, EOS], [-0.5, -0.25])
        if self._num_steps == 3 and FAULT:
            output = self._fail(output)
        del self._waiting[request_id]
        return [output]

    def _fail(self, output: Output) -> Output:
        if LATER != "always" and JOURNAL.read_text().count("start") > 1:
            return output
        if FAULT == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if FAULT == "raise":
            raise RuntimeError("a kernel failed")
        if FAULT == "hang":
            time.sleep(600)
        if FAULT == "twice":
            output.request_id = "0"
        if FAULT == "nan":
            output.outputs[0].logprobs.logprobs = [math.nan, 0.0]
        return output

    def collective_rpc(self, method: str, kwargs: dict[str, str]) -> None:
        folder = Path(kwargs["weights_path"])
        note(f"{method} {folder.name}")
        self._weights = (folder / "model.safetensors").stat().st_size

    def reset_prefix_cache(self) -> None:
        note("reset_prefix_cache")

    def is_sleeping(self) -> bool:
        return self._is_asleep

    def sleep(self, level: int) -> None:
        note(f"sleep {level}")
        if FAULT == "no_sleep":
            raise RuntimeError("nothing to free")
        self._is_asleep = True

    def wake_up(self, tags: list[str]) -> None:
        note(f"wake_up {tags[0]}")
        self._is_asleep = "kv_cache" not in tags


sys.modules["vllm.inputs"] = types.ModuleType("vllm.inputs")
sys.modules["vllm.inputs.engine"] = types.SimpleNamespace(tokens_input=lambda ids: ids)  # type: ignore[assignment]
kinds = types.SimpleNamespace(FINAL_ONLY=2)
sys.modules["vllm.sampling_params"] = types.SimpleNamespace(RequestOutputKind=kinds)  # type: ignore[assignment]
