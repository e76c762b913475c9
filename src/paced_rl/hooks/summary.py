"""One table at the end of a round: how it went, what it cost, where to look next."""

import math
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from paced_rl.command_lines import params_option
from paced_rl.hooks.common import file_of, is_round, read, stage_of
from paced_rl.hooks.timings import seconds_per_stage
from paced_rl.progress import message_console
from paced_rl.stages import ORACLE_PIPELINE, STAGES

FIGURES = ("calibration_figure", "estimates_figure", "learning_curve_figure")
"""Catalog names of the figures of a round."""

_STATUSES = ("right", "wrong", "unparseable", "timed_out", "truncated", "verifier_errors")


class SummaryHook:
    """Prints the summary of a round on stderr."""

    def __init__(self) -> None:
        self._executed: Counter[str] = Counter()

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Forgets what an earlier run in this process left."""
        self._executed.clear()

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Counts a node that is executed rather than cached."""
        self._executed[stage_of(node)] += 1

    @hook_impl(trylast=True)
    def after_pipeline_run(self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Prints the table, after everything else has been written."""
        if not is_round(pipeline):
            return
        summary = read(catalog, "round_summary")
        if summary is None or summary.empty:
            return
        lines = {
            **summary_lines(summary.iloc[0].to_dict()),
            "seconds": _seconds_line(read(catalog, "timings"), self._executed),
            "nodes": _nodes_line(pipeline, self._executed),
            **_next_lines(catalog, run_params, is_oracle="measured_accuracies" in pipeline.all_outputs()),
        }
        title = f"experiment {catalog['params:experiment'].load()}, round {catalog['params:round'].load()}"
        _print_panel(title, {label: text for label, text in lines.items() if text})


def summary_lines(summary: Mapping[str, Any]) -> dict[str, str]:
    """Label → text of what a row of `round_summary` says; a column that is absent or null shows as –."""

    def show(name: str, digits: int = 3) -> str:
        value = summary.get(name)
        return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"

    statuses = [(name.replace("_", " "), show(f"num_{name}", 0)) for name in _STATUSES]
    return {
        "accuracy": f"{show('accuracy')} of all, {show('accuracy_of_selected')} of selected, "
        f"{show('accuracy_of_audit')} of audit prompts; validation {show('validation_accuracy')}",
        "groups": f"informative {show('informative_fraction')}, near a half (hit rate) {show('hit_rate')}",
        "estimates off by": f"{show('mean_absolute_error_of_audit')} on audit prompts, where exact ones would show "
        f"{show('binomial_floor_of_audit')}; {show('mean_absolute_error_of_selected')} on selected ones",
        "completions": f"{show('num_completions', 0)}: "
        + ", ".join(f"{count} {name}" for name, count in statuses if count != "0"),
        "tokens": f"{show('tokens_sampled', 0)} sampled, {show('tokens_trained', 0)} trained, "
        f"{show('tokens_evaluated', 0)} evaluated"
        + (f", {measured} to measure candidates" if (measured := show("tokens_measured", 0)) != "–" else ""),
        "replay": f"{show('num_replayed', 0)} completions, mean age {show('replay_mean_age', 1)} rounds, "
        f"used {show('replay_mean_reuse_count', 1)} times before"
        if summary.get("num_replayed")
        else "none",
    }


def _seconds_line(timings: Any, executed: Mapping[str, int]) -> str:
    if timings is None or timings.empty:
        return ""
    seconds = seconds_per_stage(timings)
    order = [stage for stage in STAGES if stage in seconds] + [stage for stage in seconds if stage not in STAGES]
    parts = [f"{stage} {seconds[stage]:.1f}" if executed.get(stage) else f"{stage} cached" for stage in order]
    return ", ".join(parts)


def _nodes_line(pipeline: Pipeline, executed: Mapping[str, int]) -> str:
    num_executed = sum(executed.values())
    return f"{num_executed} executed, {len(pipeline.nodes) - num_executed} cached"


def _next_lines(catalog: CatalogProtocol, run_params: Mapping[str, Any], *, is_oracle: bool) -> dict[str, str]:
    figures = [file for name in FIGURES if (file := file_of(catalog, name)) is not None]
    # One line for all of them: three paths would be folded where a panel of 80 columns ends.
    folders = {
        os.path.relpath(file.parent, run_params["project_path"]).replace(file.stem, "*_figure") for file in figures
    }
    pipeline = f"--pipeline={ORACLE_PIPELINE} " if is_oracle else ""  # the other one is Kedro's default
    env = f"--env={run_params['env']} " if run_params.get("env") else ""
    # What was changed for this round is kept, or the next round would be of another experiment.
    changed = {**(run_params.get("runtime_params") or {}), "round": catalog["params:round"].load() + 1}
    return {
        "figures": "\n".join(sorted(folders)),
        "look": "`kedro viz run` for the pipeline and its tables, `mlflow ui` for curves over rounds",
        "next round": f"kedro run {pipeline}{env}--params {params_option(changed)}",
    }


def _print_panel(title: str, lines: Mapping[str, str]) -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in lines.items():
        table.add_row(label, Text(text))  # Text: a path may hold square brackets, which rich takes for markup
    message_console().print(Panel(table, title=title, title_align="left", expand=False))
