"""What happens around a run: checks before it, timings, MLflow and a summary after it.

The order of the hooks after a run is fixed by their own markers (timings first, summary last), not by the list in
`settings.py`. They see the nodes of sequential and thread runners; a ParallelRunner runs nodes out of their sight.
"""

from paced_rl.hooks.lock_hook import LockHook
from paced_rl.hooks.mlflow_tracking import MlflowHook
from paced_rl.hooks.preflight_hook import PreflightHook
from paced_rl.hooks.provenance_hook import ProvenanceHook
from paced_rl.hooks.summary import SummaryHook
from paced_rl.hooks.timings import TimingsHook

__all__ = ["LockHook", "MlflowHook", "PreflightHook", "ProvenanceHook", "SummaryHook", "TimingsHook"]
