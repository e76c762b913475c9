"""Outcomes to test selectors and estimators on."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from paced_rl.scheduling import Outcomes


def outcomes_from(rows: list[tuple[int, int, int, int, str, float]]) -> Outcomes:
    """From rows of (prompt, age, correct, scored, reason, prior estimate)."""
    columns: list[Any] = [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * 6
    prompts, ages, correct, scored, reasons, priors = columns
    return Outcomes(
        prompt_indices=np.array(prompts, dtype=np.int64),
        ages=np.array(ages, dtype=np.int64),
        num_correct=np.array(correct, dtype=np.int64),
        num_scored=np.array(scored, dtype=np.int64),
        reasons=np.array(reasons, dtype=np.str_),
        prior_estimates=np.array(priors, dtype=np.float64),
    )


@st.composite
def outcome_rows(draw: st.DrawFn, num_prompts: int) -> list[tuple[int, int, int, int, str, float]]:
    """Rows of earlier rounds over `num_prompts` prompts, a prompt once per round at most, in no particular order."""
    keys = draw(st.sets(st.tuples(st.integers(0, num_prompts - 1), st.integers(1, 30)), max_size=40))
    rows = []
    for prompt, age in draw(st.permutations(sorted(keys))):
        scored = draw(st.integers(1, 8))
        reason = draw(st.sampled_from(["selected", "audit", "warm_up"]))
        rows.append((prompt, age, draw(st.integers(0, scored)), scored, reason, draw(st.floats(0, 1))))
    return rows
