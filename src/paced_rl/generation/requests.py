"""What every backend asks of its requests, and how what an engine answers becomes a completion."""

import math
from collections.abc import Sequence

from paced_rl.policies import PolicyDescription
from paced_rl.types import Completion, FinishReason, GenerationRequest, SamplingSettings


def check_requests(
    requests: Sequence[GenerationRequest], settings: SamplingSettings, *, num_positions: int | None
) -> None:
    """Refuses what no engine should see: each would do something of its own with it.

    Args:
        num_positions: tokens that prompt and completion may have together; None where there is no limit.

    Raises:
        ValueError: a setting is out of range, or a prompt is empty or leaves no room for `max_new_tokens`.
    """
    if settings.max_new_tokens < 1 or not 0 <= settings.temperature < float("inf"):
        raise ValueError(f"max_new_tokens must be at least 1 and temperature finite and at least 0; got {settings}")
    if not 0 < settings.top_p <= 1 or settings.top_k < 0:
        raise ValueError(f"top_p must be above 0 and at most 1 and top_k at least 0; got {settings}")
    for index, request in enumerate(requests):
        length = len(request.prompt_token_ids)
        if length == 0:
            raise ValueError(f"request {index} has an empty prompt; a prompt needs at least one token")
        if num_positions is not None and length + settings.max_new_tokens > num_positions:
            raise ValueError(
                f"the prompt of request {index} has {length} tokens; with max_new_tokens={settings.max_new_tokens} it "
                f"may have at most {num_positions - settings.max_new_tokens}, because the policy has {num_positions} "
                "positions. Lower rollout.max_new_tokens or data_preparation.max_prompt_tokens"
            )


def make_completions(
    tokens: Sequence[Sequence[int]], log_probs: Sequence[Sequence[float]], policy: PolicyDescription
) -> list[Completion]:
    """Completions from the token ids and log-probabilities that an engine gave.

    The text comes from the ids and never the other way round.

    Args:
        tokens: one sequence per completion, none empty; an end-of-sequence token, if any, is the last.
        log_probs: nats, one per token.
        policy: whose tokenizer and end-of-sequence tokens these are.

    Raises:
        ValueError: a log-probability is not a finite number.
    """
    if not all(math.isfinite(value) for values in log_probs for value in values):
        raise ValueError(
            "the policy gave logits that are not finite numbers, so nothing can be sampled from it: its weights are "
            "damaged or have diverged in training. Go back to an earlier round, and lower training.learning_rate"
        )
    texts = policy.tokenizer.batch_decode(
        [list(ids) for ids in tokens], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return [
        Completion(
            text=text,
            token_ids=tuple(ids),
            log_probs=tuple(values),
            finish_reason=FinishReason.EOS if ids[-1] in policy.eos_token_ids else FinishReason.LENGTH,
        )
        for text, ids, values in zip(texts, tokens, log_probs, strict=True)
    ]
