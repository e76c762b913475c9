"""The head's steps: what a completion, a group and the past ask of it."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_training import largest_difference, make_examples, make_trainer, tiny_model, weights_of

from paced_rl.objectives.log_z_head import LogPartitionHead
from paced_rl.training.head_training import HeadRows, NonFiniteLossError, head_step, past_rows
from paced_rl.training.trainer import train_round

BETA = 0.05


def make_head() -> LogPartitionHead:
    head = LogPartitionHead(3, 8, reward_temperature=BETA, initial_accuracy=0.5, seed=0)
    with torch.no_grad():  # the output layer starts at zero, which would hide what the other layers do
        head.output_layer.weight.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(1))
    return head


def step(rows: HeadRows) -> tuple[LogPartitionHead, float]:
    head = make_head()
    # Plain gradient descent: Adam would hide a wrong scale of the loss.
    return head, head_step(head, torch.optim.SGD(head.parameters(), lr=1e-3), rows)


def test_a_group_moves_the_head_as_its_completions_do() -> None:
    embeddings = np.random.default_rng(0).normal(size=(2, 3))
    rewards = np.array([[1, 0, 0, 0], [1, 1, 1, 0]], dtype=np.float64)
    completions = HeadRows(
        embeddings=np.repeat(embeddings, 4, axis=0), targets=rewards.reshape(-1) / BETA, weights=np.ones(8)
    )
    # A group whose age is no time at all weighs one per completion.
    groups = past_rows(
        embeddings=embeddings,
        ages=np.zeros(2, dtype=np.int64),
        num_correct=np.array([1, 3]),
        num_scored=np.array([4, 4]),
        weights=np.ones(2),
        half_life=10.0,
        reward_temperature=BETA,
    )
    by_completion, loss_by_completion = step(completions)
    by_group, loss_by_group = step(groups)
    assert largest_difference(weights_of(by_completion), weights_of(by_group)) < 1e-6
    # The losses differ by the variance within the groups, 3/16 in units of (1/β)².
    assert loss_by_completion - loss_by_group == pytest.approx(3 / 16 / BETA**2, rel=1e-4)


def test_the_weight_halves_every_half_life() -> None:
    rows = past_rows(
        embeddings=np.zeros((3, 3)),
        ages=np.array([1, 11, 21]),
        num_correct=np.array([0, 4, 8]),
        num_scored=np.array([8, 8, 8]),
        weights=np.array([1.0, 1.0, 3.0]),
        half_life=10.0,
        reward_temperature=BETA,
    )
    newest = 8 * 0.5**0.1
    assert rows.weights == pytest.approx([newest, newest / 2, 3 * newest / 4])
    assert rows.targets == pytest.approx([0.0, 0.5 / BETA, 1 / BETA])


def test_rows_without_weight_make_no_step() -> None:
    rows = HeadRows(embeddings=np.ones((2, 3)), targets=np.array([np.nan, 5.0]), weights=np.zeros(2))
    head, loss = step(rows)
    assert loss == 0.0
    assert largest_difference(weights_of(head), weights_of(make_head())) == 0.0
    with pytest.raises(NonFiniteLossError, match="log-Z loss is nan"):
        step(dataclasses.replace(rows, weights=np.ones(2)))


def test_the_past_trains_the_head_and_not_the_policy() -> None:
    model = tiny_model()
    examples = make_examples(model)
    size = examples.embeddings.shape[1]
    past = HeadRows(
        embeddings=np.random.default_rng(1).normal(size=(5, size)),
        targets=np.full(5, 1 / BETA),
        weights=np.full(5, 8.0),
    )
    trained = {}
    for name, rows in {
        "none": None,
        "weightless": dataclasses.replace(past, weights=np.zeros(5)),
        "past": past,
    }.items():
        trainer = make_trainer(model, log_z_epochs=5)
        train_round(trainer, dataclasses.replace(examples, past=rows))
        trained[name] = weights_of(trainer.model), weights_of(trainer.head)
    assert largest_difference(trained["none"][1], trained["weightless"][1]) < 1e-7
    assert largest_difference(trained["none"][1], trained["past"][1]) > 1e-3
    assert largest_difference(trained["none"][0], trained["past"][0]) == 0.0
