"""Completions of the scheduled prompts."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from paced_rl.parameters import PolicyParameters, RolloutParameters
from paced_rl.progress import progress_bar
from paced_rl.schemas import ROLLOUTS
from paced_rl.seeds import derive_seed
from paced_rl.types import Checkpoint, GenerationRequest


def sample_rollouts(
    schedule: pd.DataFrame,
    prompts: pd.DataFrame,
    behaviour_policy: Checkpoint,
    rollout: RolloutParameters,
    policy: PolicyParameters,
    round_number: int,
    seed: int,
) -> pd.DataFrame:
    """`group_size` completions per scheduled prompt, each on a seed of its own."""
    return sample_completions(
        schedule["prompt_id"].to_list(),
        prompts,
        behaviour_policy,
        rollout=rollout,
        policy=policy,
        num_samples=rollout.group_size,
        stream="rollout",
        round_number=round_number,
        seed=seed,
    )


def sample_completions(
    prompt_ids: Sequence[str],
    prompts: pd.DataFrame,
    behaviour_policy: Checkpoint,
    *,
    rollout: RolloutParameters,
    policy: PolicyParameters,
    num_samples: int,
    stream: str,
    round_number: int,
    seed: int,
) -> pd.DataFrame:
    """`num_samples` completions per prompt, in that order, each on a seed of its own in the stream of that name."""
    from paced_rl.pipelines.generators import open_generator, rollout_settings
    from paced_rl.policies import deterministic_algorithms

    token_ids = prompts.set_index("prompt_id")["token_ids"]
    requests = [
        GenerationRequest(
            prompt_token_ids=tuple(int(token) for token in token_ids[prompt_id]),
            seeds=tuple(derive_seed(seed, stream, round_number, prompt_id, index) for index in range(num_samples)),
        )
        for prompt_id in prompt_ids
    ]
    generator, settings = open_generator(rollout, policy), rollout_settings(rollout)
    num_completions = len(requests) * num_samples
    with progress_bar(stream, num_completions) as advance, deterministic_algorithms(policy.is_deterministic):
        groups = generator.generate(behaviour_policy, requests, settings, on_progress=advance)
    rows: list[dict[str, Any]] = []
    for prompt_id, request, group in zip(prompt_ids, requests, groups, strict=True):
        for index, (rollout_seed, completion) in enumerate(zip(request.seeds, group, strict=True)):
            rows.append(
                {
                    "rollout_id": f"{round_number:04d}-{prompt_id}-{index:03d}",
                    "prompt_id": prompt_id,
                    "sample_index": index,
                    "policy_version": behaviour_policy.policy_version,
                    "seed": rollout_seed,
                    "completion": completion.text,
                    "completion_token_ids": completion.token_ids,
                    "sampler_log_probs": completion.log_probs,
                    "num_tokens": len(completion.token_ids),
                    "finish_reason": str(completion.finish_reason),
                    "sampling_temperature": rollout.sampling_temperature,
                }
            )
    return pd.DataFrame(rows, columns=ROLLOUTS.names)
