"""What every generation backend offers: completions of prompts under one checkpoint."""

from collections.abc import Callable, Sequence
from typing import Protocol

from paced_rl.types import Checkpoint, Completion, GenerationRequest, SamplingSettings


class Generator(Protocol):
    """Samples completions. It is given a checkpoint and not a model, so an engine may load the folder on its own terms.

    A generator may keep a checkpoint loaded between calls; weights are told apart by the hashes in its manifest.
    """

    def generate(
        self,
        checkpoint: Checkpoint,
        requests: Sequence[GenerationRequest],
        settings: SamplingSettings,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[tuple[Completion, ...]]:
        """One tuple of completions per request, in the order of the requests, each in the order of its seeds.

        A completion depends on nothing but prompt, policy, settings and seed: not on its neighbours, their number or
        their order, as far as the backend's arithmetic allows (each backend says how far).

        Args:
            checkpoint: the policy to sample from; a verified folder in Hugging Face format.
            requests: may be empty; a request may have no seeds.
            settings: temperature 0 is greedy. The log-probabilities of a greedy completion are those at temperature 1,
                since the greedy distribution itself gives every token it takes the log-probability 0.
            on_progress: called with the number of completions that finished since the last call.

        Raises:
            ValueError: a prompt is empty, or leaves no room for `max_new_tokens` in the model's context.
        """
        ...

    def close(self) -> None:
        """Ends what the generator alone holds: an engine, a child process. Used again, it starts anew."""
        ...
