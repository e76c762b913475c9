"""Greedy completions after vLLM's own `reload_weights`, and after the project's; run as a script, since the engine
changes the process that it lives in.

    python vllm_reload.py FIRST_FOLDER SECOND_FOLDER PROMPTS_AS_JSON

The last line printed is JSON: `uncured` and `cured`, each token ids and log-probabilities per prompt.
"""

import json
import sys
from typing import Any

from paced_rl.generation.vllm_requests import WORKER_EXTENSION
from paced_rl.generation.vllm_worker import generate, load_weights, start_engine

FIELDS = {"temperature": 0.0, "max_tokens": 24, "logprobs": 0, "stop_token_ids": [1], "ignore_eos": True}


def completions(engine: Any, prompts: list[list[int]]) -> tuple[list[list[int]], list[list[float]]]:
    rows = [[index, index, 0] for index in range(len(prompts))]
    found = {row: answer for done in generate(engine, FIELDS, prompts, rows) for row, *answer in done}
    return [found[row][0] for row in range(len(prompts))], [found[row][1] for row in range(len(prompts))]


def main() -> None:
    first, second, prompts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    engine = start_engine(
        {
            "model": first,
            "dtype": "float32",
            "enforce_eager": True,
            "kv_cache_memory_bytes": 2**29,
            "logprobs_mode": "processed_logprobs",
            "skip_tokenizer_init": True,
            "worker_extension_cls": WORKER_EXTENSION,
        }
    )
    completions(engine, prompts)
    engine.collective_rpc("reload_weights", kwargs={"weights_path": second})
    engine.reset_prefix_cache()
    uncured = completions(engine, prompts)
    load_weights(engine, second)
    print(json.dumps({"uncured": uncured, "cured": completions(engine, prompts)}))


if __name__ == "__main__":
    main()
