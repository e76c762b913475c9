"""Kedro's settings for this project."""

import gc
import importlib.util
import os
import sys

from paced_rl.configuration import RoundConfigLoader
from paced_rl.hooks import LockHook, MlflowHook, PreflightHook, ProvenanceHook, SummaryHook, TimingsHook
from paced_rl.session import PacedSession

# Nothing phones home, and nothing is asked about it. A user's own environment wins.
for _name, _value in {
    "KEDRO_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}.items():
    os.environ.setdefault(_name, _value)

for _name in ("ibis", "pandera", "kedro.io.paced_rl", "kedro_datasets.paced_rl"):
    # Kedro tries to import the first two at every load of a parameter or table, hundreds of times a round, and looks
    # for the classes of our catalog among its own first. Python looks for a missing module anew each time, in every
    # folder of the path. None is its own way to say that it is not there.
    if importlib.util.find_spec(_name) is None:
        sys.modules.setdefault(_name, None)  # type: ignore[arg-type]

# torch, transformers, MLflow and Great Expectations are a million objects that live as long as the process. Python's
# collector would walk over all of them twice a minute, half a second each time, and over the young ones all the time.
gc.set_threshold(20_000, 20, 100)


def round_folder(round_number: int, offset: int) -> str:
    """Four digits, so that folders sort: `round_folder(3, -1)` is `0002`."""
    return f"{int(round_number) + int(offset):04d}"


SESSION_CLASS = PacedSession
HOOKS = (PreflightHook(), LockHook(), TimingsHook(), ProvenanceHook(), MlflowHook(), SummaryHook())
CONFIG_LOADER_CLASS = RoundConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft"},
    "custom_resolvers": {"round_folder": round_folder},
}
