"""Which objectives go with which options, and what a default means under each."""

from typing import Any

import pytest
from pydantic import ValidationError

from paced_rl.parameters import TrainingParameters

GROUP_OBJECTIVES = ["vargrad", "flowrl", "gflowrl", "grpo", "dr_grpo", "dapo", "rloo"]
BALANCES = ["paced", "vargrad", "flowrl", "gflowrl"]


@pytest.mark.parametrize("objective", GROUP_OBJECTIVES)
def test_objectives_of_whole_groups_take_no_replay(objective: str) -> None:
    with pytest.raises(ValidationError, match=f"objective {objective} needs every completion's whole group"):
        TrainingParameters(objective=objective, replay_max_added=1)
    assert TrainingParameters(objective=objective, replay_max_added=0).needs_groups


@pytest.mark.parametrize("objective", BALANCES)
def test_squared_residuals_take_no_weights_of_tokens(objective: str) -> None:
    with pytest.raises(ValidationError, match="to sequence or off"):
        TrainingParameters(objective=objective, replay_max_added=0, importance_correction="token")
    kept = TrainingParameters(objective=objective, replay_max_added=0, importance_correction="sequence")
    assert kept.importance_correction == "sequence"


def test_a_bare_off_in_yaml_is_understood() -> None:
    assert TrainingParameters(importance_correction=False).importance_correction == "off"
    with pytest.raises(ValidationError, match="importance_correction"):
        TrainingParameters(importance_correction=True)


@pytest.mark.parametrize(
    ("changes", "clip_range"),
    [
        ({"objective": "grpo"}, (0.2, 0.2)),
        ({"objective": "dr_grpo", "clip_ratio": 0.3}, (0.3, 0.3)),
        ({"objective": "dapo"}, (0.2, 0.28)),
        ({"objective": "dapo", "clip_ratio": 0.1}, (0.1, 0.28)),
        ({"objective": "grpo", "clip_ratio_high": 0.25}, (0.2, 0.25)),
        ({"objective": "dapo", "clip_ratio_high": 0.2}, (0.2, 0.2)),
        ({"objective": "flowrl"}, (0.2, 0.2)),
        ({"objective": "gflowrl"}, (0.2, 1.0)),
        ({"objective": "gflowrl", "clip_ratio_high": 0.5}, (0.2, 0.5)),
    ],
)
def test_the_clip_range_of_each_objective(changes: dict[str, Any], clip_range: tuple[float, float]) -> None:
    assert TrainingParameters(replay_max_added=0, **changes).clip_range == clip_range


def test_a_cap_below_one_is_refused() -> None:
    with pytest.raises(ValidationError, match="importance_cap"):
        TrainingParameters(importance_cap=0.5)


@pytest.mark.parametrize("objective", BALANCES)
def test_squared_residuals_take_no_penalty(objective: str) -> None:
    with pytest.raises(ValidationError, match=r"has its anchor within.*one of grpo, dr_grpo, dapo, rloo"):
        TrainingParameters(objective=objective, replay_max_added=0, kl_coefficient=0.01)


@pytest.mark.parametrize(
    ("changes", "needs_reference"),
    [
        ({}, False),
        ({"objective": "vargrad"}, False),
        ({"objective": "flowrl"}, True),
        ({"objective": "gflowrl"}, True),
        ({"objective": "grpo"}, False),
        ({"objective": "grpo", "kl_coefficient": 1e-3}, True),
    ],
)
def test_the_reference_policy_is_scored_only_where_a_loss_reads_it(
    changes: dict[str, Any], needs_reference: bool
) -> None:
    assert TrainingParameters(replay_max_added=0, **changes).needs_reference == needs_reference


def test_the_scales_of_the_flow_objectives() -> None:
    found = [
        TrainingParameters(objective=objective, replay_max_added=0, flow_reward_scale=scale).reward_scale
        for objective in ("flowrl", "gflowrl")
        for scale in (None, 3.0)
    ]
    assert found == [15.0, 3.0, 8.0, 3.0]


def test_the_head_of_flowrl_has_no_past() -> None:
    """A group of an earlier round asks for its accuracy by β, which is not what that head learns."""
    assert TrainingParameters(log_z_half_life=10).log_z_past_rounds == 30
    assert TrainingParameters(objective="flowrl", replay_max_added=0, log_z_half_life=10).log_z_past_rounds == 0


def test_without_replay_there_are_no_replayed_rows_to_train_the_head() -> None:
    with pytest.raises(ValidationError, match="nothing is replayed that could train the head"):
        TrainingParameters(replay_trains_head=True, replay_max_added=0)
    assert TrainingParameters(replay_trains_head=True).replay_trains_head


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("rounds", [{}, {"learning_rate_total_rounds": 5, "learning_rate_warm_up_rounds": 5}])
def test_a_falling_rate_needs_an_end_after_its_warm_up(schedule: str, rounds: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=r"set training\.learning_rate_total_rounds above the warm-up"):
        TrainingParameters(learning_rate_schedule=schedule, **rounds)
    assert TrainingParameters(learning_rate_warm_up_rounds=5).learning_rate_schedule == "constant"
