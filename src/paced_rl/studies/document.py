"""The text of a study's report: what it shows in sentences, the tables, and how to read them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from paced_rl.studies import ledgers, verdicts
from paced_rl.studies.comparisons import baseline_of
from paced_rl.studies.panels import StudyResults
from paced_rl.studies.results import records

_READING = """
Accuracy is that on the test split, which no experiment reads: checkpoints are chosen by validation accuracy. Every seed
has prompts of its own, and all arms share them, and the random numbers of the evaluation, within a seed.

- **Bootstrap** intervals draw seeds with replacement, and prompts within each drawn seed, {num_resamples} times; all
  arms see the same draws. With few seeds they are too narrow where seeds differ much and too wide where prompts do.
  Savings, shares and pass@k have these alone.
- **Student** intervals ("over seeds") are mean ± t · s / √seeds over one paired difference per seed. A difference is
  called only where both kinds leave out zero, and only from two seeds on.
- **Tokens until an accuracy is reached** are read off the mean curve over seeds, made non-decreasing by least squares
  and joined by straight lines, so that one lucky evaluation does not count. A curve that never gets there has no such
  number: ∞. Where the baseline never does, all that it spent stands for its cost, and the saving is at least what is
  shown. Savings by seed are of each seed's own curve, and much noisier. All of it counts tokens sampled for training.
- **Seconds** are those of scheduling, rollout, verification and training, on the machine and beside the other
  experiments that it happened to run with. What the oracle samples to measure its candidates is not in its tokens, but
  in a column of its own: it shows what a selector could save at best, and is no method.
"""


def report_text(results: StudyResults, tables: Mapping[str, pd.DataFrame], figures: set[str]) -> str:
    """The report in Markdown.

    Args:
        results: what is on disk.
        tables: name → table, all of `report.write_report`.
        figures: names of those that were drawn, each in a PNG file beside the report.
    """
    plan = results.plan
    parts = [
        f"# Study {plan.name}",
        f"{len(plan.arms)} arms under {len(plan.seeds)} seeds, {plan.rounds} rounds; the baseline is "
        f"{baseline_of(results)}.",
        _progress_text(results, tables["experiments"]),
    ]
    if results.arms:
        parts += _sections(results, tables, figures)
        parts += ["## How to read it", _READING.format(num_resamples=plan.report.num_resamples).strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _progress_text(results: StudyResults, experiments: pd.DataFrame) -> str:
    waiting = experiments[experiments["state"] != ledgers.FINISHED]
    if waiting.empty:
        return f"All {len(experiments)} experiments have been evaluated up to round {results.horizon}."
    lines = [
        f"- {row['experiment']}: "
        + ("nothing yet" if row["state"] == ledgers.MISSING else f"at round {row['last_round']}")
        for row in records(waiting)
    ]
    return (
        f"**Not all there: {len(waiting)} of {len(experiments)} experiments have not come to round {results.horizon}**"
        ", up to which the others are compared. They are left out:\n\n" + "\n".join(lines)
    )


def _sections(results: StudyResults, tables: Mapping[str, pd.DataFrame], figures: set[str]) -> list[str]:
    def figure(name: str) -> str:
        return f"![{name.replace('_', ' ')}]({name}.png)" if name in figures else ""

    accuracy, costs = tables["accuracy"], tables["costs_to_reach"]
    return [
        _warning(accuracy),
        "## What it shows",
        _bullets(verdicts.accuracy_sentences(results, accuracy)),
        _bullets(verdicts.cost_sentences(results, costs)),
        "## Learning curves",
        figure("learning_curves"),
        "Arms share seeds and prompts, so their bands move together: whether two differ is read off the differences.",
        "## Test accuracy",
        _accuracy_table(accuracy),
        figure("differences"),
        "## Tokens until an accuracy is reached",
        _cost_table(costs),
        figure("costs_to_reach"),
        "## pass@k and diversity",
        _pass_table(tables["pass_at_k"]),
        figure("pass_at_k"),
        figure("diversity"),
        _equal_accuracy_table(costs),
        "## Calibration of the estimates on uniformly drawn prompts",
        _calibration_table(tables["calibration"]),
        figure("calibration"),
        "## Costs",
        _ledger_table(tables["ledger"]),
    ]


def _warning(accuracy: pd.DataFrame) -> str:
    """Where arms have different numbers of seeds, their levels are of different prompts too."""
    num_seeds = accuracy.groupby("arm", sort=False)["num_seeds"].first()
    if num_seeds.nunique() == 1:
        return ""
    counts = ", ".join(f"{arm} {count}" for arm, count in num_seeds.items())
    return (
        f"**The arms have different numbers of finished seeds ({counts}).** Accuracies and curves of such arms do not "
        "compare, because each seed has prompts of its own; differences and savings do, being taken within seeds."
    )


def _accuracy_table(accuracy: pd.DataFrame) -> str:
    names = {"chosen": "chosen on validation", "last": "last round", "mean": "mean over evaluations"}
    rows = []
    for arm, of_arm in accuracy.groupby("arm", sort=False):
        cells = {row["measure"]: _interval(row, "accuracy", "low", "high") for row in records(of_arm)}
        rows.append([arm, *(cells[measure] for measure in names), of_arm["num_seeds"].iloc[0]])
    return _table(["arm", *names.values(), "seeds"], rows)


def _cost_table(costs: pd.DataFrame) -> str:
    rows = []
    for row in records(costs):
        tokens = f"{_count(row['tokens'])} ({_count(row['tokens_low'])} to {_count(row['tokens_high'])})"
        saving, share = _share(row, "saving"), _share(row, "oracle_share")
        reached = f"{row['num_seeds_reached']} of {row['num_seeds']}"
        rows.append([f"{row['accuracy']:.3g}", row["arm"], tokens, _rounds(row["rounds"]), saving, share, reached])
    rows.sort(key=lambda cells: float(cells[0]))
    header = ["accuracy", "arm", "tokens sampled", "rounds", "saving", "of the oracle's", "seeds that reach it"]
    return _table(header, rows)


def _pass_table(passes: pd.DataFrame) -> str:
    rows = []
    for arm, of_arm in passes.groupby("arm", sort=False):
        of_k = records(of_arm)
        # Powers of two, and the last.
        shown = [row for row in of_k if row["k"] & (row["k"] - 1) == 0 or row is of_k[-1]]
        slope = _interval(of_k[0], "slope", "slope_low", "slope_high")
        rows.append([arm, *(_interval(row, "pass_at_k", "low", "high") for row in shown), slope])
        header = ["arm", *(f"pass@{r['k']}" for r in shown), "slope in ln k"]
    return _table(header, rows) if rows else ""


def _equal_accuracy_table(costs: pd.DataFrame) -> str:
    rows = []
    for row in records(costs):
        cells = [f"{row['accuracy']:.3g}", row["arm"]]
        for name in ("distinct", "pass_at_k"):
            cells += [_number(row[name]), _difference(row, name)]
        rows.append(cells)
    rows.sort(key=lambda cells: float(cells[0]))
    if not rows:
        return ""
    k = int(costs["k"].max())
    against = "difference from the baseline"
    header = ["pass@1", "arm", "distinct correct per solved prompt", against, f"pass@{k}", against]
    intervals = "intervals are over the resamples in which both get there, unless those are too few"
    return f"Diversity where curves cross the same accuracy; {intervals}:\n\n" + _table(header, rows)


def _calibration_table(calibration: pd.DataFrame) -> str:
    rows = []
    for row in records(calibration):
        if not row["num_groups"]:
            continue
        names = ("binomial_floor", "brier_score", "expected_calibration_error", "rank_correlation")
        errors = [_number(row[name]) for name in names]
        error = _interval(row, "mean_absolute_error", "low", "high")
        rows.append([row["arm"], f"{row['first_round']} to {row['last_round']}", row["num_groups"], error, *errors])
    header = ["arm", "rounds", "groups", "mean abs error", "if exact", "Brier", "ECE", "rank correlation"]
    return _table(header, rows)


def _ledger_table(ledger: pd.DataFrame) -> str:
    columns = [name for name in ledger.columns if name not in ("arm", "num_seeds")]
    rows = []
    for row in records(ledger):
        is_tokens = {name: name in ledgers.TOKENS for name in columns}
        cells = [_count(row[name]) if is_tokens[name] else _number(row[name], digits=1) for name in columns]
        rows.append([row["arm"], *cells])
    header = ["arm", *(name.replace("_", " ") for name in columns)]
    return "Means over finished experiments; the shared start is not in them.\n\n" + _table(header, rows)


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _interval(row: Mapping[str, float], mean: str, low: str, high: str) -> str:
    return f"{_number(row[mean])} ({_number(row[low])} to {_number(row[high])})"


def _difference(row: Mapping[str, float], name: str) -> str:
    """A difference and its interval; empty for the baseline itself, and where one of the two has no value."""
    mean, low, high = (row.get(f"{name}{end}", np.nan) for end in ("_difference", "_low", "_high"))
    return "" if np.isnan(mean) else f"{mean:+.3f} ({_signed(low)} to {_signed(high)})"


def _share(row: Mapping[str, float], name: str) -> str:
    """A share in percent and its interval; empty where there is none."""
    mean, low, high = (row.get(f"{name}{end}", np.nan) for end in ("", "_low", "_high"))
    if np.isnan(mean):
        return ""
    return f"{verdicts.percent(mean)} ({verdicts.percent(low)} to {verdicts.percent(high)})"


def _rounds(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "∞"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}" if np.isfinite(value) else ("−∞" if value < 0 else "∞")


def _count(value: float) -> str:
    """Tokens: 1,234 or 56.7k; ∞ where an accuracy is never reached."""
    if not np.isfinite(value):
        return "∞"
    return f"{value / 1000:,.1f}k" if value >= 10_000 else f"{value:,.0f}"
