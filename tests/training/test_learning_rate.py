"""The learning rate of a round against the schedules of transformers, taken at the middle of the round."""

import pytest
import torch
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from paced_rl.parameters import TrainingParameters
from paced_rl.training.learning_rate import learning_rate_of_round

RATE = 3e-4


def rates(schedule: str, warm_up: int, total: int | None, num_rounds: int) -> list[float]:
    parameters = TrainingParameters(
        learning_rate=RATE,
        learning_rate_schedule=schedule,
        learning_rate_warm_up_rounds=warm_up,
        learning_rate_total_rounds=total,
    )
    return [learning_rate_of_round(parameters, number) for number in range(1, num_rounds + 1)]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("warm_up", "total"), [(0, 7), (3, 7), (1, 2), (4, 40)])
def test_it_is_the_schedule_of_transformers(schedule: str, warm_up: int, total: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=RATE)
    theirs = {
        "constant": get_constant_schedule_with_warmup(optimizer, warm_up),
        "linear": get_linear_schedule_with_warmup(optimizer, warm_up, total),
        "cosine": get_cosine_schedule_with_warmup(optimizer, warm_up, total),
    }[schedule]
    expected = [RATE * theirs.lr_lambdas[0](number + 0.5) for number in range(total)]
    assert rates(schedule, warm_up, total, total) == pytest.approx(expected, rel=1e-12)


def test_without_a_schedule_it_is_the_rate_itself() -> None:
    assert rates("constant", 0, None, 3) == [RATE] * 3


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_every_round_up_to_the_last_is_trained_and_none_after_it(schedule: str) -> None:
    found = rates(schedule, 2, 6, 20)
    assert min(found[:6]) > 0
    assert found[2:6] == sorted(found[2:6], reverse=True)
    assert found[6:] == [0.0] * 14
