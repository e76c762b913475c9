"""Greedy completions of a base with a low-rank adapter on top; run as a script, since the engine changes the process.

    python vllm_lora.py BASE_FOLDER ADAPTER_FOLDER PROMPTS_AS_JSON

The last line printed is JSON: [token ids, log-probabilities] of each prompt.
"""

import json
import sys


def main() -> None:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    base, adapter, prompts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    engine = LLM(
        model=base,
        dtype="float32",
        enforce_eager=True,
        kv_cache_memory_bytes=2**28,
        gpu_memory_utilization=0.1,
        enable_lora=True,
        max_lora_rank=8,
    )
    answers = engine.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts],
        SamplingParams(temperature=0.0, max_tokens=8, logprobs=0),
        lora_request=LoRARequest("trained", 1, adapter),
    )
    found = []
    for answer in answers:
        token_ids = list(answer.outputs[0].token_ids)
        steps = zip(answer.outputs[0].logprobs, token_ids, strict=True)
        found.append([token_ids, [step[token].logprob for step, token in steps]])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
