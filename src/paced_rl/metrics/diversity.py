"""Whether the policy still finds different solutions."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def distinct_correct_answers(
    prompt_ids: Sequence[str], rewards: Sequence[float | None], extracted_answers: Sequence[str | None]
) -> float:
    """Mean number of different correct answers, over the prompts that have at least one.

    1 where every solved prompt is always solved in the same way; it grows with the number of samples, so only figures
    of one group size compare.

    Args:
        prompt_ids: one per completion.
        rewards: one per completion; correct is exactly 1. None and NaN mean the verifier failed.
        extracted_answers: the verifier's canonical form, one per completion. Correct completions without one count as
            one answer of their prompt.

    Returns:
        Answers per solved prompt, at least 1; NaN where no prompt is solved.

    Raises:
        ValueError: the three differ in length.
    """
    if not len(prompt_ids) == len(rewards) == len(extracted_answers):
        raise ValueError(
            f"distinct_correct_answers: {len(prompt_ids)} prompt_ids, {len(rewards)} rewards and "
            f"{len(extracted_answers)} extracted_answers, must be as many: one of each per completion"
        )
    answers_of_prompt: dict[str, set[str | None]] = defaultdict(set)
    for prompt_id, reward, answer in zip(prompt_ids, rewards, extracted_answers, strict=True):
        if reward == 1:
            # A table may hand a missing answer over as NaN, which no set recognises as the same one.
            answers_of_prompt[prompt_id].add(answer if isinstance(answer, str) else None)
    if not answers_of_prompt:
        return float("nan")
    return sum(len(answers) for answers in answers_of_prompt.values()) / len(answers_of_prompt)


def pass_at_k_slope(pass_at_k: Float[np.ndarray, "*B K"]) -> Float[np.ndarray, "*B"]:
    """Least-squares slope of pass@k in ln k: how much is gained each time that the samples are e times as many.

    A policy that answers a prompt always alike has slope 0: its pass@k is its pass@1. Of two policies of one pass@1 the
    one with the larger slope solves more prompts somehow.

    Args:
        pass_at_k: pass@1 … pass@K.

    Returns:
        The slope; NaN where K is 1.
    """
    logarithm = np.log(np.arange(1, pass_at_k.shape[-1] + 1))
    centred = logarithm - logarithm.mean()
    spread = float(np.sum(centred**2))
    return np.sum(pass_at_k * centred, axis=-1) / (spread if spread > 0 else np.nan)
