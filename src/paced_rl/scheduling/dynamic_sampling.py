"""DAPO's rule in a round without a loop: roll out more prompts than will train, and drop the groups that teach nothing.

Source: dynamic sampling of https://arxiv.org/abs/2503.14476, which rolls out batch after batch until enough groups are
neither all right nor all wrong. Differs: how many prompts that takes is foreseen from earlier rounds, so that a round
stays one pass through rollout and verification; it may end with fewer groups than wanted, or with a surplus.
"""

import math

import numpy as np
from jaxtyping import Bool, Int

from paced_rl.scheduling.outcomes import Outcomes

FIRST_INFORMATIVE_SHARE = 0.5
"""Share of informative groups before any has been measured: twice as many prompts as groups are wanted."""


def num_prompts_to_roll_out(outcomes: Outcomes, *, num_prompts: int, max_oversampling: float, half_life: float) -> int:
    """How many prompts it takes, as earlier rounds went, to have `num_prompts` informative groups among them.

        ⌈num_prompts / f⌉,   f = Σ 2^(−age/half_life)·[0 < num_correct < num_scored] / Σ 2^(−age/half_life)

    Args:
        outcomes: of earlier rounds; every group counts, since this rule draws all of them uniformly. After rounds of a
            selector f is too high at first, and comes right within about a half-life.
        num_prompts: informative groups wanted.
        max_oversampling: at most ⌊max_oversampling · num_prompts⌋ prompts, also when f = 0; at least 1.
        half_life: rounds after which an outcome counts half, above 0 where there are outcomes.

    Returns:
        A number from `num_prompts` to the cap.

    Raises:
        ValueError: `max_oversampling` is below 1.
    """
    if not max_oversampling >= 1:
        raise ValueError(f"scheduling.max_oversampling = {max_oversampling}: it must be at least 1, which adds nothing")
    share = FIRST_INFORMATIVE_SHARE
    if len(outcomes):
        is_informative = (outcomes.num_correct > 0) & (outcomes.num_correct < outcomes.num_scored)
        share = float(np.average(is_informative, weights=0.5 ** (outcomes.ages / half_life)))
    most = math.floor(max_oversampling * num_prompts)
    return most if share * most <= num_prompts else math.ceil(num_prompts / share)


def groups_to_train_on(
    num_correct: Int[np.ndarray, " num_groups"], num_scored: Int[np.ndarray, " num_groups"], *, num_prompts: int
) -> Bool[np.ndarray, " num_groups"]:
    """True for the first `num_prompts` informative groups: those with both right and wrong completions.

    Where not one group is informative, the first `num_prompts` scored ones, as in a round of `uniform`: a batch without
    rows cannot train, and to the paced loss such groups say something still.

    Args:
        num_correct: right completions of each group, by rank.
        num_scored: completions with a reward; 0 where the verifier failed on all of them.
        num_prompts: how many to keep at most.
    """
    is_wanted = (num_correct > 0) & (num_correct < num_scored)
    if not is_wanted.any():
        is_wanted = num_scored > 0
    return is_wanted & (np.cumsum(is_wanted) <= num_prompts)
