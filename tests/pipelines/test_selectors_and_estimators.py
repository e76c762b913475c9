"""Rounds with every selector and every estimator: what the tables say of the head, of the estimate, of the outcomes."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from project_folders import make_project, run

from paced_rl.parameters import ReportingParameters, SchedulingParameters, TrainingParameters
from paced_rl.pipelines.scheduling.history import outcomes_of
from paced_rl.pipelines.scheduling.nodes import schedule_prompts
from paced_rl.pipelines.verification.nodes import record_outcomes
from paced_rl.scheduling import Estimator, Selector, group_means
from paced_rl.schemas import OUTCOME_HISTORY

BETA = TrainingParameters().reward_temperature
CHOICES = {
    1: ("uniform", "learned"),  # the warm-up round of conf/test, where every other selector would draw uniformly too
    2: ("softened", "group_mean"),
    3: ("posterior", "beta_posterior"),
    4: ("beta_thompson", "constant"),
    5: ("pass_rate_variance", "random"),
    6: ("nearest", "learned"),
}
"""Round → selector and estimator; one experiment may change them from round to round."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("choices") / "project")
    for round_number, (selector, estimator) in CHOICES.items():
        params = {"scheduling": {"selector": selector, "estimator": estimator}, "evaluation": {"every": 10}}
        assert run(folder, range(round_number, round_number + 1), params=params) == [round_number]
    return folder


def table(project: Path, name: str, round_number: int) -> pd.DataFrame:
    (path,) = project.glob(f"data/0*/{name}/experiment=test/round={round_number:04d}")
    return pd.read_parquet(path)


def test_every_choice_is_made_once() -> None:
    assert {selector for selector, _ in CHOICES.values()} == set(get_args(Selector))
    assert {estimator for _, estimator in CHOICES.values()} == set(get_args(Estimator))
    fields = SchedulingParameters.model_fields
    assert fields["selector"].annotation == Selector
    assert fields["estimator"].annotation == Estimator


def test_every_round_has_its_prompts_and_its_audit_slice(project: Path) -> None:
    for round_number in CHOICES:
        schedule = table(project, "schedule", round_number)
        assert schedule["prompt_id"].nunique() == len(schedule) == 8
        assert schedule["reason"].tolist() == ["selected"] * 7 + ["audit"]


def test_log_z_stays_the_heads_and_the_estimate_is_the_estimators(project: Path) -> None:
    for round_number, (_, estimator) in CHOICES.items():
        estimates = table(project, "accuracy_estimates", round_number)
        head, found = estimates["log_z"].to_numpy() * BETA, estimates["estimated_accuracy"].to_numpy()
        assert ((head > 0) & (head < 1)).all()
        if estimator == "learned":
            np.testing.assert_allclose(found, head, rtol=1e-12)
        elif estimator == "constant":
            assert (found == 0.5).all()
        else:
            assert np.abs(found - head).max() > 1e-3, estimator


def test_group_means_are_what_earlier_rounds_measured(project: Path) -> None:
    estimates, history = table(project, "accuracy_estimates", 2), table(project, "outcome_history", 1)
    measured = (history["num_correct"] / history["num_scored"]).set_axis(history["prompt_id"])
    found = estimates.set_index("prompt_id")["estimated_accuracy"]
    assert found[measured.index].tolist() == measured.tolist()
    audit = history[history["reason"] == "audit"]
    overall = audit["num_correct"].sum() / audit["num_scored"].sum()
    assert found.drop(measured.index).tolist() == [overall] * (len(found) - len(measured))


def test_outcomes_and_priorities_take_the_estimate_that_was_selected_by(project: Path) -> None:
    for round_number in CHOICES:
        schedule = table(project, "schedule", round_number).set_index("prompt_id")
        history = table(project, "outcome_history", round_number)
        history = history[history["scheduled_round"] == round_number].set_index("prompt_id")
        batch = table(project, "training_batch", round_number).query("origin == 'fresh'")
        for name in ("log_z", "estimated_accuracy"):
            assert history[name].to_dict() == schedule[name].to_dict()
        expected = (batch["observed_accuracy"] - batch["prompt_id"].map(schedule["estimated_accuracy"])).abs()
        np.testing.assert_allclose(batch["priority"], expected, rtol=1e-12)


def history_of(rows: list[tuple[int, str, str, float, float, int, int]]) -> pd.DataFrame:
    names = [
        "scheduled_round",
        "prompt_id",
        "reason",
        "log_z",
        "estimated_accuracy",
        "num_scored",
        "num_correct",
    ]
    assert set(names) == set(OUTCOME_HISTORY.names)
    return pd.DataFrame(rows, columns=names)


ROWS = [
    (2, "b", "audit", 4.0, 0.9, 8, 3),
    (6, "a", "selected", 8.0, 0.7, 8, 8),
    (7, "b", "selected", 6.0, 0.8, 0, 0),  # every verifier failed
    (7, "c", "warm_up", 2.0, 0.6, 8, 1),
]


def test_outcomes_are_aligned_with_the_prompts_and_cut_to_the_window() -> None:
    outcomes = outcomes_of(
        history_of(ROWS), ["c", "a", "b"], round_number=8, num_past_rounds=5, reward_temperature=None
    )
    assert outcomes.prompt_indices.tolist() == [1, 0]
    assert outcomes.ages.tolist() == [2, 1]
    assert outcomes.num_correct.tolist() == [8, 1]
    assert outcomes.prior_estimates.tolist() == [0.7, 0.6]
    assert group_means(outcomes, num_prompts_total=3, unmeasured=0.5).tolist() == [1 / 8, 1.0, 1 / 8]


def test_priors_can_be_the_heads() -> None:
    outcomes = outcomes_of(
        history_of(ROWS), ["a", "b", "c"], round_number=8, num_past_rounds=6, reward_temperature=BETA
    )
    np.testing.assert_allclose(outcomes.prior_estimates, [0.2, 0.4, 0.1])


def test_no_half_life_no_outcomes_and_an_unknown_prompt_is_refused() -> None:
    window: dict[str, Any] = {"round_number": 8, "reward_temperature": None}
    assert len(outcomes_of(history_of(ROWS), ["a", "b", "c"], num_past_rounds=0, **window)) == 0
    with pytest.raises(ValueError, match=r"names 1 prompts without an estimate, first \['b'\]"):
        outcomes_of(history_of(ROWS), ["a", "c"], num_past_rounds=6, **window)


def test_posterior_counts_an_outcome_once_whatever_the_estimator() -> None:
    """With `beta_posterior` the estimates hold the outcomes already; the schedule is that of the head's prior."""
    generator = np.random.default_rng(0)
    ids = [f"p{index:02d}" for index in range(40)]
    log_z = generator.uniform(0, 20, 40)
    rows = [(1, ids[i], "audit", log_z[i], 0.5, 8, int(generator.integers(0, 9))) for i in range(0, 40, 3)]
    head = pd.DataFrame({"prompt_id": ids, "split": "train", "log_z": log_z, "estimated_accuracy": log_z * BETA})
    schedules = []
    for estimator, estimates in (("learned", log_z * BETA), ("beta_posterior", generator.random(40))):
        scheduling = SchedulingParameters(selector="posterior", estimator=estimator, num_prompts=8, warm_up_rounds=1)
        history = history_of(rows).assign(estimated_accuracy=[row[3] * BETA for row in rows])
        if estimator == "beta_posterior":
            history["estimated_accuracy"] = generator.random(len(rows))
        table_of_estimates = head.assign(estimated_accuracy=estimates)
        schedules.append(schedule_prompts(table_of_estimates, history, scheduling, TrainingParameters(), 2, 0))
    assert schedules[0]["prompt_id"].tolist() == schedules[1]["prompt_id"].tolist()


def test_the_history_is_as_long_as_the_half_life_asks() -> None:
    """Three half-lives of 4 rounds: round 42 reads rounds 30 to 41, and round 41 keeps just these."""
    scheduling = SchedulingParameters(outcome_half_life=4.0)
    earlier = history_of([(number, "a", "audit", 10.0, 0.5, 8, 4) for number in range(1, 41)])
    schedule = pd.DataFrame({"prompt_id": ["a"], "reason": "selected", "log_z": 8.0, "estimated_accuracy": 0.6})
    verdicts = pd.DataFrame({"prompt_id": ["a", "a", "a"], "reward": [1.0, 0.0, None]})
    history = record_outcomes(
        schedule,
        verdicts,
        earlier,
        ReportingParameters(calibration_window=1),
        TrainingParameters(log_z_half_life=0.0),
        scheduling,
        41,
    )
    assert history["scheduled_round"].tolist() == [*range(30, 42)]
    assert history.iloc[-1].to_dict() == {
        "scheduled_round": 41,
        "prompt_id": "a",
        "reason": "selected",
        "log_z": 8.0,
        "estimated_accuracy": 0.6,
        "num_scored": 2,
        "num_correct": 1,
    }
    outcomes = outcomes_of(
        history, ["a"], round_number=42, num_past_rounds=scheduling.outcome_past_rounds, reward_temperature=BETA
    )
    assert outcomes.ages.tolist() == [*range(12, 0, -1)]
