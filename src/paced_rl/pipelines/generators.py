"""From a round's parameters to its generator and to the distribution that rollouts are drawn from."""

from paced_rl.generation import Generator, get_generator
from paced_rl.parameters import PolicyParameters, RolloutParameters
from paced_rl.types import SamplingSettings


def open_generator(rollout: RolloutParameters, policy: PolicyParameters) -> Generator:
    """The generator that these parameters name, the same one in every round of a process."""
    groups = {"vllm": rollout.vllm, "vllm_server": rollout.vllm_server}
    return get_generator(
        rollout.backend,
        device=policy.device,
        dtype=policy.dtype,
        batch_size=rollout.batch_size,
        options=groups[rollout.backend].model_dump() if rollout.backend in groups else None,
    )


def rollout_settings(rollout: RolloutParameters) -> SamplingSettings:
    """What rollouts are drawn from; evaluation has a temperature of its own and cuts no token off."""
    return SamplingSettings(
        temperature=rollout.sampling_temperature,
        max_new_tokens=rollout.max_new_tokens,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
    )
