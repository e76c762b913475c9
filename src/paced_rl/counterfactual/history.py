"""The rounds of an experiment as they were, one after the other from their Parquet tables."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from paced_rl.inspection.experiment import Experiment, ExperimentError
from paced_rl.runner.content_fingerprints import local_path
from paced_rl.scheduling import estimated_accuracy
from paced_rl.scheduling.counterfactual import PastRound
from paced_rl.types import ScheduleReason

TABLES = ("schedule", "verdicts", "rollouts", "provenance")
"""Files of a round that are read."""
UNIFORM_SELECTORS = ("uniform", "dynamic_sampling")
"""Selectors whose `selected` prompts are drawn uniformly too."""
MIN_COMPLETIONS = 4
"""Of a prompt in the pool: two judge the oracle, and it chooses by as many at least."""
MIN_POOL = 8
"""Prompts: among fewer there is not much to choose, and an audit slice is mostly smaller."""
MIN_ROUNDS = 5
"""Rounds with a pool, fewer of which say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What of an experiment is replayed."""

    files: Mapping[str, Path]
    """Each of `TABLES` → its file in round 1; other rounds lie beside it."""
    rounds: Sequence[int]
    """In ascending order."""
    warm_up_rounds: int
    """First rounds, which are remembered and not chosen in, as in the loop."""
    reward_temperature: float
    """β of rounds whose provenance does not say it."""


def source_of(experiment: Experiment) -> Source:
    """All rounds of an experiment, with its parameters as they apply now.

    Raises:
        ExperimentError: its log Z is no accuracy, or it has no round.
    """
    training, scheduling = experiment.parameters["training"], experiment.parameters["scheduling"]
    if not training.is_log_z_accuracy:
        raise ExperimentError(
            f"experiment '{experiment.name}' was trained with objective {training.objective}, whose log Z is no "
            f"accuracy, so that its head has no estimate to replay: {_how_to_make_one(experiment.name)}"
        )
    rounds = experiment.rounds()
    if not rounds:
        raise ExperimentError(f"experiment '{experiment.name}' has no round yet: {_how_to_make_one(experiment.name)}")
    catalog = experiment.catalog(1)
    paths = {name: local_path(catalog[name]) for name in TABLES}
    return Source(
        files={name: path for name, path in paths.items() if path is not None},
        rounds=rounds,
        warm_up_rounds=scheduling.warm_up_rounds,
        reward_temperature=training.reward_temperature,
    )


def read_rounds(source: Source, *, on_progress: Callable[[int], object] = lambda _: None) -> Iterator[PastRound]:
    """Every round of which all tables are there; only the columns that are needed are read, and one round at a time.

    A round has a pool if at least `MIN_POOL` of its prompts were drawn uniformly and have `MIN_COMPLETIONS` rewards.

    Raises:
        ExperimentError: a table is damaged.
    """
    numbers: dict[str, int] = {}
    for round_number in source.rounds:
        on_progress(1)
        files = {name: path.parents[1] / f"round={round_number:04d}" / path.name for name, path in source.files.items()}
        if not all(files[name].is_file() for name in ("schedule", "verdicts", "rollouts")):
            continue
        try:
            found = _read_round(files, round_number, numbers, source.reward_temperature)
        except (pa.ArrowException, json.JSONDecodeError, ValueError) as error:
            raise ExperimentError(
                f"round {round_number} cannot be replayed: {error}; run it again with `kedro paced train`"
            ) from error
        has_pool = round_number > source.warm_up_rounds and np.count_nonzero(found.is_pool) >= MIN_POOL
        yield found if has_pool else replace(found, is_pool=np.zeros_like(found.is_pool))


def check_is_enough(num_rounds_with_pool: int, experiment: str) -> None:
    """Refuses an experiment that holds too little to replay.

    Raises:
        ExperimentError: says how to make one that does.
    """
    if num_rounds_with_pool < MIN_ROUNDS:
        raise ExperimentError(
            f"experiment '{experiment}' has {num_rounds_with_pool} rounds after the warm-up in which at least "
            f"{MIN_POOL} prompts were drawn uniformly and have {MIN_COMPLETIONS} scored completions; {MIN_ROUNDS} "
            f"rounds are needed. Audit slices alone are mostly too small: {_how_to_make_one(experiment)}"
        )


def _how_to_make_one(experiment: str) -> str:
    return (
        f"run `kedro paced train --rounds 60 --experiment {experiment}-uniform --params scheduling.selector=uniform`, "
        "or `kedro paced train --rounds 60 --env grpo`"
    )


def _read_round(
    files: Mapping[str, Path], round_number: int, numbers: dict[str, int], reward_temperature: float
) -> PastRound:
    schedule = _columns(files["schedule"], "prompt_id", "reason", "log_z")
    verdicts = _columns(files["verdicts"], "prompt_id", "reward")
    rollouts = _columns(files["rollouts"], "prompt_id", "num_tokens")
    ids = schedule["prompt_id"].combine_chunks()
    rewards = verdicts["reward"].to_numpy()
    of_reward, of_rollout = (
        pc.index_in(table["prompt_id"], value_set=ids).to_numpy() for table in (verdicts, rollouts)
    )
    is_scored = ~np.isnan(rewards)
    num_scored = np.bincount(of_reward[is_scored], minlength=len(ids))
    selector, recorded = _recorded(files.get("provenance"))
    reasons = np.array(schedule["reason"].to_pylist())
    is_uniform = (reasons != ScheduleReason.SELECTED.value) | (selector in UNIFORM_SELECTORS)
    found = PastRound(
        round_number=round_number,
        prompts=np.array([numbers.setdefault(prompt_id, len(numbers)) for prompt_id in ids.to_pylist()]),
        learned=estimated_accuracy(schedule["log_z"].to_numpy(), recorded or reward_temperature),
        num_correct=np.bincount(of_reward[is_scored], rewards[is_scored], len(ids)).astype(np.int64),
        num_scored=num_scored,
        num_tokens=np.bincount(of_rollout, rollouts["num_tokens"].to_numpy(), len(ids)).astype(np.int64),
        reasons=reasons,
        is_pool=is_uniform & (num_scored >= MIN_COMPLETIONS),
    )
    return found if num_scored.all() else _scored_groups(found)


def _scored_groups(found: PastRound) -> PastRound:
    """Without groups of which every verifier failed: nothing is known of them."""
    kept = found.num_scored > 0
    names = ("prompts", "learned", "num_correct", "num_scored", "num_tokens", "reasons", "is_pool")
    changes: dict[str, Any] = {name: getattr(found, name)[kept] for name in names}
    return replace(found, **changes)


def _columns(path: Path, *names: str) -> pa.Table:
    with pq.ParquetFile(path, memory_map=True) as file:
        return file.read(columns=list(names), use_threads=False)


def _recorded(path: Path | None) -> tuple[str | None, float | None]:
    """Selector and reward temperature that a round was scheduled under; None where nobody recorded it."""
    if path is None or not path.is_file():
        return None, None
    parameters = json.loads(path.read_bytes())["nodes"].get("schedule_prompts", {}).get("parameters", {})
    return (
        parameters.get("params:scheduling", {}).get("selector"),
        parameters.get("params:training", {}).get("reward_temperature"),
    )
