"""Completions from a script instead of a model, for tests and demonstrations of everything around sampling."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from paced_rl.policies import open_policy
from paced_rl.types import Checkpoint, Completion, FinishReason, GenerationRequest, SamplingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ScriptedGenerator:
    """Answers what a function says. Not a policy: every log-probability is 0, and the temperature is not read.

    The checkpoint gives the tokenizer and the end-of-sequence token, so token ids are valid ones of its model.
    """

    def __init__(self, script: Callable[[tuple[int, ...], int], str]) -> None:
        """`script(prompt_token_ids, seed)` returns the text of one completion."""
        self._script = script

    def generate(
        self,
        checkpoint: Checkpoint,
        requests: Sequence[GenerationRequest],
        settings: SamplingSettings,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[tuple[Completion, ...]]:
        """See `paced_rl.generation.protocol.Generator.generate`; progress is reported once per request."""
        if not requests:
            return []
        policy = open_policy(checkpoint, device="cpu", dtype="float32")
        groups = []
        for request in requests:
            groups.append(
                tuple(
                    _complete(
                        self._script(request.prompt_token_ids, seed),
                        policy.tokenizer,
                        eos_token_id=policy.eos_token_ids[0],
                        max_new_tokens=settings.max_new_tokens,
                    )
                    for seed in request.seeds
                )
            )
            if on_progress is not None:
                on_progress(len(request.seeds))
        return groups

    def close(self) -> None:
        """Nothing to end."""


def _complete(text: str, tokenizer: "PreTrainedTokenizerBase", *, eos_token_id: int, max_new_tokens: int) -> Completion:
    token_ids = [*tokenizer.encode(text, add_special_tokens=False), eos_token_id]
    is_cut = len(token_ids) > max_new_tokens
    token_ids = token_ids[:max_new_tokens]
    return Completion(
        # Decoded, not the script's own text: what is cut, or what the tokenizer does not know, is not in the tokens.
        text=str(tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)),
        token_ids=tuple(token_ids),
        log_probs=(0.0,) * len(token_ids),
        finish_reason=FinishReason.LENGTH if is_cut else FinishReason.EOS,
    )
