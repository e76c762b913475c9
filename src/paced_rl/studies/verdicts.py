"""What a study shows, in sentences: winners, ties, and how sure either is."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from paced_rl.studies.comparisons import baseline_of, oracle_of, paired_differences
from paced_rl.studies.panels import StudyResults
from paced_rl.studies.results import records

BETTER, WORSE, TIE, UNKNOWN = "better", "worse", "tie", "unknown"

_WORDS = {
    BETTER: "**better**",
    WORSE: "**worse**",
    TIE: "no difference is shown",
    UNKNOWN: "one seed in common, which cannot tell them apart,",
}

_MEASURES = {
    "chosen": "at the checkpoint chosen on validation",
    "mean": "on average over all evaluations",
}


def judge(difference: Mapping[str, Any]) -> str:
    """What a paired difference shows: it counts only where both intervals say so, and where there are two seeds.

    The bootstrap alone would be too sure where few seeds differ much; Student's interval alone rests on the seeds'
    differences being about normal.

    Args:
        difference: a value of `paired_differences`.
    """
    if difference["num_paired_seeds"] < 2:
        return UNKNOWN
    low = min(difference["difference_low"], difference["difference_low_over_seeds"])
    high = max(difference["difference_high"], difference["difference_high_over_seeds"])
    return BETTER if low > 0 else WORSE if high < 0 else TIE


def accuracy_sentences(results: StudyResults, headline: pd.DataFrame) -> Iterator[str]:
    """Each arm against the baseline, then the best arm against the others."""
    baseline = baseline_of(results)
    compared = headline[headline.get("num_paired_seeds", pd.Series(0, headline.index)) > 0]
    for arm, rows in compared.groupby("arm", sort=False):
        by_measure = {row["measure"]: row for row in records(rows)}
        parts = [f"{_WORDS[judge(by_measure[m])]} {where}, {_numbers(by_measure[m])}" for m, where in _MEASURES.items()]
        yield f"**{arm}** against {baseline}: " + "; ".join(parts) + "."
    # Of arms under fewer seeds the mean is one over other prompts too.
    is_comparable = headline["num_seeds"] == headline["num_seeds"].max()
    chosen = headline[is_comparable & (headline["measure"] == "chosen")]
    if len(chosen) > 1:
        best = str(chosen["arm"].iloc[int(chosen["accuracy"].argmax())])
        yield _about_the_best(results, best, [arm for arm in chosen["arm"] if arm != best])
    if len(compared) > len(_MEASURES):
        num_compared = compared["arm"].nunique() * len(_MEASURES)
        yield f"Of {num_compared} comparisons with the baseline, each at 95 %, luck alone calls one in twenty."


def _numbers(row: Mapping[str, Any]) -> str:
    bootstrap = f"{row['difference_low']:+.3f} to {row['difference_high']:+.3f} by bootstrap"
    student = f"{row['difference_low_over_seeds']:+.3f} to {row['difference_high_over_seeds']:+.3f} over seeds"
    seeds = ", ".join(f"{value:+.3f}" for value in row["difference_by_seed"])
    intervals = bootstrap if row["num_paired_seeds"] < 2 else f"{bootstrap}, {student}"
    return f"{row['difference']:+.3f} ({intervals}; by seed {seeds})"


def _about_the_best(results: StudyResults, best: str, others: list[str]) -> str:
    verdicts = {}
    for arm in others:
        difference = paired_differences(results, arm, best).get("chosen")
        verdicts[arm] = UNKNOWN if difference is None else judge(difference)
    beaten = [arm for arm, verdict in verdicts.items() if verdict == WORSE]
    tied = [arm for arm in others if arm not in beaten]
    text = f"The highest accuracy of a chosen checkpoint, of arms with as many seeds, is that of {best}"
    if beaten:
        text += f"; it is better than {_listed(beaten)}"
    return f"{text}; {'it' if beaten else 'but it'} is not told apart from {_listed(tied)}." if tied else f"{text}."


def cost_sentences(results: StudyResults, costs: pd.DataFrame) -> Iterator[str]:
    """What each arm needs to reach the middle one of the accuracies; the others are in the table."""
    baseline, oracle = baseline_of(results), oracle_of(results)
    levels = sorted(costs["accuracy"].unique()) if len(costs) else []
    for row in records(costs[costs["accuracy"] == levels[len(levels) // 2]]) if levels else []:
        if row["arm"] == baseline or pd.isna(row.get("is_baseline_censored")):
            continue
        share = f" {_share_sentence(row, str(oracle))}" if np.isfinite(row.get("oracle_share", np.nan)) else ""
        yield _cost_sentence(row, baseline) + share


def _cost_sentence(row: Mapping[str, Any], baseline: str) -> str:
    goal, saving = f"accuracy {row['accuracy']:.3g}", row["saving"]
    if np.isnan(saving):
        return f"Neither **{row['arm']}** nor {baseline} reaches {goal}."
    if np.isneginf(saving):
        return f"**{row['arm']}** never reaches {goal}, which {baseline} does."
    least = "at least " if row["is_baseline_censored"] else ""
    change = f"{least}{abs(saving):.0%} {'fewer' if saving >= 0 else 'more'} tokens than {baseline}"
    is_shown = row["num_seeds"] > 1 and (row["saving_low"] > 0 or row["saving_high"] < 0)
    doubt = "" if is_shown else ", which is not told apart from none"
    interval = f"95 %: a saving of {percent(row['saving_low'])} to {percent(row['saving_high'])}"
    seeds = ", ".join(percent(value) for value in row["saving_by_seed"])
    return f"To reach {goal}, **{row['arm']}** takes {change}{doubt} ({interval}; by seed {seeds})."


def _share_sentence(row: Mapping[str, Any], oracle: str) -> str:
    low, high = row["oracle_share_low"], row["oracle_share_high"]
    if not (np.isfinite(low) and np.isfinite(high)):
        return (
            f"Its share of what {oracle} saves is {row['oracle_share']:.0%}, of which nothing can be said: the saving "
            f"of {oracle} itself is not told apart from none, or the accuracy is not always reached."
        )
    return f"That is {row['oracle_share']:.0%} of what {oracle} saves (95 %: {low:.0%} to {high:.0%})."


def percent(value: float) -> str:
    """A share in percent; also an infinite or an unknown one."""
    if np.isnan(value):
        return "unknown"
    return ("−∞" if value < 0 else "∞") if np.isinf(value) else f"{value:.0%}"


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
