"""A replay on disk and in words: Parquet, PNG, and a report that says what it does not show."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from paced_rl.atomic import write_atomically
from paced_rl.counterfactual.calibration import calibration_lines
from paced_rl.counterfactual.figure import SHOWN, counterfactual_figure
from paced_rl.counterfactual.replay import CONFIDENCE, NUM_RESAMPLES, Replayed
from paced_rl.datasets.figure import FigureDataset
from paced_rl.scheduling.counterfactual import NUM_LEFT_OUT, ReplaySettings

COLUMNS = {
    "hit_rate": "hit rate",
    "informative_fraction": "informative",
    "wasted_token_share": "wasted tokens",
    "reward_variance": "p(1 − p)",
    "regret": "regret",
    "captured_headroom": "captured",
}
"""Measure → its heading."""

CAVEATS = (
    "The policy would have moved differently. Every round is judged under the policy that uniform rounds had trained; "
    "what a rule would have made of it is not in these figures. That takes `kedro paced train` or `kedro paced study`.",
    "A rule chooses here among what a round happened to roll out, and not among all prompts: from tens there is less "
    "to gain than from thousands, and less to be misled by.",
    "Estimates and outcomes are those of uniform rounds. A head that had learned from what its rule selected would "
    "know those prompts better and the others worse (winner's curse, hunting); counted outcomes would be of fewer "
    "prompts.",
    "The oracle knows a group's other completions and nothing else, so a rule that knows the past may come near it or "
    "pass it: a regret below zero is no mistake. Hindsight chooses by the outcomes that judge it; nobody could.",
    "Intervals cover the choice of prompts and the sampling of completions in this one run, not another training seed.",
)
"""What cannot be concluded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a replay is told with."""

    experiment: str
    command: str
    """That makes it again."""
    replayed: Replayed
    settings: ReplaySettings

    @property
    def table(self) -> pd.DataFrame:
        table: pd.DataFrame = self.replayed.table.to_pandas()
        return table


def headline(report: Report) -> str:
    """What was replayed, in two sentences."""
    table, rounds = report.table, report.replayed.rounds
    total = table[table["is_total"]].iloc[0]
    low, high = report.replayed.pool_sizes
    sizes = f"{low}" if low == high else f"{low} to {high}"
    return (
        f"{len(rounds)} rounds, {rounds[0]} to {rounds[-1]}, with {sizes} uniformly drawn prompts each, of which every "
        f"rule takes {report.settings.share:.0%}. {total['known_share']:.0%} of the {total['num_prompts']:,} groups "
        "are of a prompt that had been measured in the rounds that are looked back at."
    )


def total_rows(table: pd.DataFrame, *, is_brief: bool = False) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(selector, estimator, measure → text) of every rule over all rounds, the best first, hindsight last.

    `is_brief` shows half the width of an interval in place of its ends.
    """
    cell = _brief_cell if is_brief else _cell
    total = table[table["is_total"]]
    values = total.pivot(index=["selector", "estimator"], columns="measure", values="value")
    for selector, estimator in values.sort_values("reward_variance", ascending=False, na_position="last").index:
        rows = total[(total["selector"] == selector) & (total["estimator"] == estimator)].set_index("measure")
        yield (
            selector,
            estimator,
            {name: cell(rows.loc[name, "value"], rows.loc[name, "low"], rows.loc[name, "high"]) for name in COLUMNS},
        )


def write_report(folder: Path, report: Report) -> list[Path]:
    """Writes two tables, a figure and `report.md` and returns their paths."""
    names = ("counterfactual.parquet", "counterfactual.png", "report.md", "calibration.parquet")
    paths = [folder / name for name in names]
    write_atomically(paths[3], lambda path: pq.write_table(report.replayed.calibration, path))
    write_atomically(paths[0], lambda path: pq.write_table(report.replayed.table, path))
    figure = counterfactual_figure(report.table, title=f"Experiment {report.experiment}, replayed")
    FigureDataset(filepath=str(paths[1])).save(figure)
    write_atomically(paths[2], lambda path: path.write_text("\n".join(_lines(report)) + "\n", encoding="utf-8"))
    return paths


def _lines(report: Report) -> Iterator[str]:
    yield f"# Counterfactual selection: experiment {report.experiment}\n"
    yield f"    {report.command}\n"
    yield headline(report) + "\n"
    yield "![p(1 − p) of the chosen prompts, by rule and by round](counterfactual.png)\n"
    yield "| selector | estimator | " + " | ".join(COLUMNS.values()) + " |"
    yield "|---|---|" + "---|" * len(COLUMNS)
    for selector, estimator, cells in total_rows(report.table):
        yield f"| `{selector}` | {estimator or '–'} | " + " | ".join(cells[name] for name in COLUMNS) + " |"
    yield (
        f"\nBrackets: {CONFIDENCE:.0%}, Bayesian bootstrap over prompts, {NUM_RESAMPLES} resamples, the same for all "
        "rules. `counterfactual.parquet` has every rule and measure by round, too.\n"
    )
    yield from (f"- {text}" for text in definitions())
    yield "\n## By round"
    for measure in ("hit_rate", "informative_fraction", "wasted_token_share", "regret"):
        yield from _by_round(report.table, measure)
    yield "\n## Is the estimate an accuracy?\n"
    yield (
        "Each estimator on the uniformly drawn groups of these rounds, as it stood before they were rolled out. *If "
        "exact* is the error that luck would leave if the estimates were the accuracies: near 0 where they are sure.\n"
    )
    yield from calibration_lines(report.replayed.calibration.to_pylist())
    yield "\n## What cannot be concluded\n"
    yield from (f"- {text}" for text in CAVEATS)


def _by_round(table: pd.DataFrame, measure: str) -> Iterator[str]:
    """One measure of the rules that the figure shows, a line per block of rounds."""
    rows = table[(table["measure"] == measure) & ~table["is_total"]]
    rules = {
        rule: found.set_index("first_round")
        for rule, found in rows.groupby(["selector", "estimator"], sort=False)
        if rule in SHOWN and found["value"].notna().any()
    }
    yield f"\n| {COLUMNS[measure]}, rounds | " + " | ".join(" ".join(rule).strip() for rule in rules) + " |"
    yield "|---|" + "---|" * len(rules)
    for first, last in rows[["first_round", "last_round"]].drop_duplicates().itertuples(index=False):
        cells = (found.loc[first, ["value", "low", "high"]] for found in rules.values())
        yield f"| {first} to {last} | " + " | ".join(_cell(*cell) for cell in cells) + " |"


def definitions() -> tuple[str, ...]:
    """What the columns say."""
    return (
        "hit rate, informative: share of the chosen groups with an observed accuracy in [0.25, 0.75], or in (0, 1)",
        "wasted tokens: of those sampled for the chosen groups, the part in groups that are all right or all wrong",
        "p(1 − p): of the chosen prompts, estimated without bias from their completions; at most 0.25",
        f"regret: the oracle's p(1 − p) less the rule's; it knows all completions but {NUM_LEFT_OUT}, which judge it",
        "captured: (rule − uniform) / (oracle − uniform); – where the oracle cannot be told from uniform",
        "`dynamic_sampling` is not among the rules: it rolls out what `uniform` does, and drops afterwards",
        "a Beta posterior starts from the head on the estimator `beta_posterior` too: its row is that of `learned`",
    )


def _cell(value: float, low: float, high: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _brief_cell(value: float, low: float, high: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3f} ±{(high - low) / 2:.3f}"
