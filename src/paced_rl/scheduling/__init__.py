"""Which prompts a round takes and which completions it trains on again. NumPy only."""

from paced_rl.scheduling.estimates import estimated_accuracy
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
from paced_rl.scheduling.schedule import Schedule, build_schedule
from paced_rl.scheduling.selectors import nearest, uniform_positions

__all__ = [
    "ReplayEntries",
    "Schedule",
    "build_schedule",
    "check_valid",
    "content_key",
    "empty_entries",
    "estimated_accuracy",
    "expected_priority",
    "nearest",
    "priority",
    "select_for_replay",
    "uniform_positions",
    "update_entries",
]
