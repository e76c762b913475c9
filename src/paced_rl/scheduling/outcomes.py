"""What earlier rounds measured: the outcomes of scored groups, and what they say of each prompt."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from paced_rl.types import ScheduleReason


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """Scored groups of earlier rounds, one row each. A prompt may have many rows, or none."""

    prompt_indices: Int[np.ndarray, " num_groups"]
    """Which prompt, as an index into the estimates that the rows go with."""
    ages: Int[np.ndarray, " num_groups"]
    """Rounds since the group was sampled; 1 for the round before this one."""
    num_correct: Int[np.ndarray, " num_groups"]
    num_scored: Int[np.ndarray, " num_groups"]
    """Completions with a reward, above 0."""
    reasons: Shaped[np.ndarray, " num_groups"]
    """Text, the values of `ScheduleReason`."""
    prior_estimates: Float[np.ndarray, " num_groups"]
    """What was expected of the group when it was scheduled, before its own outcome was known; in [0, 1]."""

    def __len__(self) -> int:
        return len(self.prompt_indices)

    @property
    def is_audit(self) -> Shaped[np.ndarray, " num_groups"]:
        """True where the group was in the audit slice."""
        return np.asarray(self.reasons == ScheduleReason.AUDIT.value, dtype=bool)

    @property
    def is_uniform(self) -> Shaped[np.ndarray, " num_groups"]:
        """True where no selector chose the prompt: audit slice and warm-up."""
        return np.asarray(self.reasons != ScheduleReason.SELECTED.value, dtype=bool)


def no_outcomes() -> Outcomes:
    """Before the first round."""
    numbers = np.empty(0, dtype=np.int64)
    return Outcomes(
        prompt_indices=numbers,
        ages=numbers,
        num_correct=numbers,
        num_scored=numbers,
        reasons=np.empty(0, dtype=np.str_),
        prior_estimates=np.empty(0, dtype=np.float64),
    )


def forgotten_counts(
    outcomes: Outcomes, *, num_prompts_total: int, half_life: float
) -> tuple[Float[np.ndarray, " num_prompts_total"], Float[np.ndarray, " num_prompts_total"]]:
    """Right and wrong completions of each prompt, each counted 2^(−age/half_life). Zero where nothing was measured.

    Args:
        outcomes: of earlier rounds.
        num_prompts_total: how many prompts there are.
        half_life: rounds after which a completion counts half, above 0 where there are outcomes.

    Raises:
        ValueError: an outcome of a prompt that is not among them, or an impossible group.
    """
    check_outcomes(outcomes, num_prompts_total)
    weights = 0.5 ** (outcomes.ages / half_life) if len(outcomes) else np.empty(0)
    right = np.bincount(outcomes.prompt_indices, weights * outcomes.num_correct, num_prompts_total)
    scored = np.bincount(outcomes.prompt_indices, weights * outcomes.num_scored, num_prompts_total)
    return right, np.maximum(scored - right, 0.0)


def last_measured(
    outcomes: Outcomes, num_prompts_total: int
) -> tuple[Float[np.ndarray, " num_prompts_total"], Float[np.ndarray, " num_prompts_total"]]:
    """Observed accuracy of each prompt's newest group, and that group's age in rounds.

    Returns:
        NaN and infinity where no group of the prompt is among the outcomes.

    Raises:
        ValueError: see `forgotten_counts`.
    """
    check_outcomes(outcomes, num_prompts_total)
    accuracies, ages = np.full(num_prompts_total, np.nan), np.full(num_prompts_total, np.inf)
    oldest_first = np.argsort(-outcomes.ages, kind="stable")
    rows = outcomes.prompt_indices[oldest_first]
    # Of several values for one index the last is kept, and the last is the newest.
    accuracies[rows] = (outcomes.num_correct / outcomes.num_scored)[oldest_first]
    ages[rows] = outcomes.ages[oldest_first]
    return accuracies, ages


def check_outcomes(outcomes: Outcomes, num_prompts_total: int) -> None:
    """Refuse outcomes that no earlier round can have left.

    Raises:
        ValueError: names the broken rule: prompts among those estimated, ages of at least 1, correct completions
            between 0 and the scored ones, of which there is at least one.
    """
    if not len(outcomes):
        return
    indices = outcomes.prompt_indices
    if indices.min() < 0 or indices.max() >= num_prompts_total:
        raise ValueError(
            f"outcomes name prompts {indices.min()} to {indices.max()}, and there are {num_prompts_total} estimates: "
            "prompts and outcome_history are of different experiments; run the experiment from its first round"
        )
    if outcomes.ages.min() < 1:
        raise ValueError(f"outcomes must be of earlier rounds, at least 1 round old, got {outcomes.ages.min()}")
    if (outcomes.num_scored < 1).any() or (outcomes.num_correct < 0).any():
        raise ValueError("outcomes must have at least 1 scored completion and no negative count")
    if (outcomes.num_correct > outcomes.num_scored).any():
        raise ValueError("outcomes have more correct than scored completions: outcome_history was not made by a round")
