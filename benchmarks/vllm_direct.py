"""vLLM's own interface and nothing around it, for `benchmarks/generation.py --vllm`, which starts this as a child.

Reads requests as JSON from standard input, a line each, and answers with a line of JSON each:

    {"start": {"arguments": of vllm.LLM, "prompts": [token ids], "group_size": …, "fields": of SamplingParams}}
    {"repeat": number, "as_groups": whether a request is a prompt with n completions, or one completion,
     "has_text": whether completions are decoded, as they are by default}

The answer to the first is {"seconds": …}, to the others {"seconds": …, "tokens": …}; seconds are
of the wall's clock, or of this process's with the argument `cpu`.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Answers until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # vLLM prints
    clock = time.process_time if sys.argv[1:] == ["cpu"] else time.perf_counter
    start = json.loads(sys.stdin.readline())["start"]
    began = clock()
    from vllm import LLM

    engine = LLM(**start["arguments"])
    _answer(answers, {"seconds": clock() - began})
    for line in sys.stdin:
        _answer(answers, _run(engine, start, clock, **json.loads(line)))


def _answer(stream: Any, message: dict[str, float]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def _run(
    engine: Any, start: dict[str, Any], clock: Callable[[], float], *, repeat: int, as_groups: bool, has_text: bool
) -> dict[str, float]:
    from vllm import SamplingParams

    size = start["group_size"]
    fields = start["fields"] | ({} if has_text else {"detokenize": False, "flat_logprobs": True})
    prompts, parameters = [], []
    for index, prompt in enumerate(start["prompts"]):
        seed = 1_000_000 * repeat + 1_000 * index
        for number in range(1 if as_groups else size):
            prompts.append({"prompt_token_ids": prompt})
            parameters.append(SamplingParams(n=size if as_groups else 1, seed=seed + number, **fields))
    began = clock()
    outputs = engine.generate(prompts, parameters, use_tqdm=False)
    tokens = sum(len(completion.token_ids) for output in outputs for completion in output.outputs)
    return {"seconds": clock() - began, "tokens": tokens}


if __name__ == "__main__":
    main()
