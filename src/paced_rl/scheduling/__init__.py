"""Which prompts a round takes and which completions it trains on again. NumPy only."""

from paced_rl.scheduling.beliefs import (
    Beliefs,
    expected_reward_variance,
    fit_prior_strength,
    mean_accuracy,
    posterior_beliefs,
)
from paced_rl.scheduling.estimates import estimated_accuracy
from paced_rl.scheduling.estimators import Estimator, estimate_by, group_means
from paced_rl.scheduling.outcomes import Outcomes, forgotten_counts, last_measured, no_outcomes
from paced_rl.scheduling.replay import (
    ReplayEntries,
    check_valid,
    content_key,
    empty_entries,
    expected_priority,
    priority,
    select_for_replay,
    update_entries,
)
from paced_rl.scheduling.schedule import Schedule, Selector, SelectorSettings, build_schedule
from paced_rl.scheduling.selectors import (
    beta_thompson,
    nearest,
    pass_rate_variance,
    posterior,
    softened,
    uniform_positions,
)

__all__ = [
    "Beliefs",
    "Estimator",
    "Outcomes",
    "ReplayEntries",
    "Schedule",
    "Selector",
    "SelectorSettings",
    "beta_thompson",
    "build_schedule",
    "check_valid",
    "content_key",
    "empty_entries",
    "estimate_by",
    "estimated_accuracy",
    "expected_priority",
    "expected_reward_variance",
    "fit_prior_strength",
    "forgotten_counts",
    "group_means",
    "last_measured",
    "mean_accuracy",
    "nearest",
    "no_outcomes",
    "pass_rate_variance",
    "posterior",
    "posterior_beliefs",
    "priority",
    "select_for_replay",
    "softened",
    "uniform_positions",
    "update_entries",
]
