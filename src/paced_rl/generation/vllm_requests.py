"""What vLLM is asked for, in its own words: the same in its Python interface and in the body of `/v1/completions`."""

from typing import Any

from paced_rl.generation.vllm_server_worker import PolicyReload
from paced_rl.types import SamplingSettings

WORKER_EXTENSION = f"{PolicyReload.__module__}.{PolicyReload.__qualname__}"
"""What replaces the weights inside vLLM's workers, offline and in a server."""
LOWEST_TEMPERATURE = 0.01
"""vLLM raises a lower temperature to this without an error; 0 is greedy."""


def sampling_fields(settings: SamplingSettings, *, eos_token_ids: tuple[int, ...]) -> dict[str, Any]:
    """Fields of `vllm.SamplingParams` without the seed, which is each completion's own.

    An engine must run with `logprobs_mode=processed_logprobs`: `logprobs=0` then gives the log-probability of the
    sampled token under the distribution it was drawn from, and of a greedy one that at temperature 1. One request is
    one completion (`n` stays 1): child j of a request with `n` would draw from seed + j, which may be a neighbour's.

    Args:
        settings: of all completions of a call.
        eos_token_ids: the policy's own. They are named as stop tokens and vLLM's idea of the end, which is the
            tokenizer's alone, is switched off. A stop token ends `token_ids`.

    Raises:
        ValueError: vLLM would sample at another temperature.
    """
    if 0 < settings.temperature < LOWEST_TEMPERATURE:
        raise ValueError(
            f"vLLM samples at temperatures of at least {LOWEST_TEMPERATURE}, or greedily at 0; got "
            f"{settings.temperature}: raise rollout.sampling_temperature, or set rollout.backend=transformers"
        )
    return {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "max_tokens": settings.max_new_tokens,
        "logprobs": 0,
        "stop_token_ids": list(eos_token_ids),
        "ignore_eos": True,
    }
