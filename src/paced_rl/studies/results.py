"""What the experiments of a study have left on disk: test evaluations, costs, outcomes of uniform prompts."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
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
    points = [] if curve is None else curve.select(["curve_round", "validation_accuracy"]).to_pylist()
    validation = {point["curve_round"]: point["validation_accuracy"] for point in points}
    return ExperimentResults(
        name=name,
        arm=arm,
        seed=seed,
        evaluations=evaluations,
        validation={number: value for number, value in validation.items() if value is not None},
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
    project: Path, table: str, experiment: str, number: int, columns: Sequence[str] | None = None
) -> pa.Table | None:
    folder = project / "data" / table / f"experiment={experiment}" / f"round={number:04d}"
    path = folder / f"{folder.parents[1].name}.parquet"
    if not path.is_file():
        return None
    # Not `read_table`, which takes ten times as long for a small file, and adds columns for `name=value` in the path.
    with pq.ParquetFile(path) as file:
        known = set(file.schema_arrow.names)
        return file.read(columns=None if columns is None else [name for name in columns if name in known])


def _read_evaluations(project: Path, experiment: str) -> Evaluations | None:
    columns = ("split", "prompt_id", "num_scored", "num_correct", "num_distinct_correct")
    # A round that is evaluated and not summarised yet has no cost.
    whole = {0, *_rounds(project, "08_reporting/round_summary", experiment)}
    found: dict[int, pd.DataFrame] = {}
    for number in sorted(whole & set(_rounds(project, "07_model_output/evaluation", experiment))):
        table = _table(project, "07_model_output/evaluation", experiment, number, columns)
        rows = None if table is None else table.filter(pc.field("split") == Split.TEST.value).to_pandas()
        if rows is not None and len(rows):
            found[number] = rows.set_index("prompt_id").sort_index()
    if not found:
        return None
    ids = found[max(found)].index
    tables = [found[number].reindex(ids, fill_value=0) for number in sorted(found)]
    counts = {name: np.stack([table[name].to_numpy() for table in tables]) for name in columns[2:]}
    return Evaluations(rounds=np.array(sorted(found)), prompt_ids=tuple(ids), **counts)


def _read_costs(project: Path, experiment: str, rounds: Sequence[int]) -> pd.DataFrame:
    """One row per round: tokens and seconds."""
    names = ["tokens_sampled", "tokens_trained", "tokens_evaluated", "tokens_measured"]
    rows = []
    for number in rounds:
        summary = _table(project, "08_reporting/round_summary", experiment, number, names)
        timings = _table(project, "08_reporting/timings", experiment, number, ["stage", "name", "seconds"])
        tokens = {} if summary is None else summary.to_pylist()[0]
        rows.append({"round": number, **tokens, **_seconds([] if timings is None else timings.to_pylist())})
    costs = pd.DataFrame(rows).set_index("round") if rows else pd.DataFrame()
    for name in [*names, *ROUND_STAGES]:
        costs[name] = costs[name].astype(float) if name in costs else 0.0
    return costs.fillna(0.0)


def _seconds(timings: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds per stage; a node's own parts (`verifier:…`) are inside the node."""
    seconds: dict[str, float] = defaultdict(float)
    for row in timings:
        if not row["name"].startswith("verifier:"):
            seconds[row["stage"]] += row["seconds"]
    return seconds


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
                rows = table.to_pandas()
                yield rows[rows["scheduled_round"].isin(left | {number})]
                left -= set(rows["scheduled_round"])

    found = list(tables())
    outcomes = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)
    is_uniform = (outcomes["reason"] != ScheduleReason.SELECTED) & (outcomes["num_scored"] > 0)
    return outcomes[is_uniform].drop(columns="reason").sort_values("scheduled_round", ignore_index=True, kind="stable")
