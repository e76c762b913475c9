"""A sequential runner that skips the nodes whose outputs are up to date."""

from collections import Counter
from collections.abc import Mapping
from itertools import chain

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import SequentialRunner
from kedro.runner.task import Task
from pluggy import PluginManager

from paced_rl.interrupts import StoppedError, is_stop_requested
from paced_rl.runner.attempts import MarkedAttempt
from paced_rl.runner.code_fingerprints import code_fingerprint
from paced_rl.runner.records import (
    explain,
    output_fingerprints,
    record_path,
    take_record,
    why_not_cacheable,
    write_record,
)


class CachingRunner(SequentialRunner):
    """Runs a node only if its code, parameters, inputs, outputs or libraries differ from those of its last full run.

    Each node is decided when its turn comes, by the contents of files: a node that reran and wrote the same bytes does
    not make what follows it run, and any slice of a pipeline is decided as the whole would be. Nodes that read or write
    something other than local files always run. Skipped nodes call no hooks.

    Args:
        force: run every node, whatever its record says.
        is_async: load and save with threads, as in Kedro.
        library_versions: distribution → version to compare with the recorded ones; None takes the installed ones.
    """

    def __init__(
        self, force: bool = False, is_async: bool = False, library_versions: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(is_async=is_async)
        self.force = force
        self._library_versions = library_versions
        self._cached: list[str] = []

    def __repr__(self) -> str:
        # kedro-viz records the status of runs only where this text holds Kedro's own phrase for a sequential runner.
        return f"<{type(self).__name__}(force={self.force}), a kedro.runner.sequential_runner.SequentialRunner object>"

    def _run(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
    ) -> None:
        nodes = pipeline.nodes
        for node in nodes:
            # All sources are read before any node runs, so that an edit made meanwhile is not taken for what ran.
            code_fingerprint(node.func)
        load_counts = Counter(chain.from_iterable(node.inputs for node in nodes))
        done: dict[Node, bool] = {}
        self._cached.clear()
        try:
            for node in nodes:
                if is_stop_requested():
                    raise StoppedError(f"after {list(done)[-1].name}" if done else f"before {node.name}")
                done[node] = self._run_if_stale(node, catalog, hook_manager, run_id)
                self._release_datasets(node, catalog, load_counts, pipeline)
        finally:
            self._tell_cached()
            if len(done) < len(nodes):
                self._logger.warning(
                    "%d of %d nodes have not run. Repeat the command to go on: what has finished is cached.",
                    len(nodes) - len(done),
                    len(nodes),
                )
        num_ran = sum(done.values())
        ran = "1 node ran" if num_ran == 1 else f"{num_ran} nodes ran"
        self._logger.info("%s, %d are cached", ran, len(done) - num_ran)

    def _run_if_stale(
        self, node: Node, catalog: CatalogProtocol, hook_manager: PluginManager | None, run_id: str | None
    ) -> bool:
        """Run a node through Kedro's own task unless it is up to date; True if it ran."""
        reason = "forced" if self.force else explain(node, catalog, library_versions=self._library_versions)
        if reason is None:
            self._cached.append(node.name)
            return False
        self._tell_cached()
        self._logger.info("%s runs: %s", node.name, reason)
        task = Task(node=node, catalog=catalog, is_async=self._is_async, hook_manager=hook_manager, run_id=run_id)
        if why_not_cacheable(node, catalog) is not None:
            task.execute()
            return True
        path = record_path(node, catalog)
        path.unlink(missing_ok=True)
        # Taken before the node starts: an input that changes under it must count as changed next time.
        record = take_record(node, catalog, self._library_versions)
        with MarkedAttempt(path):
            task.execute()
            outputs = output_fingerprints(node, catalog)
        # Last of all: a kill before this makes the node run again, and a kill after it leaves no mark of an attempt.
        write_record(path, record, outputs)
        return True

    def _tell_cached(self) -> None:
        """One line for all nodes that were skipped since the last one."""
        if self._cached:
            count = f"{len(self._cached)} nodes are" if len(self._cached) > 1 else "1 node is"
            self._logger.info("%s cached: %s", count, ", ".join(self._cached))
        self._cached.clear()
