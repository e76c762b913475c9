"""One round of training: the policy's steps on the chosen objective, and the log-Z head's on the same residual."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from paced_rl.objectives.log_probs import sequence_log_prob
from paced_rl.objectives.log_z_head import LogPartitionHead
from paced_rl.objectives.trajectory_balance import best_log_z
from paced_rl.parameters import TrainingParameters
from paced_rl.training.examples import TrainingExamples
from paced_rl.training.head_targets import head_rows
from paced_rl.training.head_training import HeadRows, NonFiniteLossError, head_step
from paced_rl.training.learning_rate import learning_rate_of_round
from paced_rl.training.packing import PackedBatch, pack_batches
from paced_rl.training.policy_losses import POLICY_LOSSES, LossInputs
from paced_rl.training.row_terms import (
    SamplerWeights,
    advantages,
    flow_log_z,
    kl_weights,
    length_normaliser,
    minibatches,
    sampler_weights,
)
from paced_rl.training.scoring import completion_log_probs, shared_length
from paced_rl.training.step_metrics import StepSums

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """What a round's training changes: the policy, the head and their optimisers, in place."""

    model: "PreTrainedModel"
    pad_token_id: int
    head: LogPartitionHead
    policy_optimizer: torch.optim.Optimizer
    head_optimizer: torch.optim.Optimizer
    parameters: TrainingParameters
    sampling_temperature: float
    max_new_tokens: int
    """Tokens that a completion may have."""
    seed: int
    """Of the minibatch shuffles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _RowTerms:
    """What the losses of one step take from beyond a micro-batch; by row of the whole batch."""

    advantage: Float[np.ndarray, "N"]
    sampler_weights: SamplerWeights | None
    kl_weight: Float[np.ndarray, "N"] | None
    length_normaliser: float | None = None
    group_log_z: Float[np.ndarray, "N"] | None = None
    """log Z of the row's group: under `vargrad` the best for the policy before the step, on the step's rows alone;
    under `gflowrl` the round's; None takes the head's."""


def make_optimizers(
    model: torch.nn.Module, head: LogPartitionHead, parameters: TrainingParameters, *, round_number: int = 1
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """AdamW for the policy, Adam for the head: two learning rates (docs/paper_map.md says why).

    Args:
        model: its parameters that take a gradient are trained.
        head: the log-Z head.
        parameters: of the training.
        round_number: the round whose learning rate the policy gets.
    """
    policy_optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=learning_rate_of_round(parameters, round_number),
        weight_decay=parameters.weight_decay,
        fused=True,
    )
    return policy_optimizer, torch.optim.Adam(head.parameters(), lr=parameters.log_z_learning_rate, fused=True)


def train_round(
    trainer: Trainer, examples: TrainingExamples, *, on_progress: Callable[[int], None] | None = None
) -> list[dict[str, float | int | None]]:
    """Trains policy and head on one round's batch, in place.

    Each minibatch gives the policy one step on its objective and the head one step on the balance residual of the rows
    that count for it; `log_z_epochs − 1` further passes train the head alone, on the same rows and those of the past.

    Returns:
        One row per optimiser step, in order: the columns of `training_metrics` that are known here.

    Raises:
        NonFiniteLossError: names the step and the prompts; the caller's copy on disk is untouched.
    """
    parameters = trainer.parameters
    terms = _RowTerms(
        advantage=advantages(examples, parameters.objective),
        sampler_weights=sampler_weights(examples, parameters),
        kl_weight=kl_weights(examples, parameters),
        group_log_z=flow_log_z(examples, parameters),
    )
    head_weights = examples.head_weights
    if terms.sampler_weights is not None and parameters.importance_correction == "sequence":
        head_weights = head_weights * terms.sampler_weights.values[:, 0]
    metrics: list[dict[str, float | int | None]] = []
    behaviour_sequence = np.array([float(values.sum()) for values in examples.behaviour_log_probs])
    policy_sequence = behaviour_sequence.copy()

    def rows_of_head() -> HeadRows:
        return head_rows(
            examples,
            weights=head_weights,
            normalised_reward=terms.advantage,
            policy_sequence=policy_sequence,
            behaviour_sequence=behaviour_sequence,
            parameters=parameters,
        )

    trainer.model.eval()  # no dropout: the ratio π_θ/π_old is of the two policies, not of two dropout masks
    for epoch in range(parameters.num_epochs):
        for rows in minibatches(examples, parameters, seed=trainer.seed, epoch=epoch):
            sums, gradient_norm = _policy_step(trainer, examples, terms, rows)
            for row, value in sums.per_row.items():
                policy_sequence[row] = value
            log_z_loss = head_step(trainer.head, trainer.head_optimizer, rows_of_head().take(rows))
            step = {
                "epoch": epoch,
                "log_z_loss": log_z_loss,
                "gradient_norm": gradient_norm,
                "learning_rate": float(trainer.policy_optimizer.param_groups[0]["lr"]),
            }
            metrics.append(step | sums.metrics(examples, rows, parameters) | _correction_metrics(terms, rows))
            if on_progress is not None:
                on_progress(len(rows))
    of_further_passes = rows_of_head()
    if examples.past is not None:
        of_further_passes += examples.past
    for _ in range(parameters.log_z_epochs - 1):
        head_step(trainer.head, trainer.head_optimizer, of_further_passes)
    return metrics


def _policy_step(
    trainer: Trainer, examples: TrainingExamples, terms: _RowTerms, rows: np.ndarray
) -> tuple[StepSums, float]:
    """One optimiser step of the policy on the mean loss of `rows`; returns the sums and the norm before clipping."""
    objective = trainer.parameters.objective
    terms = replace(
        terms,
        length_normaliser=length_normaliser(examples, rows, objective=objective, max_new_tokens=trainer.max_new_tokens),
        group_log_z=_group_log_z(trainer, examples, rows) if objective == "vargrad" else terms.group_log_z,
    )
    sums = StepSums()
    trainer.policy_optimizer.zero_grad(set_to_none=True)
    for batch in _pack(trainer, examples, rows):
        _accumulate(trainer, examples, terms, batch, rows[batch.rows], sums, num_rows=len(rows))
    parameters = [p for group in trainer.policy_optimizer.param_groups for p in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, trainer.parameters.max_gradient_norm))
    if not (np.isfinite(norm) and np.isfinite(sums.loss)):
        names = sorted({examples.prompt_ids[i] for i in rows})[:5]
        raise NonFiniteLossError(
            f"policy loss {sums.loss} with gradient norm {norm}: both must be finite. Prompts of this step begin with "
            f"{names}. The previous policy is intact; lower training.learning_rate or training.max_gradient_norm, or "
            f"look at the rows of training_batch and behaviour_log_probs with these prompt ids"
        )
    trainer.policy_optimizer.step()
    return sums, norm


def _pack(trainer: Trainer, examples: TrainingExamples, rows: np.ndarray) -> Iterator[PackedBatch]:
    """The forward passes of these rows; `rows` of a batch count within them."""
    return pack_batches(
        [examples.prompts[i] for i in rows],
        [examples.completions[i] for i in rows],
        max_tokens=trainer.parameters.max_tokens_per_forward,
        max_shared_length=shared_length(trainer.model),
        pad_token_id=trainer.pad_token_id,
        device=trainer.model.device,
    )


def _group_log_z(trainer: Trainer, examples: TrainingExamples, rows: np.ndarray) -> Float[np.ndarray, "N"]:
    """Best log Z of each row's group, for the policy as it is: a forward pass of its own, since a group may be cut."""
    policy_sequence = np.zeros(len(rows))
    with torch.no_grad():
        for batch in _pack(trainer, examples, rows):
            log_probs = completion_log_probs(trainer.model, batch, temperature=trainer.sampling_temperature)
            policy_sequence[batch.rows] = sequence_log_prob(log_probs, batch.completion_mask).double().cpu().numpy()
    log_z = np.full(len(examples.prompts), np.nan)
    log_z[rows] = best_log_z(
        policy_sequence_log_prob=torch.from_numpy(policy_sequence),
        behaviour_sequence_log_prob=torch.tensor([float(examples.behaviour_log_probs[i].sum()) for i in rows]),
        reward=torch.from_numpy(examples.rewards[rows]),
        group_index=torch.from_numpy(examples.group_index[rows]),
        reward_temperature=trainer.parameters.reward_temperature,
    ).numpy()
    return log_z


def _accumulate(
    trainer: Trainer,
    examples: TrainingExamples,
    terms: _RowTerms,
    batch: PackedBatch,
    rows: np.ndarray,
    sums: StepSums,
    *,
    num_rows: int,
) -> None:
    """Forward and backward of one micro-batch; its share of the step's mean loss goes into the gradients."""
    device = trainer.model.device
    is_per_token = trainer.parameters.importance_correction == "token"
    weights = None if terms.sampler_weights is None else _on_device(terms.sampler_weights.values[rows], device)
    reference = examples.reference_log_probs
    inputs = LossInputs(
        policy_log_probs=completion_log_probs(trainer.model, batch, temperature=trainer.sampling_temperature),
        behaviour_log_probs=_pad_log_probs(batch, [examples.behaviour_log_probs[i] for i in rows]),
        completion_mask=batch.completion_mask,
        reward=_on_device(examples.rewards[rows], device),
        advantage=_on_device(terms.advantage[rows], device),
        log_z=_log_z(trainer, examples, terms, rows),
        length_normaliser=terms.length_normaliser,
        token_weight=weights[:, : batch.completion_mask.shape[1]] if weights is not None and is_per_token else None,
        reference_log_probs=None if reference is None else _pad_log_probs(batch, [reference[i] for i in rows]),
        kl_weight=None if terms.kl_weight is None else _on_device(terms.kl_weight[rows], device),
    )
    outputs = POLICY_LOSSES[trainer.parameters.objective](inputs, trainer.parameters)
    if weights is not None and not is_per_token:
        outputs = replace(outputs, loss=outputs.loss * weights[:, 0])
    (outputs.loss.sum() / num_rows).backward()
    sums.add(inputs, outputs, rows, examples.is_fresh[rows])


def _log_z(
    trainer: Trainer, examples: TrainingExamples, terms: _RowTerms, rows: np.ndarray
) -> Float[torch.Tensor, "B"]:
    """Constants: the group's where the step has one, else the head's."""
    device = trainer.model.device
    if terms.group_log_z is not None:
        return _on_device(terms.group_log_z[rows], device)
    with torch.no_grad():
        log_z: torch.Tensor = trainer.head(torch.from_numpy(examples.embeddings[rows]).to(device))
    return log_z


def _on_device(values: Float[np.ndarray, "*shape"], device: torch.device) -> Float[torch.Tensor, "*shape"]:
    return torch.from_numpy(values).to(device, torch.float32)


def _pad_log_probs(batch: PackedBatch, log_probs: list[np.ndarray]) -> Float[torch.Tensor, "B T"]:
    """Per-row log-probabilities laid out like `batch.completion_mask`; 0 outside of it."""
    mask = batch.completion_mask
    values = torch.from_numpy(np.concatenate(log_probs).astype(np.float32)).to(mask.device)
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def _correction_metrics(terms: _RowTerms, rows: np.ndarray) -> dict[str, float | None]:
    if terms.sampler_weights is None:
        return {"mean_importance_correction": None, "capped_correction_fraction": None}
    return terms.sampler_weights.metrics(rows)
