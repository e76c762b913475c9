"""Which prompts a round takes and which completions it trains on again. NumPy only."""

from paced_rl.scheduling.beliefs import (
    Beliefs,
    expected_reward_variance,
    fit_prior_strength,
    mean_accuracy,
    posterior_beliefs,
)
from paced_rl.scheduling.draws import candidates_to_measure
from paced_rl.scheduling.dynamic_sampling import groups_to_train_on, num_prompts_to_roll_out
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
from paced_rl.scheduling.replay_audit import log_z_shift
from paced_rl.scheduling.schedule import Schedule, Selector, SelectorSettings, build_schedule
from paced_rl.scheduling.selectors import (
    nearest,
    oracle,
    pass_rate_variance,
    posterior,
    softened,
    thompson,
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
    "build_schedule",
    "candidates_to_measure",
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
    "groups_to_train_on",
    "last_measured",
    "log_z_shift",
    "mean_accuracy",
    "nearest",
    "no_outcomes",
    "num_prompts_to_roll_out",
    "oracle",
    "pass_rate_variance",
    "posterior",
    "posterior_beliefs",
    "priority",
    "select_for_replay",
    "softened",
    "thompson",
    "uniform_positions",
    "update_entries",
]
