"""The policy's learning rate as a function of the round, so that a resumed experiment has the rate of an uninterrupted
one without a scheduler whose state would have to be kept."""

import math

from paced_rl.parameters import TrainingParameters


def learning_rate_of_round(parameters: TrainingParameters, round_number: int) -> float:
    """The rate of all optimiser steps of a round: the schedule at the middle of it, t = round − 1/2.

    factor = t / W                         while t < W, the warm-up
    factor = 1                             `constant`
    factor = 1 − u                         `linear`,  u = (t − W) / (T − W), at most 1
    factor = (1 + cos(π·u)) / 2            `cosine`

    Zero after round T. Source: the schedules of transformers (`get_linear_schedule_with_warmup` and its siblings).
    Differs: counted in rounds and taken at their middle, since at a round's begin the first one would be trained at 0.

    Args:
        parameters: of the training.
        round_number: counted from 1.
    """
    time, warm_up = round_number - 0.5, parameters.learning_rate_warm_up_rounds
    if time < warm_up:
        return parameters.learning_rate * time / warm_up
    total = parameters.learning_rate_total_rounds
    if parameters.learning_rate_schedule == "constant" or total is None:
        return parameters.learning_rate
    progress = min(1.0, (time - warm_up) / (total - warm_up))
    falling = 1 - progress if parameters.learning_rate_schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return parameters.learning_rate * falling
