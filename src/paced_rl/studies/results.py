"""What the experiments of a study have left on disk: test evaluations, costs, outcomes of uniform prompts."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from paced_rl.types import ScheduleReason, Split

ROUND_STAGES = ("scheduling", "rollout", "verification", "training")
"""Their seconds are what a round costs. How often one evaluates and draws figures is one's own choice."""

_ROUND_FOLDER = re.compile(r"round=(\d{4,})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    """The test split of one experiment at E evaluated rounds, P prompts in the order of their ids."""

    rounds: Int[np.ndarray, "E"]
    prompt_ids: tuple[str, ...]
    num_scored: Int[np.ndarray, "E P"]
    num_correct: Int[np.ndarray, "E P"]
    num_distinct_correct: Int[np.ndarray, "E P"]

    def at(self, rounds: Sequence[int], prompt_ids: Sequence[str]) -> "Evaluations":
        """The same at some of the rounds, for some of the prompts, in that order."""
        rows = np.searchsorted(self.rounds, rounds)
        place = {prompt_id: i for i, prompt_id in enumerate(self.prompt_ids)}
        columns = np.array([place[prompt_id] for prompt_id in prompt_ids], dtype=np.int64)
        return Evaluations(
            rounds=self.rounds[rows],
            prompt_ids=tuple(prompt_ids),
            num_scored=self.num_scored[np.ix_(rows, columns)],
            num_correct=self.num_correct[np.ix_(rows, columns)],
            num_distinct_correct=self.num_distinct_correct[np.ix_(rows, columns)],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentResults:
    """One arm under one seed, as far as it has come."""

    name: str
    arm: str
    seed: int
    evaluations: Evaluations
    validation: Mapping[int, float]
    """Evaluated round → validation accuracy: what chooses a checkpoint."""
    costs: pd.DataFrame
    """One row per finished round, from 1: tokens_sampled, tokens_trained, tokens_evaluated, tokens_measured, seconds
    per stage."""
    uniform_outcomes: pd.DataFrame
    """Estimates and outcomes of prompts that were drawn uniformly: scheduled_round, estimated_accuracy, num_scored,
    num_correct."""

    @property
    def last_round(self) -> int:
        """The last finished round, 0 before the first."""
        return int(self.costs.index.max()) if len(self.costs) else 0

    def cumulative(self, column: str, rounds: Sequence[int]) -> Float[np.ndarray, "E"]:
        """The sum of a cost over all rounds up to each of these; 0 at round 0."""
        sums = self.costs[column].cumsum()
        return np.array([float(sums.get(number, np.nan)) if number else 0.0 for number in rounds])


def read_experiment(project: Path, *, name: str, arm: str, seed: int) -> ExperimentResults | None:
    """Reads an experiment, table by table and only the columns that are needed; None where nothing is evaluated yet."""
    evaluations = _read_evaluations(project, name)
    if evaluations is None:
        return None
    rounds = _rounds(project, "08_reporting/round_summary", name)
    curve = _table(project, "08_reporting/learning_curve", name, max(rounds, default=0))
    validation = {} if curve is None else dict(zip(curve["curve_round"], curve["validation_accuracy"], strict=True))
    return ExperimentResults(
        name=name,
        arm=arm,
        seed=seed,
        evaluations=evaluations,
        validation={int(number): value for number, value in validation.items() if value == value},
        costs=_read_costs(project, name, rounds),
        uniform_outcomes=_read_uniform_outcomes(project, name, rounds),
    )


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, each as column → value."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _rounds(project: Path, table: str, experiment: str) -> list[int]:
    """The rounds that have this table, in order."""
    file = f"{Path(table).name}.parquet"
    folders = (project / "data" / table / f"experiment={experiment}").glob(f"round=*/{file}")
    return sorted(int(match[1]) for path in folders if (match := _ROUND_FOLDER.fullmatch(path.parent.name)))


def _table(
    project: Path, table: str, experiment: str, number: int, columns: Sequence[str] | None = None, **options: Any
) -> pd.DataFrame | None:
    folder = project / "data" / table / f"experiment={experiment}" / f"round={number:04d}"
    file = folder / f"{folder.parents[1].name}.parquet"
    if not file.is_file():
        return None
    known = set(pq.read_schema(file).names)
    wanted = None if columns is None else [name for name in columns if name in known]
    # Not by way of the folder, which would add columns for `name=value` in the path.
    return pq.read_table(file, columns=wanted, partitioning=None, **options).to_pandas()


def _read_evaluations(project: Path, experiment: str) -> Evaluations | None:
    columns = ("prompt_id", "num_scored", "num_correct", "num_distinct_correct")
    table = "07_model_output/evaluation"
    found: dict[int, pd.DataFrame] = {}
    for number in _rounds(project, table, experiment):
        # A table is as good as its round: one that is evaluated and not summarised yet has no cost.
        if number and _table(project, "08_reporting/round_summary", experiment, number, ["num_prompts"]) is None:
            continue
        rows = _table(project, table, experiment, number, columns, filters=[("split", "=", Split.TEST.value)])
        if rows is not None and len(rows):
            found[number] = rows.set_index("prompt_id").sort_index()
    if not found:
        return None
    ids = found[max(found)].index
    tables = [found[number].reindex(ids, fill_value=0) for number in sorted(found)]
    counts = {name: np.stack([table[name].to_numpy() for table in tables]) for name in columns[1:]}
    return Evaluations(rounds=np.array(sorted(found)), prompt_ids=tuple(ids), **counts)


def _read_costs(project: Path, experiment: str, rounds: Sequence[int]) -> pd.DataFrame:
    """One row per round: tokens and seconds."""
    names = ["tokens_sampled", "tokens_trained", "tokens_evaluated", "tokens_measured"]
    rows = []
    for number in rounds:
        summary = _table(project, "08_reporting/round_summary", experiment, number, names)
        timings = _table(project, "08_reporting/timings", experiment, number, ["stage", "name", "seconds"])
        tokens = {} if summary is None else records(summary)[0]
        rows.append({"round": number, **tokens, **_seconds(timings)})
    costs = pd.DataFrame(rows).set_index("round") if rows else pd.DataFrame()
    for name in [*names, *ROUND_STAGES]:
        costs[name] = costs[name].astype(float).fillna(0.0) if name in costs else 0.0
    return costs.fillna(0.0)


def _seconds(timings: pd.DataFrame | None) -> dict[str, float]:
    """Seconds per stage; a node's own parts (`verifier:…`) are inside the node."""
    if timings is None:
        return {}
    sums = timings[~timings["name"].str.startswith("verifier:")].groupby("stage")["seconds"].sum()
    return {str(stage): float(seconds) for stage, seconds in sums.items()}


def _read_uniform_outcomes(project: Path, experiment: str, rounds: Sequence[int]) -> pd.DataFrame:
    """From as few tables as possible: each holds the outcomes of many rounds before it too."""
    columns = ["scheduled_round", "reason", "estimated_accuracy", "num_scored", "num_correct"]

    def tables() -> Iterator[pd.DataFrame]:
        left = set(rounds)
        while left:
            number = max(left)
            table = _table(project, "05_model_input/outcome_history", experiment, number, columns)
            left.discard(number)
            if table is not None:
                yield table[table["scheduled_round"].isin(left | {number})]
                left -= set(table["scheduled_round"])

    found = list(tables())
    outcomes = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)
    is_uniform = (outcomes["reason"] != ScheduleReason.SELECTED) & (outcomes["num_scored"] > 0)
    return outcomes[is_uniform].drop(columns="reason").sort_values("scheduled_round", ignore_index=True, kind="stable")
