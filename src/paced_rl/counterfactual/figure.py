"""The figure of a replay: what each rule would have chosen was worth, and how that went over the rounds."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREEN, _GREY, _BLACK = "#1f6fb4", "#d95f02", "#1b9e77", "#8c8c8c", "#222222"
SHOWN = {
    ("oracle", ""): _BLACK,
    ("posterior", "learned"): _GREEN,
    ("nearest", "learned"): _BLUE,
    ("nearest", "group_mean"): _ORANGE,
    ("uniform", ""): _GREY,
}
"""Rules that are drawn over rounds, where all of them would hide each other."""


def counterfactual_figure(table: pd.DataFrame, *, title: str) -> Figure:
    """Reward variance of the chosen prompts, by rule and by block of rounds, with 95 % intervals.

    Args:
        table: as `paced_rl.counterfactual.replay.SCHEMA`.
        title: of the whole.
    """
    variance = table[(table["measure"] == "reward_variance") & table["value"].notna()]
    total = variance[variance["is_total"]].sort_values("value")
    figure = Figure(figsize=(11.0, 0.8 + 0.27 * len(total)))
    left, right = figure.subplots(
        1, 2, gridspec_kw={"left": 0.21, "right": 0.98, "bottom": 0.09, "top": 0.87, "wspace": 0.2}
    )
    _draw_rules(left, total)
    _draw_rounds(right, variance[~variance["is_total"]])
    figure.suptitle(title, fontsize="medium")
    return figure


def _draw_rules(axes: Axes, total: pd.DataFrame) -> None:
    for selector, color, label in (("uniform", _GREY, "uniform"), ("oracle", _BLACK, "oracle")):
        (row,) = total[total["selector"] == selector].to_dict("records")
        axes.axvline(row["value"], color=color, linewidth=1, linestyle="--", zorder=1)
        axes.annotate(
            label, (row["value"], 1.005), xycoords=("data", "axes fraction"), color=color, ha="center", fontsize="small"
        )
    for height, row in enumerate(total.to_dict("records")):
        color = SHOWN.get((row["selector"], row["estimator"]), _GREY)
        axes.plot([row["low"], row["high"]], [height, height], color=color, linewidth=2, solid_capstyle="butt")
        axes.plot(row["value"], height, "o", color=color, markersize=5)
    pairs = zip(total["selector"].astype(str), total["estimator"].astype(str), strict=True)
    names = [f"{selector}, {estimator}" if estimator else selector for selector, estimator in pairs]
    axes.set_yticks(range(len(total)), names, fontsize="small")
    axes.set(xlabel="p(1 − p) of the chosen prompts, all rounds", ylim=(-0.6, len(total) - 0.4))
    axes.grid(axis="x", alpha=0.25)


def _draw_rounds(axes: Axes, blocks: pd.DataFrame) -> None:
    for (selector, estimator), color in SHOWN.items():
        rows = blocks[(blocks["selector"] == selector) & (blocks["estimator"] == estimator)]
        middle = (rows["first_round"] + rows["last_round"]) / 2
        axes.plot(middle, rows["value"], color=color, marker="o", markersize=3, label=f"{selector} {estimator}".strip())
        axes.fill_between(middle, rows["low"], rows["high"], color=color, alpha=0.12, linewidth=0)
    axes.set(xlabel="round", ylabel="p(1 − p) of the chosen prompts", ylim=(0, None))
    axes.legend(frameon=False, fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.grid(alpha=0.25)
