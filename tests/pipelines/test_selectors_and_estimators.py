"""Rounds with every selector and every estimator: what the tables say of the head, of the estimate, of the outcomes."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from project_folders import inside, make_project, run

from paced_rl.inspection.experiment import open_experiment
from paced_rl.inspection.reexecution import verify_round
from paced_rl.inspection.states import experiment_states
from paced_rl.parameters import ReportingParameters, SchedulingParameters, TrainingParameters
from paced_rl.pipelines.scheduling.history import outcomes_of
from paced_rl.pipelines.scheduling.nodes import schedule_prompts
from paced_rl.pipelines.training.dropped_groups import without_dropped_groups
from paced_rl.pipelines.verification.nodes import record_outcomes
from paced_rl.preflight import PreflightError
from paced_rl.scheduling import Estimator, Selector, group_means
from paced_rl.schemas import OUTCOME_HISTORY
from paced_rl.session import PacedSession

BETA = TrainingParameters().reward_temperature
CHOICES = {
    1: ("uniform", "learned"),  # the warm-up round of conf/test, where every other selector would draw uniformly too
    2: ("softened", "group_mean"),
    3: ("posterior", "beta_posterior"),
    4: ("beta_thompson", "constant"),
    5: ("pass_rate_variance", "random"),
    6: ("dynamic_sampling", "learned"),
    7: ("oracle", "learned"),
    8: ("posterior_thompson", "learned"),
    9: ("nearest", "learned"),
}
"""Round → selector and estimator; one experiment may change them from round to round."""
POOL = 20
"""Candidates of a round."""


def round_params(round_number: int) -> dict[str, Any]:
    selector, estimator = CHOICES[round_number]
    scheduling = {"selector": selector, "estimator": estimator, "candidate_pool_size": POOL, "oracle_samples": 3}
    return {"scheduling": scheduling, "evaluation": {"every": 10}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("choices") / "project")
    for number in CHOICES:
        assert run(folder, range(number, number + 1), params=round_params(number)) == [number]
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
    for round_number, (selector, _) in CHOICES.items():
        schedule = table(project, "schedule", round_number)
        size = schedule["prompt_id"].nunique()
        assert len(schedule) == size
        assert (8 <= size <= 24) if selector == "dynamic_sampling" else size == 8
        assert schedule["reason"].tolist() == ["selected"] * (size - 1) + ["audit"]


def test_dynamic_sampling_rolls_out_what_it_needs_and_trains_on_what_teaches(project: Path) -> None:
    before, history = table(project, "outcome_history", 5), table(project, "outcome_history", 6)
    is_informative = (before["num_correct"] > 0) & (before["num_correct"] < before["num_scored"])
    share = np.average(is_informative, weights=0.5 ** ((6 - before["scheduled_round"]) / 10))
    schedule, rollouts = table(project, "schedule", 6), table(project, "rollouts", 6)
    assert len(schedule) == (np.ceil(8 / share) if share * 24 > 8 else 24)
    assert rollouts["prompt_id"].unique().tolist() == schedule["prompt_id"].tolist()
    assert table(project, "round_summary", 6)["tokens_sampled"].item() == rollouts["num_tokens"].sum()
    now = history[history["scheduled_round"] == 6].set_index("prompt_id").loc[schedule["prompt_id"]]
    assert len(now) == len(schedule)
    informative = now.index[(now["num_correct"] > 0) & (now["num_correct"] < now["num_scored"])]
    fresh = table(project, "training_batch", 6).query("origin == 'fresh'")
    assert fresh["prompt_id"].unique().tolist() == informative[:8].tolist()
    assert (fresh.groupby("prompt_id").size() == 4).all()


def test_oracle_measures_its_candidates_and_takes_the_nearest(project: Path) -> None:
    measured, schedule = table(project, "measured_accuracies", 7), table(project, "schedule", 7)
    audit = schedule.loc[schedule["reason"] == "audit", "prompt_id"]
    assert POOL - len(audit) <= len(measured) <= POOL
    assert (measured["num_scored"] == 3).all()
    distance = ((measured["num_correct"] / 3) - 0.5).abs().set_axis(measured["prompt_id"])
    selected = distance[schedule.loc[schedule["reason"] == "selected", "prompt_id"]]
    np.testing.assert_allclose(selected, sorted(distance)[:7])
    summary = table(project, "round_summary", 7).iloc[0]
    assert summary["tokens_measured"] == measured["num_tokens"].sum() > 0
    assert summary["tokens_sampled"] == table(project, "rollouts", 7)["num_tokens"].sum()
    curves = [table(project, "learning_curve", number)["tokens_sampled"].iloc[-1] for number in (6, 7)]
    assert curves[1] - curves[0] == summary["tokens_sampled"]
    assert table(project, "round_summary", 8)["tokens_measured"].isna().all()


def test_status_and_verify_take_the_oracles_pipeline_by_themselves(project: Path) -> None:
    with inside(project):
        nodes = {
            number: {
                state.node
                for state in experiment_states(open_experiment(project, env="test", params=round_params(number)))
            }
            for number in (7, 8)
        }
        result = verify_round(open_experiment(project, env="test"), 7, env="test")
    assert nodes[7] - nodes[8] == {"measure_candidates"}
    assert nodes[8] <= nodes[7]
    assert not result.obstacle
    assert not result.is_different, result.comparisons
    assert "measured_accuracies" in {comparison.name for comparison in result.comparisons}


@pytest.mark.parametrize(
    ("round_number", "pipeline", "message"),
    [
        (7, "paced_round", "run `kedro run --pipeline=oracle_round --env=test "),
        (7, "scheduling", "run `kedro run --pipeline=oracle_round --env=test "),
        (9, "oracle_round", "selector = nearest would pay for and not look at"),
    ],
)
def test_oracle_is_refused_where_nothing_is_measured(
    project: Path, round_number: int, pipeline: str, message: str
) -> None:
    params = {**round_params(round_number), "round": round_number}
    with (
        inside(project),
        PacedSession.create(project, env="test", runtime_params=params) as session,
        pytest.raises(PreflightError, match=message),
    ):
        session.run(pipeline_names=[pipeline])


def test_a_round_without_an_informative_group_trains_on_what_is_there() -> None:
    rewards = {"a": [0.0, 0.0], "b": [1.0, 1.0], "c": [0.0, 0.0]}
    fresh = pd.DataFrame([(name, reward) for name, pair in rewards.items() for reward in pair])
    fresh = fresh.set_axis(["prompt_id", "reward"], axis=1)
    schedule = pd.DataFrame({"prompt_id": ["c", "b", "a", "d"], "rank": range(4)})  # every verifier failed on d
    scheduling = SchedulingParameters(selector="dynamic_sampling", num_prompts=2)
    kept = without_dropped_groups(fresh, schedule, scheduling)
    assert kept["prompt_id"].tolist() == ["b", "b", "c", "c"]
    rewards["a"] = [0.0, 1.0]
    fresh["reward"] = [reward for pair in rewards.values() for reward in pair]
    assert without_dropped_groups(fresh, schedule, scheduling)["prompt_id"].tolist() == ["a", "a"]
    other = SchedulingParameters(selector="uniform", num_prompts=2)
    assert without_dropped_groups(fresh, schedule, other) is fresh


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
