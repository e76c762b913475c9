"""The three figures of a round. Built on `Figure` itself: no global state, no display."""

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
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, label="exact")
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
        axes.vlines(means, low, high, color=_GREY, alpha=0.5, linewidth=6, label="95 % band if exact")
        sizes = [12 + 4 * entry.num_prompts for entry in bins]
        axes.scatter(
            means, [entry.observed_accuracy for entry in bins], s=sizes, color=_BLUE, zorder=3, label="observed"
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=_SHARES, yticks=_SHARES)
    _label(
        axes,
        x="estimated accuracy",
        y="observed accuracy",
        title=f"Calibration on uniform prompts up to round {round_number} ({len(outcomes)} groups)",
    )
    axes.legend(loc="upper left", frameon=False)
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
    axes.stairs(np.histogram(before, edges)[0], edges, fill=True, color=_GREY, alpha=0.5, label="before")
    axes.stairs(np.histogram(after, edges)[0], edges, color=_BLUE, linewidth=1.8, label="after")
    axes.plot(scheduled, np.zeros(len(scheduled)), "|", color=_ORANGE, markersize=14, label="scheduled", clip_on=False)
    if is_accuracy:
        axes.set(xlim=(0, 1), xticks=_SHARES)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=_MAX_INTERVALS, integer=True))
    _label(
        axes,
        x="estimated accuracy β·log Z" if is_accuracy else "log Z, nats per token: no accuracy",
        y="train prompts",
        title=f"Estimates around round {round_number} ({len(before)} prompts)",
    )
    axes.legend(frameon=False)
    return figure


def learning_curve_figure(curve: pd.DataFrame) -> Figure:
    """Validation and training accuracy, against rounds and against tokens sampled."""
    figure = Figure(figsize=(9.6, 4.2))
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={**_MARGINS, "left": 0.07, "wspace": 0.08})
    _draw_curve(left, curve, "curve_round")
    _label(left, x="round", y="accuracy")
    _draw_curve(right, curve, "tokens_sampled")
    _label(right, x="tokens sampled for training")
    left.legend(loc="upper left", frameon=False)
    figure.suptitle("Learning curve (band: 95 % over prompts)")
    return figure


def _label(axes: Axes, *, x: str, y: str = "", title: str = "") -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.xaxis.set_label_coords(0.5, _BELOW)
    axes.set_title(title, y=_ABOVE, fontsize="medium")


def _draw_curve(axes: Axes, curve: pd.DataFrame, column: str) -> None:
    trained = curve[curve["train_accuracy"].notna()]
    axes.plot(
        trained[column], trained["train_accuracy"], color=_ORANGE, alpha=0.6, linewidth=1, label="round's prompts"
    )
    columns = [column, "validation_accuracy", "validation_accuracy_low", "validation_accuracy_high"]
    held_out = curve.loc[curve["validation_accuracy"].notna(), columns].astype(float)
    axes.fill_between(
        held_out[column],
        held_out["validation_accuracy_low"],
        held_out["validation_accuracy_high"],
        color=_BLUE,
        alpha=0.2,
    )
    axes.plot(held_out[column], held_out["validation_accuracy"], "o-", color=_BLUE, markersize=3, label="validation")
    axes.set(ylim=(0, 1), yticks=_SHARES)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=_MAX_INTERVALS, integer=True))
