"""Optimiser states on disk: a round that follows a pause goes on as if there had been none."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import largest_difference, make_examples, make_trainer, tiny_model, weights_of

from paced_rl.training.examples import TrainingExamples
from paced_rl.training.optimizer_state import optimizer_tensors, restore_optimizer
from paced_rl.training.trainer import train_round


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny_model()


@pytest.fixture(scope="module")
def examples(model: torch.nn.Module) -> TrainingExamples:
    return make_examples(model)


def test_two_rounds_with_a_pause_are_two_rounds_in_one_go(model: torch.nn.Module, tmp_path: Path) -> None:
    first, second = make_examples(model, seed=1), make_examples(model, seed=2)
    in_one_go = make_trainer(model)
    train_round(in_one_go, first)
    train_round(in_one_go, second)

    before_pause = make_trainer(model)
    train_round(before_pause, first)
    save_file(optimizer_tensors(before_pause.policy_optimizer, before_pause.model), tmp_path / "policy.safetensors")
    save_file(optimizer_tensors(before_pause.head_optimizer, before_pause.head), tmp_path / "head.safetensors")
    after_pause = make_trainer(before_pause.model)
    after_pause.head.load_state_dict(before_pause.head.state_dict())
    restore_optimizer(after_pause.policy_optimizer, after_pause.model, load_file(tmp_path / "policy.safetensors"))
    restore_optimizer(after_pause.head_optimizer, after_pause.head, load_file(tmp_path / "head.safetensors"))
    train_round(after_pause, second)

    assert largest_difference(weights_of(after_pause.model), weights_of(in_one_go.model)) == 0
    assert largest_difference(weights_of(after_pause.head), weights_of(in_one_go.head)) == 0
    forgetful = make_trainer(before_pause.model)
    train_round(forgetful, second)
    assert largest_difference(weights_of(forgetful.model), weights_of(in_one_go.model)) > 0


def test_the_state_of_another_model_is_refused(model: torch.nn.Module, examples: TrainingExamples) -> None:
    trainer = make_trainer(model)
    assert optimizer_tensors(trainer.policy_optimizer, trainer.model) == {}
    train_round(trainer, examples)
    tensors = optimizer_tensors(trainer.policy_optimizer, trainer.model)
    name = "model.norm.weight::exp_avg"

    fresh = make_trainer(model)
    for wrong in ({name: tensors[name][:-1]}, {"other.weight::exp_avg": tensors[name]}):
        with pytest.raises(ValueError, match=r"does not fit the model.*start a new one"):
            restore_optimizer(fresh.policy_optimizer, fresh.model, wrong)
