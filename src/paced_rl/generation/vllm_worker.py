"""The process that vLLM's engine runs in; `vllm_engine` starts it. Nothing heavy is imported before it is asked for.

A process of its own, because the engine changes the one it lives in: it reseeds every generator, takes the signals,
binds threads, and on a CPU fails beside an imported flask. Ending it is also the one sure way to free its memory.

Protocol, see `messages`:

    host → worker   {"start": arguments of vllm.LLM}                  once
    worker → host   {"ready": true}                                   the engine is loaded
    host → worker   {"load": folder}                                  other weights of the same model
    host → worker   {"sleep": true}                                   weights and cache leave the GPU until "load"
    worker → host   {"done": true}                                    after "load" and "sleep"
    host → worker   {"generate": {"fields": …, "prompts": [ids], "rows": [[row, index of prompt, seed]]}}
    worker → host   {"finished": [[row, ids, log-probabilities]]}     any number; an empty list says "still alive"
    worker → host   {"done": true}
    worker → host   {"error": text, "is_memory": whether memory ran out}    instead of any of these; then it ends

Any exception ends the process: an engine in which a reload has failed hangs at the next one.
"""

import socket
import sys
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from paced_rl.generation.messages import ProtocolError, receive, send

SIGN_OF_LIFE_SECONDS = 1.0
MAX_ERROR_CHARS = 2000
MEMORY_ERRORS = (
    "out of memory",
    "can't allocate memory",
    "Available memory on node",
    "No available memory for the cache blocks",
    "larger than the available KV cache memory",
    "Free memory on device",
)
"""What PyTorch and vLLM 0.32.0 (v1/core/kv_cache_utils.py, v1/worker/) say when there is too little; vLLM has no type
of exception for it."""


def main() -> None:
    """Serves the host on the other end of the socket whose descriptor is the first argument, until it hangs up."""
    channel = socket.socket(fileno=int(sys.argv[1]))

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.__excepthook__(kind, error, trace)
        text = f"{kind.__name__}: {error}"[:MAX_ERROR_CHARS]
        send(channel, {"error": text, "is_memory": is_memory_error(error)})

    sys.excepthook = report
    engine = start_engine(receive(channel)["start"])
    send(channel, {"ready": True})
    while True:
        try:
            request = receive(channel)
        except ProtocolError:
            return  # The host is gone, or has closed its end.
        answer(engine, request, channel)


def answer(engine: Any, request: Mapping[str, Any], channel: socket.socket) -> None:
    """Does one thing that the host asks for."""
    if "load" in request:
        load_weights(engine, request["load"])
    elif "sleep" in request:
        # Level 2 drops the weights: the next call brings its own in most rounds, and host memory stays free.
        engine.sleep(level=2)
    else:
        for finished in generate(engine, **request["generate"]):
            send(channel, {"finished": finished})
    send(channel, {"done": True})


def start_engine(arguments: Mapping[str, Any]) -> Any:
    """A `vllm.LLM`."""
    from vllm import LLM

    return LLM(**arguments)


def load_weights(engine: Any, folder: str) -> None:
    """Replaces the weights by those of another version of the same model, and forgets what the old ones computed.

    After this the engine answers as a fresh one would. Of vLLM 0.32.0's own `reload_weights` that is not true: it
    leaves the cache of prompts, and on a CPU more (see `PolicyReload`). A sleeping engine takes its memory back in two
    steps, so that weights come in before the cache takes its share.

    Args:
        engine: a `vllm.LLM` with the worker extension `PolicyReload`.
        folder: in Hugging Face format; checked by the caller, since a failed reload breaks the engine for good.
    """
    is_asleep = engine.llm_engine.is_sleeping()
    if is_asleep:
        engine.wake_up(tags=["weights"])
    engine.collective_rpc("reload_policy", kwargs={"weights_path": folder})
    if is_asleep:
        engine.wake_up(tags=["kv_cache"])
    engine.reset_prefix_cache()


def generate(
    engine: Any, fields: Mapping[str, Any], prompts: list[list[int]], rows: list[list[int]]
) -> Iterator[list[tuple[int, list[int], list[float]]]]:
    """Samples the rows, and yields those that finished since the last yield: number, token ids, log-probabilities.

    Args:
        engine: a `vllm.LLM`.
        fields: of `vllm.SamplingParams`, see `vllm_requests.sampling_fields`.
        prompts: token ids.
        rows: number, index of its prompt, seed.
    """
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input
    from vllm.sampling_params import RequestOutputKind

    for row, prompt, seed in rows:
        parameters = SamplingParams(
            **fields,
            seed=seed,
            detokenize=False,
            flat_logprobs=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,  # nobody else has these; copying them took 7 % of sampling from the starter
        )
        engine.llm_engine.add_request(str(row), tokens_input(prompts[prompt]), parameters)
    last_sign = time.monotonic()
    while engine.llm_engine.has_unfinished_requests():
        finished = [
            (int(output.request_id), list(output.outputs[0].token_ids), list(output.outputs[0].logprobs.logprobs))
            for output in engine.llm_engine.step()
        ]
        if finished or time.monotonic() > last_sign + SIGN_OF_LIFE_SECONDS:
            yield finished
            last_sign = time.monotonic()


def is_memory_error(error: BaseException | None) -> bool:
    """Whether memory that ran out is what an exception, or one that it arose from, is about."""
    while error is not None:
        if isinstance(error, MemoryError) or any(text in str(error) for text in MEMORY_ERRORS):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main()
