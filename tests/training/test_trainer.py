"""What must and must not change the result of a round of training, and how it fails."""

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

from paced_rl.training.examples import TrainingExamples
from paced_rl.training.head_training import NonFiniteLossError
from paced_rl.training.trainer import train_round


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny_model()


@pytest.fixture(scope="module")
def examples(model: torch.nn.Module) -> TrainingExamples:
    return make_examples(model)


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
