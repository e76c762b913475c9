"""Writes the report of a study from what is on disk; nothing is run."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from paced_rl.atomic import write_atomically
from paced_rl.datasets.figure import FigureDataset
from paced_rl.studies import comparisons, ledgers, savings
from paced_rl.studies.comparisons import baseline_of
from paced_rl.studies.document import report_text
from paced_rl.studies.panels import StudyResults, read_study_results
from paced_rl.studies.study_file import StudyPlan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDY_FOLDER = Path("data/08_reporting/studies")
"""Relative to the project: a folder per study, with its report and its logs."""


def write_report(plan: StudyPlan, project: Path) -> Path:
    """Writes `report.md` of a study, its figures and its tables, from whatever of it is on disk.

    Args:
        plan: the study; some of its experiments may be missing or unfinished.
        project: the project's root.

    Returns:
        The path of the report.
    """
    folder = project / STUDY_FOLDER / plan.name
    results = read_study_results(plan, project)
    tables = _tables(results)
    for name, table in tables.items():
        if len(table):
            write_atomically(folder / f"{name}.parquet", functools.partial(table.to_parquet, index=False))
    names = _draw(results, tables, folder)
    text = report_text(results, tables, names)
    write_atomically(folder / "report.md", lambda path: path.write_text(text, encoding="utf-8"))
    return folder / "report.md"


def _tables(results: StudyResults) -> dict[str, pd.DataFrame]:
    return {
        "experiments": ledgers.progress(results),
        "learning_curves": comparisons.learning_curves(results),
        "accuracy": comparisons.headline(results),
        "costs_to_reach": savings.costs_to_reach(results),
        "pass_at_k": comparisons.pass_curves(results),
        "calibration": ledgers.calibration(results),
        "ledger": ledgers.costs(results),
    }


def _draw(results: StudyResults, tables: Mapping[str, pd.DataFrame], folder: Path) -> set[str]:
    """Draws what there is something to draw of; returns the names of the figures."""
    from paced_rl.studies import figures

    arms, baseline = results.arms, baseline_of(results)
    drawn: dict[str, Figure] = {}
    curves, accuracy, costs = (tables[name] for name in ("learning_curves", "accuracy", "costs_to_reach"))
    if len(curves):
        drawn["learning_curves"] = figures.learning_curves_figure(curves, arms=arms)
        drawn["diversity"] = figures.diversity_figure(curves, arms=arms)
        drawn["pass_at_k"] = figures.pass_at_k_figure(tables["pass_at_k"], arms=arms)
    if "difference" in accuracy:
        drawn["differences"] = figures.differences_figure(accuracy, arms=arms, baseline=baseline)
    if len(costs):
        drawn["costs_to_reach"] = figures.costs_figure(costs, arms=arms)
    if len(tables["calibration"]) and tables["calibration"]["num_groups"].any():
        drawn["calibration"] = figures.calibration_figure(tables["calibration"], arms=arms)
    for name, figure in drawn.items():
        FigureDataset(filepath=str(folder / f"{name}.png")).save(figure)
    return set(drawn)
