"""One round of training: the policy's steps on the chosen objective, and the log-Z head's on the same residual."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from paced_rl.objectives.grpo import group_advantage
from paced_rl.objectives.log_probs import sequence_log_prob
from paced_rl.objectives.log_z_head import LogPartitionHead
from paced_rl.parameters import TrainingParameters
from paced_rl.training.batches import split_minibatches
from paced_rl.training.head_training import HeadRows, NonFiniteLossError, head_step
from paced_rl.training.packing import PackedBatch, pack_batches
from paced_rl.training.policy_losses import POLICY_LOSSES, LossInputs, LossOutputs
from paced_rl.training.scoring import completion_log_probs, shared_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADVANTAGE_EPSILON = 1e-4
"""Added to a group's standard deviation, in units of the reward; TRL's value, so that `grpo` compares with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingExamples:
    """The rows of a round's batch, N completions over P prompts."""

    prompt_ids: list[str]
    """[N] for messages."""
    prompts: list[np.ndarray]
    """[N] prompt token ids."""
    completions: list[np.ndarray]
    """[N] completion token ids."""
    behaviour_log_probs: list[np.ndarray]
    """[N] log π_old per completion token, nats."""
    rewards: Float[np.ndarray, "N"]
    group_index: Int[np.ndarray, "N"]
    """Rows of one prompt's fresh group share a number."""
    is_fresh: Bool[np.ndarray, "N"]
    """False on replayed rows: they train the policy and not the head, whose log Z correct-only replay would pull up."""
    head_weights: Float[np.ndarray, "N"]
    """Weight of a row in the head's loss; 0 on replayed rows."""
    embeddings: Float[np.ndarray, "N E"]
    """Prompt embedding of each row."""
    past: HeadRows | None = None
    """Groups of earlier rounds, for the head alone."""


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
    seed: int
    """Of the minibatch shuffles."""


@dataclass(slots=True, kw_only=True)
class _StepSums:
    """Sums over the micro-batches of one optimiser step."""

    loss: float = 0.0
    residual: float = 0.0
    clipped: float = 0.0
    log_ratio: float = 0.0
    num_fresh: int = 0
    per_row: dict[int, float] = field(default_factory=dict)
    """Row → log π_θ of its completion, before the step."""


def make_optimizers(
    model: torch.nn.Module, head: LogPartitionHead, parameters: TrainingParameters
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """AdamW for the policy, Adam for the head: two learning rates (docs/paper_map.md says why)."""
    policy_optimizer = torch.optim.AdamW(
        model.parameters(), lr=parameters.learning_rate, weight_decay=parameters.weight_decay, fused=True
    )
    return policy_optimizer, torch.optim.Adam(head.parameters(), lr=parameters.log_z_learning_rate, fused=True)


def train_round(
    trainer: Trainer, examples: TrainingExamples, *, on_progress: Callable[[int], None] | None = None
) -> list[dict[str, float | int | None]]:
    """Trains policy and head on one round's batch, in place.

    Each minibatch gives the policy one step on its objective and the head one step on the trajectory-balance residual
    of the fresh rows; `log_z_epochs − 1` further passes train the head alone, on the same rows and those of the past.

    Returns:
        One row per optimiser step, in order: the columns of `training_metrics` that are known here.

    Raises:
        NonFiniteLossError: names the step and the prompts; the caller's copy on disk is untouched.
    """
    parameters = trainer.parameters
    advantage = _advantages(examples)
    metrics: list[dict[str, float | int | None]] = []
    behaviour_sequence = np.array([float(values.sum()) for values in examples.behaviour_log_probs])
    policy_sequence = behaviour_sequence.copy()
    trainer.model.eval()  # no dropout: the ratio π_θ/π_old is of the two policies, not of two dropout masks
    for epoch in range(parameters.num_epochs):
        for rows in split_minibatches(
            len(examples.prompts), parameters.num_minibatches, seed=trainer.seed, epoch=epoch
        ):
            sums, gradient_norm = _policy_step(trainer, examples, advantage, rows)
            for row, value in sums.per_row.items():
                policy_sequence[row] = value
            fresh = _fresh_rows(examples, behaviour_sequence - policy_sequence, parameters.reward_temperature)
            log_z_loss = head_step(trainer.head, trainer.head_optimizer, fresh.take(rows))
            metrics.append(_step_metrics(trainer, examples, rows, sums, gradient_norm, log_z_loss, epoch))
            if on_progress is not None:
                on_progress(len(rows))
    head_rows = _fresh_rows(examples, behaviour_sequence - policy_sequence, parameters.reward_temperature)
    if examples.past is not None:
        head_rows += examples.past
    for _ in range(parameters.log_z_epochs - 1):
        head_step(trainer.head, trainer.head_optimizer, head_rows)
    return metrics


def _advantages(examples: TrainingExamples) -> Float[np.ndarray, "N"]:
    """Group-normalised advantage of the fresh rows; 0 on replayed ones, which have no group."""
    advantage = np.zeros(len(examples.prompts))
    fresh = np.flatnonzero(examples.is_fresh)
    if len(fresh):
        groups = torch.from_numpy(examples.group_index[fresh])
        advantage[fresh] = group_advantage(
            torch.from_numpy(examples.rewards[fresh]), groups, epsilon=ADVANTAGE_EPSILON
        ).numpy()
    return advantage


def _policy_step(
    trainer: Trainer, examples: TrainingExamples, advantage: Float[np.ndarray, "N"], rows: np.ndarray
) -> tuple[_StepSums, float]:
    """One optimiser step of the policy on the mean loss of `rows`; returns the sums and the norm before clipping."""
    sums = _StepSums()
    trainer.policy_optimizer.zero_grad(set_to_none=True)
    batches = pack_batches(
        [examples.prompts[i] for i in rows],
        [examples.completions[i] for i in rows],
        max_tokens=trainer.parameters.max_tokens_per_forward,
        max_shared_length=shared_length(trainer.model),
        pad_token_id=trainer.pad_token_id,
        device=trainer.model.device,
    )
    for batch in batches:
        _accumulate(trainer, examples, advantage, batch, rows[batch.rows], sums, num_rows=len(rows))
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


def _accumulate(
    trainer: Trainer,
    examples: TrainingExamples,
    advantage: Float[np.ndarray, "N"],
    batch: PackedBatch,
    rows: np.ndarray,
    sums: _StepSums,
    *,
    num_rows: int,
) -> None:
    """Forward and backward of one micro-batch; its share of the step's mean loss goes into the gradients."""
    device = trainer.model.device
    with torch.no_grad():
        log_z = trainer.head(torch.from_numpy(examples.embeddings[rows]).to(device))
    inputs = LossInputs(
        policy_log_probs=completion_log_probs(trainer.model, batch, temperature=trainer.sampling_temperature),
        behaviour_log_probs=_pad_log_probs(batch, [examples.behaviour_log_probs[i] for i in rows]),
        completion_mask=batch.completion_mask,
        reward=torch.from_numpy(examples.rewards[rows]).to(device, torch.float32),
        advantage=torch.from_numpy(advantage[rows]).to(device, torch.float32),
        log_z=log_z,
    )
    outputs = POLICY_LOSSES[trainer.parameters.objective](inputs, trainer.parameters)
    (outputs.loss.sum() / num_rows).backward()
    _add_to_sums(sums, inputs, outputs, rows, examples.is_fresh[rows])


def _pad_log_probs(batch: PackedBatch, log_probs: list[np.ndarray]) -> Float[torch.Tensor, "B T"]:
    """Per-row log-probabilities laid out like `batch.completion_mask`; 0 outside of it."""
    mask = batch.completion_mask
    values = torch.from_numpy(np.concatenate(log_probs).astype(np.float32)).to(mask.device)
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def _add_to_sums(
    sums: _StepSums, inputs: LossInputs, outputs: LossOutputs, rows: np.ndarray, is_fresh: np.ndarray
) -> None:
    mask = inputs.completion_mask
    policy = sequence_log_prob(inputs.policy_log_probs.detach(), mask).cpu().numpy().astype(np.float64)
    behaviour = sequence_log_prob(inputs.behaviour_log_probs, mask).cpu().numpy().astype(np.float64)
    sums.loss += float(outputs.loss.detach().sum())
    sums.residual += float(outputs.residual.sum()) if outputs.residual is not None else 0.0
    sums.clipped += float(outputs.clipped_fraction) * int(mask.sum()) if outputs.clipped_fraction is not None else 0.0
    sums.log_ratio += float((behaviour - policy)[is_fresh].sum())
    sums.num_fresh += int(is_fresh.sum())
    sums.per_row.update(zip(rows.tolist(), policy.tolist(), strict=True))


def _fresh_rows(examples: TrainingExamples, log_ratio: Float[np.ndarray, "N"], reward_temperature: float) -> HeadRows:
    """What each completion of the batch asks of the head; `log_ratio` is log π_old − log π_θ of the completion."""
    return HeadRows(
        embeddings=examples.embeddings,
        targets=log_ratio + examples.rewards / reward_temperature,
        weights=examples.head_weights,
    )


def _step_metrics(
    trainer: Trainer,
    examples: TrainingExamples,
    rows: np.ndarray,
    sums: _StepSums,
    gradient_norm: float,
    log_z_loss: float,
    epoch: int,
) -> dict[str, float | int | None]:
    is_paced = trainer.parameters.objective == "paced"
    num_tokens = int(sum(len(examples.completions[i]) for i in rows))
    return {
        "epoch": epoch,
        "num_completions": len(rows),
        "num_replayed": int((~examples.is_fresh[rows]).sum()),
        "num_tokens": num_tokens,
        "policy_loss": sums.loss / len(rows),
        "log_z_loss": log_z_loss,
        "gradient_norm": gradient_norm,
        "mean_residual": sums.residual / len(rows) if is_paced else None,
        "kl_behaviour_policy": sums.log_ratio / max(1, sums.num_fresh),
        "clip_fraction": None if is_paced else sums.clipped / num_tokens,
    }
