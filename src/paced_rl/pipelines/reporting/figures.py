"""The three figures of a round. Built on `Figure` itself: no global state, no display."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paced_rl.metrics.calibration import reliability_bins

_SIZE = (6.4, 4.2)
_MARGINS = {"left": 0.11, "right": 0.97, "bottom": 0.13, "top": 0.92}
"""Shares of the figure. Fixed, because Matplotlib's constrained layout takes a third of a figure's time."""
_ABOVE, _BELOW = 1.02, -0.09
"""Heights of title and x label in shares of the axes. Fixed too: to find them Matplotlib lays texts out twice."""
_SHARES = (0.0, 0.5, 1.0)
"""Ticks of an axis of accuracies: few, because each costs two milliseconds."""
_MAX_INTERVALS = 3
"""Between the ticks of any other axis."""
_NUM_BINS = 20
_BLUE, _ORANGE, _GREY = "#1f6fb4", "#d95f02", "#8c8c8c"


def calibration_figure(outcomes: pd.DataFrame, *, round_number: int) -> Figure:
    """Observed against estimated accuracy, with the 95 % band that exact estimates would stay in."""
    figure = Figure(figsize=_SIZE)
    axes = figure.subplots(gridspec_kw=_MARGINS)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1)
    bins = [
        entry
        for entry in reliability_bins(
            outcomes["estimated_accuracy"].to_numpy(dtype=np.float64),
            outcomes["num_correct"].to_numpy(dtype=np.int64),
            outcomes["num_scored"].to_numpy(dtype=np.int64),
        )
        if entry.num_prompts
    ]
    if bins:
        means = [entry.mean_estimate for entry in bins]
        low, high = [entry.band_low for entry in bins], [entry.band_high for entry in bins]
        axes.vlines(means, low, high, color=_GREY, alpha=0.5, linewidth=6)
        sizes = [12 + 4 * entry.num_prompts for entry in bins]
        axes.scatter(means, [entry.observed_accuracy for entry in bins], s=sizes, color=_BLUE, zorder=3)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=_SHARES, yticks=_SHARES)
    _label(
        axes,
        x="estimated accuracy",
        y="observed accuracy",
        title=f"Calibration on uniform prompts up to round {round_number} ({len(outcomes)} groups)",
    )
    _name(axes, {"● observed": _BLUE, "▮ 95 % band if exact": _GREY, "╱ exact": _GREY})
    return figure


def estimates_figure(
    *,
    before: Float[np.ndarray, "P"],
    after: Float[np.ndarray, "P"],
    scheduled: Float[np.ndarray, "S"],
    round_number: int,
    is_accuracy: bool = True,
) -> Figure:
    """Histogram of the estimates before and after the round, and where the scheduled prompts stood.

    `is_accuracy` says whether they are accuracies, or values of a log Z that is none.
    """
    figure = Figure(figsize=_SIZE)
    axes = figure.subplots(gridspec_kw=_MARGINS)
    shown = np.concatenate([before, after, scheduled])
    span = (0.0, 1.0) if is_accuracy else (float(shown.min()), float(shown.max()))
    edges = np.histogram_bin_edges([], _NUM_BINS, span)  # unlike linspace also where all values are equal
    axes.stairs(np.histogram(before, edges)[0], edges, fill=True, color=_GREY, alpha=0.5)
    axes.stairs(np.histogram(after, edges)[0], edges, color=_BLUE, linewidth=1.8)
    axes.plot(scheduled, np.zeros(len(scheduled)), "|", color=_ORANGE, markersize=14, clip_on=False)
    if is_accuracy:
        axes.set(xlim=(0, 1), xticks=_SHARES)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=_MAX_INTERVALS, integer=True))
    _label(
        axes,
        x="estimated accuracy β·log Z" if is_accuracy else "log Z, nats per token: no accuracy",
        y="train prompts",
        title=f"Estimates around round {round_number} ({len(before)} prompts)",
    )
    axes.margins(y=0.3)  # room for the names
    _name(axes, {"■ before": _GREY, "▬ after": _BLUE, "| scheduled": _ORANGE})
    return figure


def learning_curve_figure(curve: pd.DataFrame) -> Figure:
    """Validation and training accuracy against rounds, each tick with the tokens that were sampled until then."""
    figure = Figure(figsize=_SIZE)
    axes = figure.subplots(gridspec_kw={**_MARGINS, "bottom": 0.17})
    trained = curve[curve["train_accuracy"].notna()]
    axes.plot(trained["curve_round"], trained["train_accuracy"], color=_ORANGE, alpha=0.6, linewidth=1)
    columns = ["curve_round", "validation_accuracy", "validation_accuracy_low", "validation_accuracy_high"]
    held_out = curve.loc[curve["validation_accuracy"].notna(), columns].astype(float)
    rounds, accuracy, low, high = (held_out[name] for name in columns)
    axes.fill_between(rounds, low, high, color=_BLUE, alpha=0.2)
    axes.plot(rounds, accuracy, "o-", color=_BLUE, markersize=3)
    tokens = dict(zip(curve["curve_round"], curve["tokens_sampled"], strict=True))
    places = MaxNLocator(nbins=_MAX_INTERVALS, integer=True).tick_values(min(tokens), max(tokens))
    shown = {int(place): tokens[place] for place in places if place in tokens}
    axes.set_xticks(list(shown), [f"{number}\n{count:,} tokens" for number, count in shown.items()])
    axes.set(ylim=(0, 1), yticks=_SHARES)
    x = "round, and tokens sampled for training until then"
    _label(axes, x=x, y="accuracy", title="Learning curve", below=-0.14)
    _name(axes, {"● validation, and 95 % over prompts": _BLUE, "▬ round's prompts": _ORANGE})
    return figure


def _label(axes: Axes, *, x: str, y: str, title: str, below: float = _BELOW) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.xaxis.set_label_coords(0.5, below)
    axes.set_title(title, y=_ABOVE, fontsize="medium")


def _name(axes: Axes, names: Mapping[str, str]) -> None:
    """A legend of names in their colours, from the top down; Matplotlib's own takes five milliseconds to lay out."""
    for row, (name, colour) in enumerate(names.items()):
        axes.text(0.03, 0.93 - 0.06 * row, name, color=colour, transform=axes.transAxes)
