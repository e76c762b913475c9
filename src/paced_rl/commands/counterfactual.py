"""`kedro paced counterfactual`: what other selectors would have chosen, from rounds that are on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.utils import _split_params, env_option

from paced_rl.commands.experiments import TroubleError, open_or_fail

if TYPE_CHECKING:
    from rich.table import Table

    from paced_rl.counterfactual.report import Report
    from paced_rl.inspection.experiment import Experiment

_WIDTH = 134
"""Columns that the table takes; a narrower terminal wraps cells, a file or a pipe gets them whole."""


@click.command()
@click.option("--experiment", help="Experiment to replay; default is that of the configuration.")
@click.option(
    "--share",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    default=0.25,
    show_default=True,
    help="Part of a round's uniformly drawn prompts that each rule takes.",
)
@click.option(
    "--blocks",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Parts that the rounds are cut into for figures over time; as many as rounds gives each one its own.",
)
@env_option
@click.option(
    "--params",
    "runtime_params",
    default="",
    callback=_split_params,
    help="As for kedro run: target, half-life, softening and warm-up of the replayed rules.",
)
def counterfactual(
    *, experiment: str | None, share: float, blocks: int, env: str | None, runtime_params: dict[str, Any]
) -> None:
    """Replay every selector and estimator on the rounds of an experiment that drew prompts uniformly. No model runs.

    In each round a rule takes a part of what was rolled out, by what was known before. Writes a table, a figure and a
    report, and changes nothing else.
    """
    from rich.console import Console

    from paced_rl.counterfactual.replay import replay_experiment
    from paced_rl.counterfactual.report import CAVEATS, Report, definitions, headline, write_report
    from paced_rl.inspection.experiment import ExperimentError

    params = {name: value for name, value in runtime_params.items() if name != "round"}
    opened = open_or_fail(experiment, env=env, params=params)
    try:
        replayed, settings = replay_experiment(opened, share=share, num_blocks=blocks)
    except ExperimentError as error:
        raise TroubleError(str(error)) from error
    command = _command(opened.name, share=share, blocks=blocks, env=env, params=params)
    report = Report(experiment=opened.name, command=command, replayed=replayed, settings=settings)
    paths = write_report(_folder(opened), report)

    console = Console(width=None if Console().is_terminal else _WIDTH, highlight=False)
    console.print(headline(report), markup=False)
    console.print(_table(report))
    console.print("  ± is half of a 95 % interval", markup=False)
    for text in definitions():
        console.print(f"  {text}", markup=False)
    console.print("What cannot be concluded:", markup=False)
    for text in CAVEATS:
        console.print(f"  - {text}", markup=False)
    for path in paths:
        click.echo(str(path.relative_to(opened.project)))


def _table(report: "Report") -> "Table":
    from rich import box
    from rich.table import Table

    from paced_rl.counterfactual.report import COLUMNS, total_rows

    table = Table(title=f"experiment {report.experiment}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for header in ("selector", "estimator", *COLUMNS.values()):
        table.add_column(header)
    for selector, estimator, cells in total_rows(report.table, is_brief=True):
        table.add_row(selector, estimator or "–", *(cells[name] for name in COLUMNS))
    return table


def _folder(experiment: "Experiment") -> Path:
    """Beside the summaries of the experiment's rounds."""
    from paced_rl.runner.content_fingerprints import local_path

    summary = local_path(experiment.catalog(1)["round_summary"])
    if summary is None:
        raise TroubleError("the catalog entry round_summary is no local file, so there is no place for a report")
    of_experiment = summary.parents[1]
    return of_experiment.parents[1] / "counterfactual" / of_experiment.name


def _command(name: str, *, share: float, blocks: int, env: str | None, params: Mapping[str, Any]) -> str:
    from paced_rl.command_lines import params_option

    return " ".join(
        [
            f"kedro paced counterfactual --experiment {name} --share {share:g} --blocks {blocks}",
            *([f"--env {env}"] if env else []),
            *([f"--params {params_option(params)}"] if params else []),
        ]
    )
