"""A round under every objective against a loop written out by hand; the cut into micro-batches changes nothing."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hand_written_round import fresh_rows, train_by_hand
from tiny_training import (
    largest_difference,
    log_probs_alone,
    make_examples,
    make_trainer,
    tiny_model,
    weights_of,
)

from paced_rl.parameters import TrainingParameters
from paced_rl.training.examples import TrainingExamples
from paced_rl.training.row_terms import minibatches, sampler_weights
from paced_rl.training.trainer import train_round

BALANCES = ["paced", "vargrad", "flowrl", "gflowrl"]
POLICY_GRADIENTS = ["grpo", "dr_grpo", "dapo", "rloo"]
OBJECTIVES = [*BALANCES, *POLICY_GRADIENTS]
FLOWS = ["flowrl", "gflowrl"]
"""Their residuals are a hundredth of the log-probabilities they are made of, which are float32 sums of π_old's."""
CORRECTED = [
    (objective, mode)
    for objective in OBJECTIVES
    for mode in ("off", "token", "sequence")
    if mode != "token" or objective not in BALANCES
]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny_model()


@pytest.fixture(scope="module")
def examples(model: torch.nn.Module) -> TrainingExamples:
    made = make_examples(model, has_reference=True)
    assert 0 < made.is_truncated.sum() < len(made.prompts)  # else dapo's filter would have nothing to do
    return made


def taken_by(objective: str, examples: TrainingExamples) -> TrainingExamples:
    return examples if objective == "paced" else fresh_rows(examples)


@pytest.mark.parametrize(("objective", "mode"), CORRECTED)
@pytest.mark.parametrize("num_epochs", [1, 2])
def test_a_round_is_the_loop_written_by_hand(
    model: torch.nn.Module, examples: TrainingExamples, objective: str, mode: str, num_epochs: int
) -> None:
    settings: dict[str, Any] = {
        "objective": objective,
        "num_epochs": num_epochs,
        "importance_correction": mode,
        "importance_cap": 1.1,
    }
    rows = taken_by(objective, examples)
    ours = make_trainer(model, max_tokens_per_forward=30, **settings)
    theirs = make_trainer(model, **settings)
    metrics = train_round(ours, rows)
    losses = train_by_hand(theirs, rows)

    assert [row["policy_loss"] for row in metrics] == pytest.approx(
        losses, rel=1e-4 if objective in FLOWS else 1e-5, abs=1e-6
    )
    assert largest_difference(weights_of(ours.model), weights_of(theirs.model)) < 1e-5
    assert largest_difference(weights_of(ours.head), weights_of(theirs.head)) < 1e-5
    assert largest_difference(weights_of(ours.model), weights_of(model)) > 1e-2
    assert largest_difference(weights_of(ours.head), weights_of(make_trainer(model).head)) > 1e-2


@pytest.mark.parametrize("mode", ["off", "token"])
@pytest.mark.parametrize("objective", POLICY_GRADIENTS)
def test_a_penalty_is_the_one_written_by_hand(
    model: torch.nn.Module, examples: TrainingExamples, objective: str, mode: str
) -> None:
    rows = taken_by(objective, examples)
    settings = {"objective": objective, "kl_coefficient": 0.3, "importance_correction": mode}
    ours, theirs = make_trainer(model, max_tokens_per_forward=30, **settings), make_trainer(model, **settings)
    metrics = train_round(ours, rows)
    losses = train_by_hand(theirs, rows)
    without = make_trainer(model, **{**settings, "kl_coefficient": 0.0})
    train_round(without, rows)

    assert [row["policy_loss"] for row in metrics] == pytest.approx(losses, rel=1e-5, abs=1e-6)
    assert largest_difference(weights_of(ours.model), weights_of(theirs.model)) < 1e-5
    assert largest_difference(weights_of(ours.model), weights_of(without.model)) > 1e-3
    assert all(row["kl_reference_policy"] > 0 for row in metrics)


@pytest.mark.parametrize("objective", ["flowrl", "gflowrl", "grpo"])
def test_what_needs_the_reference_policy_says_so(
    model: torch.nn.Module, examples: TrainingExamples, objective: str
) -> None:
    rows = dataclasses.replace(fresh_rows(examples), reference_log_probs=None)
    trainer = make_trainer(model, objective=objective, kl_coefficient=0.1 if objective == "grpo" else 0.0)
    with pytest.raises(ValueError, match="reference"):
        train_round(trainer, rows)


@pytest.mark.parametrize(("objective", "mode"), CORRECTED)
def test_micro_batches_change_memory_and_not_results(
    model: torch.nn.Module, examples: TrainingExamples, objective: str, mode: str
) -> None:
    rows = taken_by(objective, examples)
    at_once, one_by_one = (
        make_trainer(model, objective=objective, importance_correction=mode, max_tokens_per_forward=budget)
        for budget in (100_000, 1)
    )
    rows_at_once, rows_one_by_one = train_round(at_once, rows), train_round(one_by_one, rows)

    tolerance = 1e-5 if objective in FLOWS else 1e-6
    assert largest_difference(weights_of(at_once.model), weights_of(one_by_one.model)) < tolerance
    assert largest_difference(weights_of(at_once.head), weights_of(one_by_one.head)) < 1e-5
    for ours, theirs in zip(rows_at_once, rows_one_by_one, strict=True):
        expected = {name: value for name, value in theirs.items() if value is not None}
        found = {name: value for name, value in ours.items() if value is not None}
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_reports_what_it_has(model: torch.nn.Module, examples: TrainingExamples, objective: str) -> None:
    metrics = train_round(make_trainer(model, objective=objective), taken_by(objective, examples))

    assert {row["mean_residual"] is not None for row in metrics} == {objective in BALANCES}
    assert {row["clip_fraction"] is not None for row in metrics} == {objective in ("grpo", "dr_grpo", "dapo")}
    assert all(row["mean_importance_correction"] is row["capped_correction_fraction"] is None for row in metrics)
    if objective == "vargrad":  # log Z is the mean of what the group asks for
        assert [row["mean_residual"] for row in metrics] == pytest.approx([0.0] * len(metrics), abs=1e-5)


def test_vargrad_takes_whole_groups_and_every_row_once(examples: TrainingExamples) -> None:
    rows = fresh_rows(examples)
    parameters = TrainingParameters(objective="vargrad", replay_max_added=0, num_minibatches=3)
    parts = minibatches(rows, parameters, seed=1, epoch=0)

    assert len(parts) == 3
    assert sorted(np.concatenate(parts).tolist()) == [*range(len(rows.prompts))]
    groups = [set(rows.group_index[part]) for part in parts]
    assert sum(len(part) for part in groups) == len(set.union(*groups))
    assert [part.tolist() for part in minibatches(rows, parameters, seed=1, epoch=1)] != [
        part.tolist() for part in parts
    ]


def test_vargrad_is_paced_with_a_head_that_knows_the_best_constant(
    model: torch.nn.Module, examples: TrainingExamples
) -> None:
    """Behaviour equal to the policy: a group's best log Z is its accuracy by β, here 0.4 / 0.05, as the head's."""
    rows = fresh_rows(examples)
    own = weights_of(model)
    group = np.arange(5)
    rewards = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
    five = dataclasses.replace(
        rows,
        prompt_ids=rows.prompt_ids[:5],
        prompts=[rows.prompts[0]] * 5,
        completions=rows.completions[:5],
        behaviour_log_probs=score(model, rows.prompts[0], rows.completions[:5]),
        sampler_log_probs=rows.sampler_log_probs[:5],
        rewards=rewards,
        group_index=np.zeros(5, np.int64),
        is_fresh=rows.is_fresh[group],
        is_truncated=rows.is_truncated[group],
        head_weights=np.ones(5),
        embeddings=rows.embeddings[group],
    )
    paced, vargrad = (make_trainer(model, objective=name, num_minibatches=1) for name in ("paced", "vargrad"))
    (ours,), (theirs,) = train_round(paced, five), train_round(vargrad, five)

    assert ours["policy_loss"] == pytest.approx(theirs["policy_loss"], rel=1e-5)
    assert largest_difference(weights_of(paced.model), weights_of(vargrad.model)) < 1e-5
    assert largest_difference(weights_of(paced.model), own) > 1e-3


def score(model: torch.nn.Module, prompt: np.ndarray, completions: list[np.ndarray]) -> list[np.ndarray]:
    with torch.no_grad():
        return [log_probs_alone(model, prompt, completion).numpy() for completion in completions]


@pytest.mark.parametrize("mode", ["token", "sequence"])
@pytest.mark.parametrize("objective", ["grpo", "rloo"])
def test_a_sampler_that_is_the_trainer_needs_no_correction(
    model: torch.nn.Module, examples: TrainingExamples, objective: str, mode: str
) -> None:
    rows = fresh_rows(examples)
    rows = dataclasses.replace(rows, sampler_log_probs=rows.behaviour_log_probs)
    with_it, without = (
        make_trainer(model, objective=objective, importance_correction=choice) for choice in (mode, "off")
    )
    metrics = train_round(with_it, rows)
    train_round(without, rows)

    assert largest_difference(weights_of(with_it.model), weights_of(without.model)) == 0
    assert {(row["mean_importance_correction"], row["capped_correction_fraction"]) for row in metrics} == {(1.0, 0.0)}


def test_replayed_rows_are_never_corrected_and_never_counted(
    model: torch.nn.Module, examples: TrainingExamples
) -> None:
    parameters = TrainingParameters(importance_correction="sequence", importance_cap=1.1)
    weights = sampler_weights(examples, parameters)
    assert weights is not None
    replayed = np.flatnonzero(~examples.is_fresh)
    fresh = np.flatnonzero(examples.is_fresh)

    assert weights.values[replayed].tolist() == [[1.0]] * len(replayed)
    assert weights.metrics(replayed) == {"mean_importance_correction": None, "capped_correction_fraction": None}
    gaps = [float(examples.behaviour_log_probs[i].sum()) - float(examples.sampler_log_probs[i].sum()) for i in fresh]
    expected = [min(np.exp(gap), 1.1) for gap in gaps]
    assert weights.metrics(np.arange(len(examples.prompts))) == {
        "mean_importance_correction": pytest.approx(np.mean(expected), rel=1e-5),
        "capped_correction_fraction": pytest.approx(np.mean([value == 1.1 for value in expected])),
    }
