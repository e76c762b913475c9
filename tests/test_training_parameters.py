"""Which objectives go with which options, and what a default means under each."""

from typing import Any

import pytest
from pydantic import ValidationError

from paced_rl.parameters import TrainingParameters

GROUP_OBJECTIVES = ["vargrad", "grpo", "dr_grpo", "dapo", "rloo"]


@pytest.mark.parametrize("objective", GROUP_OBJECTIVES)
def test_objectives_of_whole_groups_take_no_replay(objective: str) -> None:
    with pytest.raises(ValidationError, match=f"objective {objective} needs every completion's whole group"):
        TrainingParameters(objective=objective, replay_max_added=1)
    assert TrainingParameters(objective=objective, replay_max_added=0).needs_groups


@pytest.mark.parametrize("objective", ["paced", "vargrad"])
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
    ],
)
def test_the_clip_range_of_each_objective(changes: dict[str, Any], clip_range: tuple[float, float]) -> None:
    assert TrainingParameters(replay_max_added=0, **changes).clip_range == clip_range


def test_a_cap_below_one_is_refused() -> None:
    with pytest.raises(ValidationError, match="importance_cap"):
        TrainingParameters(importance_cap=0.5)
