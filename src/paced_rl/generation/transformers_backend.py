"""Sampling with transformers: a decode loop in which every prompt is read once and finished completions leave.

`benchmarks/generation.py` measures it beside `model.generate`. Two things were tried on a policy of the starter's
size and did not pay: a preallocated key-value cache instead of transformers' growing one (4 % faster to 16 % slower,
by the step it grows in), and dropping finished completions only when a share of the batch is done instead of at every
step (no gain at a tenth, a loss of 8 % at a third).

Reproducibility: a completion is a function of prompt, policy, settings and seed, up to rounding. Other requests or
another batch size change the order in which matrix products add up, and with it the last digits of the logits. The
tokens stay the same unless a uniform number falls within that rounding of the boundary between two tokens (greedy:
unless two logits tie within it); from there on the completion is another draw from the same distribution. Measured on
a random policy of the starter's size with logits up to 24, batch size 512 against 33 and 5: in float32, 1 of 2,048
completions (18,165 tokens) differed, log-probabilities of the others by at most 2e-5; in bfloat16, up to 76 of 512
differed, and 0.12. The same requests under the same batch size repeat exactly.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from transformers import DynamicCache

from paced_rl.generation.requests import check_requests, make_completions
from paced_rl.generation.sampling import draw_uniforms, sample_tokens
from paced_rl.policies import LoadedPolicy, open_policy
from paced_rl.types import Checkpoint, Completion, GenerationRequest, SamplingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One completion to be drawn, and where it belongs."""

    prompt_token_ids: tuple[int, ...]
    seed: int
    request_index: int
    sample_index: int


class TransformersGenerator:
    """Samples on a PyTorch device; the policy is the one that `open_policy` keeps for the whole process."""

    def __init__(self, *, device: str, dtype: str, batch_size: int) -> None:
        """Loads nothing yet.

        Args:
            device: PyTorch device, e.g. `cpu` or `cuda:0`.
            dtype: of weights and forward pass, `float32` or `bfloat16`; log-probabilities are float32 either way.
            batch_size: completions decoded at once; changes memory and speed, and results by rounding only (see above).

        Raises:
            ValueError: batch_size is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}; set rollout.batch_size")
        self._device = device
        self._dtype = dtype
        self._batch_size = batch_size

    def generate(
        self,
        checkpoint: Checkpoint,
        requests: Sequence[GenerationRequest],
        settings: SamplingSettings,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[tuple[Completion, ...]]:
        """See `paced_rl.generation.protocol.Generator.generate`.

        Raises:
            ValueError: a setting is out of range, a prompt is empty or too long, or the policy's logits are not finite.
        """
        if not requests:
            return []
        policy = open_policy(checkpoint, device=self._device, dtype=self._dtype)
        check_requests(requests, settings, num_positions=policy.description.num_positions)
        report = on_progress or (lambda num_finished: None)
        completions: dict[tuple[int, int], Completion] = {}
        for rows in _batches(requests, self._batch_size):
            for row, completion in zip(rows, _complete(policy, rows, settings, report), strict=True):
                completions[row.request_index, row.sample_index] = completion
        return [
            tuple(completions[request_index, sample_index] for sample_index in range(len(request.seeds)))
            for request_index, request in enumerate(requests)
        ]

    def close(self) -> None:
        """Nothing to end: the loaded policy is shared with training and evaluation, and `open_policy` keeps it."""


def _batches(requests: Sequence[GenerationRequest], batch_size: int) -> Iterator[list[_Row]]:
    """Completions with prompts of like length together, so that little is padded, and equal prompts side by side."""
    rows = [
        _Row(prompt_token_ids=request.prompt_token_ids, seed=seed, request_index=index, sample_index=sample_index)
        for index, request in enumerate(requests)
        for sample_index, seed in enumerate(request.seeds)
    ]
    rows.sort(key=lambda row: (len(row.prompt_token_ids), row.prompt_token_ids))
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def _complete(
    policy: LoadedPolicy, rows: list[_Row], settings: SamplingSettings, on_progress: Callable[[int], None]
) -> list[Completion]:
    """Completions of one batch, in the order of its rows."""
    token_ids, log_probs, lengths = _decode(policy, rows, settings, on_progress)
    rows_of = zip(token_ids, log_probs, lengths, strict=True)
    sequences, values = zip(*((ids[:n].tolist(), row[:n].tolist()) for ids, row, n in rows_of), strict=True)
    return make_completions(sequences, values, policy.description)


@dataclass(slots=True, kw_only=True)
class _Live:
    """The completions of a batch that are still growing; place i of every tensor and of the cache is the same one."""

    row: torch.Tensor
    """[places]; which row of the batch."""
    positions: torch.Tensor
    """[places, 1]; position of the next token, padding not counted."""
    attention_mask: torch.Tensor | None
    """[places, prompt width + max_new_tokens] bool; False at the padding on the left, True in columns not reached yet.
    None where nothing is padded, which spares transformers the making of a mask at every step."""
    num_columns: int
    """Columns of the cache that are filled; the same for every place, thanks to the padding."""
    cache: DynamicCache

    def keep(self, places: torch.Tensor) -> None:
        """Forgets all but the given places."""
        self.row = self.row[places]
        self.positions = self.positions[places]
        if self.attention_mask is not None:
            self.attention_mask = self.attention_mask[places]
        _reorder(self.cache, places)

    def read(self, policy: LoadedPolicy, tokens: torch.Tensor) -> torch.Tensor:
        """Appends one token [places] to each completion and returns the logits [places, vocabulary] of the next."""
        self.num_columns += 1
        logits = policy.model(
            input_ids=tokens[:, None],
            attention_mask=None if self.attention_mask is None else self.attention_mask[:, : self.num_columns],
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        self.positions = self.positions + 1
        return logits


@torch.inference_mode()
def _decode(
    policy: LoadedPolicy, rows: list[_Row], settings: SamplingSettings, on_progress: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids [rows, max_new_tokens], their log-probabilities, and the number of tokens of each row [rows].

    What lies behind a row's last token is 0.
    """
    num_steps, device = settings.max_new_tokens, policy.model.device
    eos_token_ids = torch.tensor(policy.eos_token_ids, device=device)
    uniforms = torch.from_numpy(draw_uniforms([row.seed for row in rows], num_steps)).to(device)
    token_ids = torch.zeros(len(rows), num_steps, dtype=torch.long, device=device)
    log_probs = torch.zeros(len(rows), num_steps, device=device)
    lengths = np.full(len(rows), num_steps)
    live, logits = _prefill(policy, rows, num_steps)
    num_live = len(rows)
    for step in range(num_steps):
        tokens, token_log_probs = sample_tokens(
            logits, settings.temperature, uniforms[live.row, step], top_k=settings.top_k, top_p=settings.top_p
        )
        token_ids[live.row, step] = tokens
        log_probs[live.row, step] = token_log_probs
        finished = torch.isin(tokens, eos_token_ids)
        num_finished = int(finished.sum())
        if num_finished:
            lengths[live.row[finished].cpu().numpy()] = step + 1
            on_progress(num_finished)
        num_live = len(tokens) - num_finished
        if num_live == 0 or step + 1 == num_steps:
            break
        if num_finished:
            places = (~finished).nonzero().squeeze(1)
            live.keep(places)
            tokens = tokens[places]
        logits = live.read(policy, tokens)
    if num_live:
        on_progress(num_live)
    return token_ids.cpu().numpy(), log_probs.cpu().numpy(), lengths


def _prefill(policy: LoadedPolicy, rows: list[_Row], num_steps: int) -> tuple[_Live, torch.Tensor]:
    """The state before the first token and its logits [rows, vocabulary]; each distinct prompt is read once."""
    prompts = list(dict.fromkeys(row.prompt_token_ids for row in rows))
    width, device = max(len(prompt) for prompt in prompts), policy.model.device
    # Padded on the left, so that every row's next token goes to the same column of the cache.
    input_ids = torch.tensor([[policy.pad_token_id] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    lengths = torch.tensor([[len(prompt)] for prompt in prompts])
    columns = torch.arange(width + num_steps)
    attention_mask = (columns >= width - lengths).to(device)
    positions = (columns[:width] - (width - lengths)).clamp(min=0).to(device)
    cache = DynamicCache(config=policy.model.config)
    logits = policy.model(
        input_ids=input_ids.to(device),
        attention_mask=attention_mask[:, :width],
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,  # the prompt's other logits are the largest tensor of the whole pass, and not needed
    ).logits[:, -1]
    place = {prompt: index for index, prompt in enumerate(prompts)}
    source = torch.tensor([place[row.prompt_token_ids] for row in rows], device=device)
    _reorder(cache, source)
    live = _Live(
        row=torch.arange(len(rows), device=device),
        positions=lengths.to(device)[source],
        attention_mask=attention_mask[source] if bool((lengths < width).any()) else None,
        num_columns=width,
        cache=cache,
    )
    return live, logits[source]


def _reorder(cache: DynamicCache, rows: torch.Tensor) -> None:
    """Makes row i of the cache what row `rows[i]` was; the one such method that every kind of cache layer has."""
    cache.reorder_cache(cast("torch.LongTensor", rows))
