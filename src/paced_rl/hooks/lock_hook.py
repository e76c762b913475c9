"""Keeps two processes from working on one experiment at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol

from paced_rl import locks


class LockHook:
    """Takes the experiment's lock for the run; the session gives it back, because no hook sees an interrupted run end.

    A loop over rounds holds the lock already, and keeps it when a round ends.
    """

    @hook_impl(tryfirst=True)  # before any hook that writes or tidies up
    def before_pipeline_run(self, run_params: Mapping[str, Any], catalog: CatalogProtocol) -> None:
        """Locks the experiment.

        Raises:
            PreflightError: another process works on it.
        """
        from paced_rl.preflight import PreflightError

        try:
            locks.RUN_LOCKS.enter_context(
                locks.experiment_lock(Path(run_params["project_path"]), catalog["params:experiment"].load())
            )
        except locks.ExperimentLockedError as error:
            raise PreflightError(str(error)) from error
