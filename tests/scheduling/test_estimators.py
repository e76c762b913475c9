"""What stands in for the learned estimate."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scheduling_examples import outcome_rows, outcomes_from

from paced_rl.scheduling import (
    estimate_by,
    fit_prior_strength,
    group_means,
    mean_accuracy,
    no_outcomes,
    posterior_beliefs,
)

LEARNED = np.array([0.2, 0.7, 0.9])
ROWS = [
    (0, 3, 8, 8, "warm_up", 0.5),
    (0, 2, 2, 8, "selected", 0.5),
    (1, 4, 1, 8, "audit", 0.5),
]


def estimates(estimator: Any, rows: list[tuple[int, int, int, int, str, float]] | None = None, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "outcomes": outcomes_from(ROWS if rows is None else rows),
        "target_accuracy": 0.6,
        "half_life": 10.0,
        "experiment_seed": 0,
        "round_number": 5,
    }
    return estimate_by(estimator, LEARNED, **{**arguments, **changes})


def test_learned_and_constant() -> None:
    assert estimates("learned").tolist() == LEARNED.tolist()
    assert estimates("constant").tolist() == [0.6, 0.6, 0.6]


def test_group_mean_by_hand() -> None:
    # Prompt 2 was never measured: 8 of 8 and 1 of 8 in groups that no selector chose.
    assert estimates("group_mean").tolist() == [2 / 8, 1 / 8, 9 / 16]


def test_group_mean_without_uniform_groups_and_without_any() -> None:
    assert estimates("group_mean", [ROWS[1]]).tolist() == [0.25, 0.25, 0.25]
    assert estimates("group_mean", outcomes=no_outcomes()).tolist() == [0.6, 0.6, 0.6]


@settings(deadline=None)
@given(outcome_rows(5))
def test_group_means_are_accuracies(rows: list[tuple[int, int, int, int, str, float]]) -> None:
    means = group_means(outcomes_from(rows), num_prompts_total=5, unmeasured=0.5)
    assert ((means >= 0) & (means <= 1)).all()
    unseen = set(range(5)) - {row[0] for row in rows}
    assert len({means[prompt] for prompt in unseen}) <= 1


def test_random_depends_on_seed_and_round_alone() -> None:
    first = estimates("random")
    assert first.tolist() == estimates("random", outcomes=no_outcomes(), half_life=1.0).tolist()
    assert first.tolist() != estimates("random", round_number=6).tolist()
    assert first.tolist() != estimates("random", experiment_seed=1).tolist()
    assert ((first >= 0) & (first < 1)).all()


def test_beta_posterior_is_the_mean_of_the_fitted_posterior() -> None:
    outcomes = outcomes_from(ROWS)
    strength = fit_prior_strength(outcomes)
    beliefs = posterior_beliefs(LEARNED, outcomes, prior_strength=strength, half_life=10.0)
    found = estimates("beta_posterior")
    assert found.tolist() == mean_accuracy(beliefs).tolist()
    assert found[2] == pytest.approx(LEARNED[2])
    assert 1 / 8 < found[1] < LEARNED[1]


def test_an_unknown_estimator_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'guess'.*'group_mean'"):
        estimates("guess")
