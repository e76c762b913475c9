"""Rows of a round as sequences in which completions share their prompt, so that a policy reads fewer tokens.

A sequence holds several rows one after the other: `prompt A, completion 1, completion 2, prompt B, completion 3`. A
token looks back at its own piece and, in a completion, at its prompt; positions go on from the end of the prompt. So
every completion token has the log-probability that its row alone would give it, up to rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int

from paced_rl.training.batches import split_microbatches


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """One forward pass: S sequences padded on the right to length L, with B rows and N completion tokens in all."""

    rows: Int[np.ndarray, "B"]
    """Which of the caller's rows these are."""
    token_ids: Int[torch.Tensor, "S L"]
    """Without the last token of each completion, which predicts nothing."""
    position_ids: Int[torch.Tensor, "S L"] | None
    attention_mask: Bool[torch.Tensor, "S 1 L L"] | None
    """True where a token looks. Both are None where every sequence is a single row: a causal model needs neither then,
    and has faster kernels without."""
    predictors: Int[torch.Tensor, "N"]
    """Place in the flattened [S·L] of the token that predicts each completion token, row by row."""
    completion_ids: Int[torch.Tensor, "N"]
    """Completion tokens, the end-of-sequence token included, row by row."""
    completion_mask: Bool[torch.Tensor, "B T"]
    """True on the N completion tokens, which stand on the left; False on the rest of a short row."""


@dataclass(slots=True)
class _Sequence:
    """A sequence that grows by a prompt and then by its completions; lists without another length have its length."""

    rows: list[int] = field(default_factory=list)
    """One per completion."""
    token_ids: list[int] = field(default_factory=list)
    position_ids: list[int] = field(default_factory=list)
    pieces: list[int] = field(default_factory=list)
    """Where the piece of a token begins, which is also the piece's name."""
    prompts: list[int] = field(default_factory=list)
    """Where the prompt of a token's piece begins."""
    predictors: list[int] = field(default_factory=list)
    """One per completion token: the place of the token that predicts it."""
    last_prompt: range = range(0)
    """Places of the prompt that was added last."""

    def add_prompt(self, prompt: Sequence[int]) -> None:
        """Begins the rows of another prompt."""
        begin = len(self.token_ids)
        self.last_prompt = range(begin, begin + len(prompt))
        self._add_piece(prompt, first_position=0)

    def add_completion(self, row: int, completion: Sequence[int]) -> None:
        """Adds a row, whose prompt is the one added last."""
        begin = len(self.token_ids)
        self._add_piece(completion[:-1], first_position=len(self.last_prompt))
        self.predictors += [self.last_prompt[-1], *range(begin, len(self.token_ids))]
        self.rows.append(row)

    def _add_piece(self, tokens: Sequence[int], *, first_position: int) -> None:
        self.pieces += [len(self.token_ids)] * len(tokens)
        self.prompts += [self.last_prompt.start] * len(tokens)
        self.position_ids += range(first_position, first_position + len(tokens))
        self.token_ids += tokens


def pack_batches(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    max_shared_length: int,
    pad_token_id: int,
    device: torch.device,
) -> Iterator[PackedBatch]:
    """The forward passes of these rows.

    Args:
        prompts: token ids of each row, none empty.
        completions: token ids of each row, none empty.
        max_tokens: padded tokens of a pass; a single row that is longer still gets a pass of its own.
        max_shared_length: tokens of a sequence that holds more than one row; 0 gives each row a sequence of its own.

    Yields:
        Batches that together hold every row once, those with the shortest sequences first.
    """
    sequences = _share_sequences(prompts, completions, max_length=min(max_tokens, max_shared_length))
    lengths = np.array([len(sequence.token_ids) for sequence in sequences])
    for part in split_microbatches(lengths, max_tokens=max_tokens):
        yield _pad([sequences[i] for i in part], completions, pad_token_id=pad_token_id, device=device)


def _share_sequences(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, max_length: int
) -> list[_Sequence]:
    """Puts each prompt with its completions into the first sequence with room for them all, longest first.

    Completions that are too long for a common sequence go on in another one, which reads the prompt again.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, prompt_ids in enumerate(prompts):
        groups.setdefault(tuple(np.asarray(prompt_ids).tolist()), []).append(row)
    lengths = {prompt: len(prompt) + sum(len(completions[row]) - 1 for row in groups[prompt]) for prompt in groups}
    sequences: list[_Sequence] = []
    for prompt in sorted(groups, key=lengths.__getitem__, reverse=True):
        sequence = next((s for s in sequences if len(s.token_ids) + lengths[prompt] <= max_length), None)
        if sequence is not None:
            sequence.add_prompt(prompt)
        for row in groups[prompt]:
            completion = np.asarray(completions[row]).tolist()
            if sequence is None or len(sequence.token_ids) + len(completion) - 1 > max_length:
                sequence = _Sequence()
                sequence.add_prompt(prompt)
                sequences.append(sequence)
            sequence.add_completion(row, completion)
    return sequences


def _pad(
    sequences: list[_Sequence], completions: Sequence[Sequence[int]], *, pad_token_id: int, device: torch.device
) -> PackedBatch:
    """One forward pass of these sequences, with the mask and the positions that shared ones need."""
    length = max(len(sequence.token_ids) for sequence in sequences)
    rows = [row for sequence in sequences for row in sequence.rows]

    def on_device(values: list[list[int]], fill: int) -> torch.Tensor:
        padded = np.array([line + [fill] * (length - len(line)) for line in values])
        return torch.from_numpy(padded).to(device)

    token_ids = on_device([sequence.token_ids for sequence in sequences], pad_token_id)
    predictors = [i * length + place for i, sequence in enumerate(sequences) for place in sequence.predictors]
    num_tokens = torch.tensor([len(completions[row]) for row in rows], device=device)
    position_ids = attention_mask = None
    if len(rows) > len(sequences):
        position_ids = on_device([sequence.position_ids for sequence in sequences], 0)
        # Padding is a piece of its own, so that no token looks at nothing, whose softmax would be NaN.
        pieces = on_device([sequence.pieces for sequence in sequences], -1)
        prompts = on_device([sequence.prompts for sequence in sequences], -1)
        attention_mask = (pieces[:, None] == pieces[:, :, None]) | (pieces[:, None] == prompts[:, :, None])
        attention_mask = attention_mask.tril()[:, None]
    return PackedBatch(
        rows=np.array(rows),
        token_ids=token_ids,
        position_ids=position_ids,
        attention_mask=attention_mask,
        predictors=torch.tensor(predictors, device=device),
        completion_ids=torch.from_numpy(np.concatenate([np.asarray(completions[row]) for row in rows])).to(device),
        completion_mask=torch.arange(int(num_tokens.max()), device=device) < num_tokens[:, None],
    )
