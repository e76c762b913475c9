"""A round of training as the papers write it: one completion and one token at a time, plain sums."""

import math

import numpy as np
import torch
from tiny_training import MAX_NEW_TOKENS, log_probs_alone

from paced_rl.training.examples import TrainingExamples
from paced_rl.training.row_terms import ADVANTAGE_EPSILON, minibatches
from paced_rl.training.trainer import Trainer


def siblings_of(examples: TrainingExamples, row: int) -> list[int]:
    """Fresh rows of the same prompt, the row itself among them."""
    return [
        i
        for i in range(len(examples.prompts))
        if examples.is_fresh[i] and examples.group_index[i] == examples.group_index[row]
    ]


def advantage_by_hand(examples: TrainingExamples, row: int, objective: str) -> float:
    """0 for replayed rows, and under `dapo` for truncated ones."""
    if not examples.is_fresh[row] or (objective == "dapo" and examples.is_truncated[row]):
        return 0.0
    reward = float(examples.rewards[row])
    rewards = [float(examples.rewards[i]) for i in siblings_of(examples, row)]
    mean = sum(rewards) / len(rewards)
    if objective == "rloo":
        return reward - (sum(rewards) - reward) / (len(rewards) - 1)
    if objective == "dr_grpo":
        return reward - mean
    variance = sum((other - mean) ** 2 for other in rewards) / (len(rewards) - 1)
    return (reward - mean) / (math.sqrt(variance) + ADVANTAGE_EPSILON)


def correction_by_hand(trainer: Trainer, examples: TrainingExamples, row: int) -> list[float]:
    """Weight of each token of the completion."""
    mode, cap = trainer.parameters.importance_correction, trainer.parameters.importance_cap
    ours, theirs = examples.behaviour_log_probs[row].tolist(), examples.sampler_log_probs[row].tolist()
    if mode == "off" or not examples.is_fresh[row]:
        return [1.0] * len(ours)
    if mode == "sequence":
        return [min(math.exp(sum(ours) - sum(theirs)), cap)] * len(ours)
    return [min(math.exp(a - b), cap) for a, b in zip(ours, theirs, strict=True)]


def log_z_by_hand(trainer: Trainer, examples: TrainingExamples, row: int) -> float:
    """The head's, or the mean over the group of what each completion asks for."""
    if trainer.parameters.objective == "paced":
        return float(trainer.head(torch.from_numpy(examples.embeddings[row])[None])[0].detach())
    wanted = []
    for i in siblings_of(examples, row):
        log_probs = log_probs_alone(trainer.model, examples.prompts[i], examples.completions[i])
        log_ratio = float(examples.behaviour_log_probs[i].sum()) - float(log_probs.sum().detach())
        wanted.append(log_ratio + float(examples.rewards[i]) / trainer.parameters.reward_temperature)
    return sum(wanted) / len(wanted)


def row_loss(
    trainer: Trainer, examples: TrainingExamples, row: int, rows: list[int], log_probs: torch.Tensor
) -> torch.Tensor:
    """One completion's loss; the mean of it over the minibatch `rows` is the objective."""
    behaviour = torch.from_numpy(examples.behaviour_log_probs[row]).double()
    parameters, corrections = trainer.parameters, correction_by_hand(trainer, examples, row)
    if parameters.objective in ("paced", "vargrad"):
        reward = float(examples.rewards[row])
        log_z = log_z_by_hand(trainer, examples, row)
        residual = log_z + log_probs.sum() - behaviour.sum() - reward / parameters.reward_temperature
        return corrections[0] * residual**2
    if parameters.objective in ("flowrl", "gflowrl"):
        weight, residual = flow_by_hand(trainer, examples, row, log_probs)
        return corrections[0] * weight * residual**2
    advantage = advantage_by_hand(examples, row, parameters.objective)
    penalty = penalty_by_hand(trainer, examples, row, log_probs)
    if parameters.objective == "rloo":
        terms = [-c * advantage * ours for c, ours in zip(corrections, log_probs, strict=True)]
        return torch.stack([*terms, *penalty]).sum()
    high = 0.28 if parameters.objective == "dapo" else parameters.clip_ratio
    terms = []
    for correction, ours, old in zip(corrections, log_probs, behaviour, strict=True):
        weight = torch.exp(ours - old)
        clipped = torch.clamp(weight, 1 - parameters.clip_ratio, 1 + high)
        terms.append(-correction * torch.minimum(weight * advantage, clipped * advantage))
    total = torch.stack([*terms, *penalty]).sum()
    if parameters.objective == "grpo":
        return total / len(terms)
    if parameters.objective == "dr_grpo":
        return total / MAX_NEW_TOKENS
    num_tokens = sum(len(examples.completions[i]) for i in rows if not examples.is_truncated[i])
    return total / max(num_tokens, 1) * len(rows)  # all may be filtered out; the caller divides by the rows again


def penalty_by_hand(
    trainer: Trainer, examples: TrainingExamples, row: int, log_probs: torch.Tensor
) -> list[torch.Tensor]:
    """Of each token: coefficient · correction · (v − 1 − log v), v = π_ref/π_θ."""
    parameters = trainer.parameters
    if parameters.kl_coefficient == 0 or (parameters.objective == "dapo" and examples.is_truncated[row]):
        return []
    assert examples.reference_log_probs is not None
    ratios = torch.exp(torch.from_numpy(examples.reference_log_probs[row]).double() - log_probs)
    corrections = correction_by_hand(trainer, examples, row)
    return [
        parameters.kl_coefficient * correction * (ratio - 1 - torch.log(ratio))
        for correction, ratio in zip(corrections, ratios, strict=True)
    ]


def flow_by_hand(
    trainer: Trainer, examples: TrainingExamples, row: int, log_probs: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """(importance weight, residual) of one completion under `flowrl` or `gflowrl`."""
    parameters = trainer.parameters
    assert examples.reference_log_probs is not None
    ratio = math.exp(float(log_probs.detach().sum()) - float(examples.behaviour_log_probs[row].sum()))
    if parameters.objective == "flowrl":
        log_z = float(trainer.head(torch.from_numpy(examples.embeddings[row])[None])[0].detach())
        residual = log_z + flow_target_by_hand(trainer, examples, row, log_probs.mean())
        return min(max(ratio, 0.8), 1.2), residual
    wanted = {}
    for i in siblings_of(examples, row):
        of_reference, behaviour = examples.reference_log_probs[i].mean(), examples.behaviour_log_probs[i].mean()
        wanted[i] = 8.0 * float(examples.rewards[i]) + float(of_reference) - float(behaviour)
    gap = sum(wanted.values()) / len(wanted) - wanted[row]
    moved = log_probs.mean() - float(examples.behaviour_log_probs[row].mean())
    return min(ratio, 2.0), min(max(gap, -0.2), 0.28) + moved


def flow_target_by_hand(trainer: Trainer, examples: TrainingExamples, row: int, policy_mean: torch.Tensor | float):
    """What `flowrl` leaves of a completion without log Z; its negative is the log Z the completion asks for."""
    assert examples.reference_log_probs is not None
    normalised = advantage_by_hand(examples, row, "flowrl")
    return policy_mean - float(examples.reference_log_probs[row].mean()) - 15.0 * normalised


def head_step_by_hand(
    trainer: Trainer, examples: TrainingExamples, rows: list[int], sequence: dict[int, float]
) -> None:
    """Weighted least squares on the fresh rows; `sequence` holds log π_θ of each completion."""
    total, weight_sum = torch.zeros(()), 0.0
    for row in rows:
        weight = float(examples.head_weights[row])
        if trainer.parameters.importance_correction == "sequence":
            weight *= correction_by_hand(trainer, examples, row)[0]
        if weight > 0:
            log_z = trainer.head(torch.from_numpy(examples.embeddings[row])[None])[0]
            behaviour = float(examples.behaviour_log_probs[row].sum())
            reward = float(examples.rewards[row])
            residual = log_z + sequence[row] - behaviour - reward / trainer.parameters.reward_temperature
            if trainer.parameters.objective == "flowrl":
                mean = sequence[row] / len(examples.completions[row])
                residual = log_z + flow_target_by_hand(trainer, examples, row, mean)
                weight *= min(max(math.exp(sequence[row] - behaviour), 0.8), 1.2)
            total = total + weight * residual**2
            weight_sum += weight
    if weight_sum:
        trainer.head_optimizer.zero_grad()
        (total / weight_sum).backward()
        trainer.head_optimizer.step()


def train_by_hand(trainer: Trainer, examples: TrainingExamples) -> list[float]:
    """The same round, one completion at a time; returns the loss of each step."""
    parameters, losses = trainer.parameters, []
    sequence: dict[int, float] = {}
    for epoch in range(parameters.num_epochs):
        for step_rows in minibatches(examples, parameters, seed=trainer.seed, epoch=epoch):
            rows: list[int] = step_rows.tolist()
            trainer.policy_optimizer.zero_grad()
            step_loss = 0.0
            for row in rows:
                log_probs = log_probs_alone(trainer.model, examples.prompts[row], examples.completions[row])
                sequence[row] = float(log_probs.detach().sum())
                loss = row_loss(trainer, examples, row, rows, log_probs) / len(rows)
                loss.backward()
                step_loss += float(loss.detach())
            gradients = [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]
            norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
            for gradient in gradients:
                gradient *= min(1.0, parameters.max_gradient_norm / (norm + 1e-6))
            trainer.policy_optimizer.step()
            head_step_by_hand(trainer, examples, rows, sequence)
            losses.append(step_loss)
    for _ in range(parameters.log_z_epochs - 1):
        head_step_by_hand(trainer, examples, list(range(len(examples.prompts))), sequence)
    return losses


def fresh_rows(examples: TrainingExamples) -> TrainingExamples:
    """The examples without the replayed rows, which only the paced objective takes."""
    rows = np.flatnonzero(examples.is_fresh)
    return TrainingExamples(
        prompt_ids=[examples.prompt_ids[i] for i in rows],
        prompts=[examples.prompts[i] for i in rows],
        completions=[examples.completions[i] for i in rows],
        behaviour_log_probs=[examples.behaviour_log_probs[i] for i in rows],
        sampler_log_probs=[examples.sampler_log_probs[i] for i in rows],
        rewards=examples.rewards[rows],
        group_index=examples.group_index[rows],
        is_fresh=examples.is_fresh[rows],
        is_truncated=examples.is_truncated[rows],
        head_weights=examples.head_weights[rows],
        embeddings=examples.embeddings[rows],
        reference_log_probs=None
        if examples.reference_log_probs is None
        else [examples.reference_log_probs[i] for i in rows],
    )
