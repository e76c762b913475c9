"""The figures of a study's report. Built on `Figure` itself: no global state, no display."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#000000",
    "#8c8c8c",
    "#5e3c99",
    "#7a4a12",
)
"""Okabe and Ito's, which people with any common colour blindness tell apart; yellow is left out, being too pale, and
grey, violet and brown are added."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Beside the colours, for print in grey and for more arms than colours."""
_GREY = "#8c8c8c"
_MAX_PLAIN_BANDS = 4
"""Arms whose bands can lie on each other and still be told apart."""
_WIDTH = 9.6
"""Inches; a README shows a figure at about 900 pixels."""


class _Styles:
    """One colour and marker per arm, the same in all figures."""

    def __init__(self, arms: Sequence[str]) -> None:
        self.arms = list(arms)

    def of(self, arm: str) -> dict[str, Any]:
        place = self.arms.index(arm)
        marker = _MARKERS[(place + place // len(_COLOURS)) % len(_MARKERS)]
        return {"color": _COLOURS[place % len(_COLOURS)], "marker": marker}


def learning_curves_figure(curves: pd.DataFrame, *, arms: Sequence[str]) -> Figure:
    """Test accuracy against rounds, tokens and seconds; bands are intervals over seeds and prompts."""
    figure = Figure(figsize=(_WIDTH, 4.3), layout="constrained")
    styles = _Styles(arms)
    panels = figure.subplots(1, 3, sharey=True)
    columns = (("round", "round"), ("tokens_sampled", "tokens sampled for training"), ("seconds", "seconds"))
    for axes, (column, label) in zip(panels, columns, strict=True):
        for arm, rows in curves.groupby("arm", sort=False):
            style = styles.of(str(arm))
            axes.fill_between(
                rows[column], rows["low"], rows["high"], color=style["color"], alpha=_band(arms), linewidth=0
            )
            axes.plot(
                rows[column], rows["accuracy"], markersize=3.5, linewidth=1.4, label=_label(rows, curves), **style
            )
        axes.set(xlabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        _tidy(axes)
    panels[0].set_ylabel("accuracy on the test split")
    _legend(figure, panels[0])
    figure.suptitle("Learning curves, means over seeds (bands: 95 %, bootstrap over seeds and prompts)", fontsize=10)
    return figure


def differences_figure(headline: pd.DataFrame, *, arms: Sequence[str], baseline: str) -> Figure:
    """Differences from the baseline in test accuracy: a point per seed, the mean, both intervals."""
    rows = headline[headline["difference"].notna()] if "difference" in headline else headline.iloc[:0]
    others = [arm for arm in arms if arm in set(rows["arm"])]
    figure = Figure(figsize=(_WIDTH, 1.6 + 0.42 * max(1, len(others))), layout="constrained")
    styles = _Styles(arms)
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"chosen": "checkpoint chosen on validation", "mean": "mean over all evaluations"}
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        axes.axvline(0, color=_GREY, linewidth=1)
        for place, arm in enumerate(others):
            row = rows[(rows["arm"] == arm) & (rows["measure"] == measure)].iloc[0]
            colour = styles.of(arm)["color"]
            axes.hlines(
                place, row["difference_low_over_seeds"], row["difference_high_over_seeds"], color=colour, linewidth=1.2
            )
            axes.hlines(place, row["difference_low"], row["difference_high"], color=colour, linewidth=5, alpha=0.35)
            by_seed = row["difference_by_seed"]
            axes.plot(by_seed, np.full(len(by_seed), place - 0.22), "|", color=colour, markersize=7)
            axes.plot(row["difference"], place, markersize=6, **styles.of(arm))
        axes.set(title=title, xlabel=f"test accuracy, difference from {baseline}")
        axes.title.set_fontsize(10)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        _tidy(axes)
    panels[0].set(yticks=range(len(others)), yticklabels=others, ylim=(len(others) - 0.5, -0.6))
    figure.suptitle(
        "Thick: bootstrap over seeds and prompts. Thin: Student over seeds. Ticks: each seed. 95 %.", fontsize=9
    )
    return figure


def costs_figure(costs: pd.DataFrame, *, arms: Sequence[str]) -> Figure:
    """Tokens until an accuracy is reached, one panel per accuracy."""
    levels = sorted(costs["accuracy"].unique())
    present = [arm for arm in arms if arm in set(costs["arm"])]
    figure = Figure(figsize=(_WIDTH, 1.7 + 0.34 * len(present)), layout="constrained")
    styles = _Styles(arms)
    panels = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
    for axes, level in zip(panels, levels, strict=True):
        spent = costs["tokens"].replace(np.inf, np.nan).max()
        for place, arm in enumerate(present):
            row = costs[(costs["arm"] == arm) & (costs["accuracy"] == level)].iloc[0]
            if np.isinf(row["tokens"]):
                axes.annotate("not reached", (0.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
                continue
            high = row["tokens_high"] if np.isfinite(row["tokens_high"]) else 1.15 * spent
            style = styles.of(arm)
            axes.hlines(place, row["tokens_low"], high, color=style["color"], linewidth=4, alpha=0.35)
            if not np.isfinite(row["tokens_high"]):
                axes.plot(high, place, ">", color=style["color"], markersize=6, alpha=0.6)
            axes.plot(row["tokens"], place, markersize=6, **style)
        axes.set(title=f"accuracy {level:.3g}", xlim=(0, None))
        axes.title.set_fontsize(10)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        _tidy(axes)
    names = [_label(costs[costs["arm"] == arm], costs) for arm in present]
    panels[0].set(yticks=range(len(present)), yticklabels=names, ylim=(len(present) - 0.5, -0.5))
    figure.supxlabel("tokens sampled until it is reached (bars: 95 %; an arrow: not always reached)", fontsize=9)
    return figure


def pass_at_k_figure(passes: pd.DataFrame, *, arms: Sequence[str]) -> Figure:
    """pass@k of the chosen checkpoints."""
    figure = Figure(figsize=(_WIDTH * 0.62, 4.0), layout="constrained")
    styles, axes = _Styles(arms), figure.subplots()
    for arm, rows in passes.groupby("arm", sort=False):
        style = styles.of(str(arm))
        axes.fill_between(rows["k"], rows["low"], rows["high"], color=style["color"], alpha=_band(arms), linewidth=0)
        axes.plot(rows["k"], rows["pass_at_k"], markersize=4, linewidth=1.4, label=_label(rows, passes), **style)
    ks = sorted(passes["k"].unique())
    axes.set_xscale("log", base=2)
    axes.set(xticks=ks, xticklabels=[str(k) for k in ks], xlabel="k samples", ylabel="pass@k on the test split")
    axes.minorticks_off()
    _tidy(axes)
    _legend(figure, axes, num_columns=4)
    return figure


def diversity_figure(curves: pd.DataFrame, *, arms: Sequence[str]) -> Figure:
    """What is left of diversity at each accuracy, along training: the start is the left end of each line."""
    figure = Figure(figsize=(_WIDTH, 4.0), layout="constrained")
    styles = _Styles(arms)
    panels = figure.subplots(1, 2)
    k = int(curves["k"].max())
    columns = {
        "distinct_correct_per_solved_prompt": f"distinct correct of {k} per solved prompt",
        "pass_at_k": f"pass@{k}",
    }
    for axes, (column, text) in zip(panels, columns.items(), strict=True):
        for arm, rows in curves.groupby("arm", sort=False):
            style, label = styles.of(str(arm)), _label(rows, curves)
            axes.plot(rows["accuracy"], rows[column], color=style["color"], linewidth=0.9, alpha=0.5)
            axes.plot(rows["accuracy"], rows[column], linestyle="none", markersize=3.5, label=label, **style)
        axes.set(xlabel="pass@1 on the test split")
        axes.set_ylabel(text, fontsize=9)
        _tidy(axes)
    _legend(figure, panels[0])
    figure.suptitle("Diversity at equal accuracy: higher is more; a point per evaluation, mean over seeds", fontsize=10)
    return figure


def calibration_figure(calibration: pd.DataFrame, *, arms: Sequence[str]) -> Figure:
    """Error of the estimates on uniformly drawn prompts beside what exact ones would show, early, middle and late."""
    rows = calibration[calibration["num_groups"] > 0]
    ranges = sorted(set(zip(rows["first_round"], rows["last_round"], strict=True)))
    present = [arm for arm in arms if arm in set(rows["arm"])]
    figure = Figure(figsize=(_WIDTH, 1.7 + 0.34 * len(present)), layout="constrained")
    styles = _Styles(arms)
    panels = figure.subplots(1, len(ranges), sharey=True, sharex=True, squeeze=False)[0]
    for axes, (first, last) in zip(panels, ranges, strict=True):
        for place, arm in enumerate(present):
            found = rows[(rows["arm"] == arm) & (rows["first_round"] == first)]
            for _, row in found.iterrows():
                style = styles.of(arm)
                axes.hlines(place, row["low"], row["high"], color=style["color"], linewidth=4, alpha=0.35)
                axes.plot(row["mean_absolute_error"], place, markersize=6, **style)
                axes.plot(row["binomial_floor"], place, "|", color="black", markersize=13)
        axes.set(title=f"rounds {first} to {last}")
        axes.title.set_fontsize(10)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        _tidy(axes)
    panels[0].set_xlim(left=0)
    panels[0].set(yticks=range(len(present)), yticklabels=present, ylim=(len(present) - 0.5, -0.5))
    figure.supxlabel(
        "mean |observed − estimated accuracy| (bars: 95 %); black: what exact estimates would show", fontsize=9
    )
    return figure


def _label(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """An arm's name, and how many seeds it has where others have more: its level is then not comparable."""
    arm, num_seeds = str(rows["arm"].iloc[0]), int(rows["num_seeds"].iloc[0])
    return arm if num_seeds == table["num_seeds"].max() else f"{arm} ({num_seeds} of {table['num_seeds'].max()} seeds)"


def _band(arms: Sequence[str]) -> float:
    """How opaque a band is: many of them on each other must not hide the lines."""
    return 0.13 if len(arms) <= _MAX_PLAIN_BANDS else 0.05


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def _legend(figure: Figure, axes: Axes, num_columns: int = 6) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(num_columns, len(labels)), frameon=False, fontsize=9
    )


def _short(value: float, _: int) -> str:
    """1500 → 1.5k, so that ticks do not run into each other."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}"
