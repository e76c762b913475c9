"""A round of training against a loop written out by hand, and what must and must not change the result."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny_training import (
    largest_difference,
    log_probs_alone,
    make_examples,
    make_trainer,
    tiny_model,
    weights_of,
)

from paced_rl.training.batches import split_minibatches
from paced_rl.training.trainer import (
    ADVANTAGE_EPSILON,
    NonFiniteLossError,
    Trainer,
    TrainingExamples,
    train_round,
)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny_model()


@pytest.fixture(scope="module")
def examples(model: torch.nn.Module) -> TrainingExamples:
    return make_examples(model)


def advantage_by_hand(examples: TrainingExamples, row: int) -> float:
    """(r − mean) / (sample standard deviation + ε) within the fresh group."""
    if not examples.is_fresh[row]:
        return 0.0
    siblings = [
        float(examples.rewards[i])
        for i in range(len(examples.prompts))
        if examples.is_fresh[i] and examples.group_index[i] == examples.group_index[row]
    ]
    mean = sum(siblings) / len(siblings)
    variance = sum((reward - mean) ** 2 for reward in siblings) / (len(siblings) - 1)
    return (float(examples.rewards[row]) - mean) / (math.sqrt(variance) + ADVANTAGE_EPSILON)


def row_loss(trainer: Trainer, examples: TrainingExamples, row: int, log_probs: torch.Tensor) -> torch.Tensor:
    """One completion's loss, as the papers write it."""
    behaviour = torch.from_numpy(examples.behaviour_log_probs[row]).double()
    parameters = trainer.parameters
    if parameters.objective == "paced":
        with torch.no_grad():
            log_z = trainer.head(torch.from_numpy(examples.embeddings[row])[None])[0].double()
        reward = float(examples.rewards[row])
        return (log_z + log_probs.sum() - behaviour.sum() - reward / parameters.reward_temperature) ** 2
    advantage = advantage_by_hand(examples, row)
    terms = []
    for ours, old in zip(log_probs, behaviour, strict=True):
        weight = torch.exp(ours - old)
        clipped = torch.clamp(weight, 1 - parameters.clip_ratio, 1 + parameters.clip_ratio)
        terms.append(-torch.minimum(weight * advantage, clipped * advantage))
    return torch.stack(terms).mean()


def head_step_by_hand(
    trainer: Trainer, examples: TrainingExamples, rows: list[int], sequence: dict[int, float]
) -> None:
    total, weight_sum = torch.zeros(()), 0.0
    for row in rows:
        weight = float(examples.head_weights[row])
        if weight > 0:
            log_z = trainer.head(torch.from_numpy(examples.embeddings[row])[None])[0]
            behaviour = float(examples.behaviour_log_probs[row].sum())
            reward = float(examples.rewards[row])
            residual = log_z + sequence[row] - behaviour - reward / trainer.parameters.reward_temperature
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
        for rows in split_minibatches(
            len(examples.prompts), parameters.num_minibatches, seed=trainer.seed, epoch=epoch
        ):
            trainer.policy_optimizer.zero_grad()
            step_loss = 0.0
            for row in rows.tolist():
                log_probs = log_probs_alone(trainer.model, examples.prompts[row], examples.completions[row])
                sequence[row] = float(log_probs.detach().sum())
                loss = row_loss(trainer, examples, row, log_probs) / len(rows)
                loss.backward()
                step_loss += float(loss.detach())
            gradients = [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]
            norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
            for gradient in gradients:
                gradient *= min(1.0, parameters.max_gradient_norm / (norm + 1e-6))
            trainer.policy_optimizer.step()
            head_step_by_hand(trainer, examples, rows.tolist(), sequence)
            losses.append(step_loss)
    for _ in range(parameters.log_z_epochs - 1):
        head_step_by_hand(trainer, examples, list(range(len(examples.prompts))), sequence)
    return losses


@pytest.mark.parametrize("objective", ["paced", "grpo"])
@pytest.mark.parametrize("num_epochs", [1, 2])
def test_a_round_is_the_loop_written_by_hand(
    model: torch.nn.Module, examples: TrainingExamples, objective: str, num_epochs: int
) -> None:
    ours = make_trainer(model, objective=objective, num_epochs=num_epochs, max_tokens_per_forward=30)
    theirs = make_trainer(model, objective=objective, num_epochs=num_epochs)
    metrics = train_round(ours, examples)
    losses = train_by_hand(theirs, examples)

    assert [row["policy_loss"] for row in metrics] == pytest.approx(losses, rel=1e-6)
    assert largest_difference(weights_of(ours.model), weights_of(theirs.model)) < 1e-6
    assert largest_difference(weights_of(ours.head), weights_of(theirs.head)) < 1e-5
    assert largest_difference(weights_of(ours.model), weights_of(model)) > 1e-2
    assert largest_difference(weights_of(ours.head), weights_of(make_trainer(model).head)) > 1e-2


@pytest.mark.parametrize("objective", ["paced", "grpo"])
def test_micro_batches_change_memory_and_not_results(
    model: torch.nn.Module, examples: TrainingExamples, objective: str
) -> None:
    at_once, one_by_one = (
        make_trainer(model, objective=objective, max_tokens_per_forward=budget) for budget in (100_000, 1)
    )
    rows_at_once, rows_one_by_one = train_round(at_once, examples), train_round(one_by_one, examples)

    assert largest_difference(weights_of(at_once.model), weights_of(one_by_one.model)) < 1e-6
    assert largest_difference(weights_of(at_once.head), weights_of(one_by_one.head)) < 1e-5
    for ours, theirs in zip(rows_at_once, rows_one_by_one, strict=True):
        expected = {name: value for name, value in theirs.items() if value is not None}
        found = {name: value for name, value in ours.items() if value is not None}
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_metrics_count_what_was_trained(model: torch.nn.Module, examples: TrainingExamples) -> None:
    seen: list[int] = []
    metrics = train_round(make_trainer(model), examples, on_progress=seen.append)
    num_rows = len(examples.prompts)

    assert [row["epoch"] for row in metrics] == [0, 0, 0]
    assert sum(row["num_completions"] for row in metrics) == num_rows == sum(seen)
    assert sum(row["num_replayed"] for row in metrics) == (~examples.is_fresh).sum()
    assert sum(row["num_tokens"] for row in metrics) == sum(len(completion) for completion in examples.completions)
    assert all(row["clip_fraction"] is None and row["mean_residual"] is not None for row in metrics)
    assert all(row["gradient_norm"] > 0 for row in metrics)


def test_the_first_kl_estimate_is_the_gap_between_behaviour_and_policy(
    model: torch.nn.Module, examples: TrainingExamples
) -> None:
    (row,) = train_round(make_trainer(model, num_minibatches=1), examples)
    gaps = [
        float(behaviour.sum() - log_probs_alone(model, prompt, completion).sum().detach())
        for prompt, completion, behaviour, fresh in zip(
            examples.prompts, examples.completions, examples.behaviour_log_probs, examples.is_fresh, strict=True
        )
        if fresh
    ]
    assert row["kl_behaviour_policy"] == pytest.approx(sum(gaps) / len(gaps), rel=1e-5)


def test_a_learning_rate_of_zero_trains_the_head_alone(model: torch.nn.Module, examples: TrainingExamples) -> None:
    trainer = make_trainer(model, learning_rate=0.0)
    head = weights_of(trainer.head)
    train_round(trainer, examples)

    assert largest_difference(weights_of(trainer.model), weights_of(model)) == 0
    assert largest_difference(weights_of(trainer.head), head) > 1e-3


def test_replayed_rows_do_not_change_the_head(model: torch.nn.Module, examples: TrainingExamples) -> None:
    rewards, embeddings = examples.rewards.copy(), examples.embeddings.copy()
    rewards[~examples.is_fresh] = 0.0
    embeddings[~examples.is_fresh] += 3.0
    changed = dataclasses.replace(examples, rewards=rewards, embeddings=embeddings)
    # One minibatch: in later ones the policy has moved, which rightly moves the residuals of fresh rows too.
    ours, theirs = make_trainer(model, num_minibatches=1), make_trainer(model, num_minibatches=1)
    train_round(ours, examples)
    train_round(theirs, changed)

    assert largest_difference(weights_of(ours.head), weights_of(theirs.head)) == 0
    assert largest_difference(weights_of(ours.model), weights_of(theirs.model)) > 0


def test_a_batch_of_replayed_rows_alone_leaves_the_head_as_it_is(
    model: torch.nn.Module, examples: TrainingExamples
) -> None:
    num_rows = len(examples.prompts)
    stale = dataclasses.replace(examples, is_fresh=np.zeros(num_rows, bool), head_weights=np.zeros(num_rows))
    trainer = make_trainer(model)
    train_round(trainer, examples)  # momentum that a step on nothing would follow
    head = weights_of(trainer.head)
    metrics = train_round(trainer, stale)

    assert largest_difference(weights_of(trainer.head), head) == 0
    assert {row["log_z_loss"] for row in metrics} == {0.0}


def with_nan(examples: TrainingExamples, field: str) -> TrainingExamples:
    if field == "behaviour_log_probs":
        values = [array.copy() for array in examples.behaviour_log_probs]
        values[0][0] = np.nan
        return dataclasses.replace(examples, behaviour_log_probs=values)
    array = getattr(examples, field).copy()
    array[0] = np.nan
    return dataclasses.replace(examples, **{field: array})


@pytest.mark.parametrize(
    ("objective", "field"),
    [
        ("paced", "rewards"),
        ("paced", "behaviour_log_probs"),
        ("paced", "embeddings"),
        ("grpo", "rewards"),
        ("grpo", "behaviour_log_probs"),
    ],
)
def test_a_loss_that_is_not_finite_steps_nothing(
    model: torch.nn.Module, examples: TrainingExamples, objective: str, field: str
) -> None:
    trainer = make_trainer(model, objective=objective, num_minibatches=1)
    head = weights_of(trainer.head)
    with pytest.raises(NonFiniteLossError, match=r"policy loss nan.*'prompt 0'"):
        train_round(trainer, with_nan(examples, field))

    assert largest_difference(weights_of(trainer.model), weights_of(model)) == 0
    assert largest_difference(weights_of(trainer.head), head) == 0
    assert not trainer.policy_optimizer.state
    assert not trainer.head_optimizer.state


def test_a_nan_of_the_model_itself_is_caught(model: torch.nn.Module, examples: TrainingExamples) -> None:
    trainer = make_trainer(model)
    with torch.no_grad():
        trainer.model.model.norm.weight[0] = math.nan
    with pytest.raises(NonFiniteLossError, match="gradient norm nan"):
        train_round(trainer, examples)
    assert not trainer.policy_optimizer.state


def test_a_head_loss_that_is_not_finite_leaves_the_head_as_it_is(
    model: torch.nn.Module, examples: TrainingExamples
) -> None:
    trainer = make_trainer(model, objective="grpo", num_minibatches=1)
    head = weights_of(trainer.head)
    with pytest.raises(NonFiniteLossError, match="log-Z loss is nan"):
        train_round(trainer, with_nan(examples, "embeddings"))
    assert largest_difference(weights_of(trainer.head), head) == 0
