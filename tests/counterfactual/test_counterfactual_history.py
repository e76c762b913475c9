"""Rounds read back from their tables: who was drawn uniformly, what was scored, what is left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_examples import ROWS, example_table

from paced_rl.counterfactual.history import TABLES, Source, check_is_enough, read_rounds
from paced_rl.inspection.experiment import ExperimentError
from paced_rl.scheduling.counterfactual import PastRound

REASONS = ["selected"] * 8 + ["audit"] * 4
REWARDS: list[list[float | None]] = [[1.0, 0.0, 1.0, 1.0], [1.0, None, 0.0, 0.0], [None] * 4, *[[0.0] * 4] * 9]
"""Of twelve prompts: the verifier failed once on the second, and on all of the third."""


def source(folder: Path, **changes: Any) -> Source:
    files = {name: folder / name / "round=0001" / f"{name}.parquet" for name in TABLES}
    return Source(**{"files": files, "rounds": [1, 2, 3], "warm_up_rounds": 0, "reward_temperature": 0.05, **changes})


def write(folder: Path, round_number: int, *, selector: str | None, reward_temperature: float | None = None) -> None:
    """Tables of one round: prompts p00 to p11, the completions in an order of their own."""
    ids = [f"p{index:02d}" for index in range(12)]
    tables = {
        "schedule": [
            ROWS["schedule"][0] | {"prompt_id": prompt, "rank": rank, "reason": reason, "log_z": float(rank)}
            for rank, (prompt, reason) in enumerate(zip(ids, REASONS, strict=True))
        ],
        "verdicts": [
            ROWS["verdicts"][0] | {"rollout_id": f"{prompt}-{index}", "prompt_id": prompt, "reward": rewards[index]}
            for index in range(4)
            for prompt, rewards in zip(ids, REWARDS, strict=True)
        ],
        "rollouts": [
            ROWS["rollouts"][0] | {"rollout_id": f"{prompt}-{index}", "prompt_id": prompt, "num_tokens": 10 + number}
            for index in range(4)
            for number, prompt in enumerate(ids)
        ],
    }
    for name, rows in tables.items():
        path = folder / name / f"round={round_number:04d}" / f"{name}.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(example_table(name, rows), path)
    if selector is not None:
        parameters: dict[str, Any] = {"params:scheduling": {"selector": selector}}
        if reward_temperature is not None:
            parameters["params:training"] = {"reward_temperature": reward_temperature}
        path = folder / "provenance" / f"round={round_number:04d}" / "provenance.parquet"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"nodes": {"schedule_prompts": {"parameters": parameters}}}))


def read(folder: Path, **changes: Any) -> list[PastRound]:
    return list(read_rounds(source(folder, **changes)))


def test_groups_are_counted_and_those_without_a_reward_left_out(tmp_path: Path) -> None:
    write(tmp_path, 1, selector="uniform")
    (found,) = read(tmp_path)
    assert found.round_number == 1
    assert found.num_correct.tolist() == [3, 1, *[0] * 9]
    assert found.num_scored.tolist() == [4, 3, *[4] * 9]
    assert found.num_tokens.tolist() == [40, 44, *[4 * (10 + number) for number in range(3, 12)]]
    assert found.reasons.tolist() == ["selected"] * 7 + ["audit"] * 4
    np.testing.assert_allclose(found.learned, 0.05 * np.array([0, 1, *range(3, 12)]))
    assert found.is_pool.tolist() == [True, False, *[True] * 9]  # a group of three is too small to be judged by


def test_the_head_is_read_with_the_temperature_it_had(tmp_path: Path) -> None:
    write(tmp_path, 1, selector="uniform", reward_temperature=0.02)
    (found,) = read(tmp_path)
    np.testing.assert_allclose(found.learned, 0.02 * np.array([0, 1, *range(3, 12)]))


@pytest.mark.parametrize(
    ("selector", "size"), [("uniform", 10), ("dynamic_sampling", 10), ("nearest", 0), (None, 0)], ids=str
)
def test_the_pool_is_what_no_estimate_chose(tmp_path: Path, selector: str | None, size: int) -> None:
    """Four audit prompts are fewer than a pool takes; without provenance nobody knows what `selected` meant."""
    write(tmp_path, 1, selector=selector)
    (found,) = read(tmp_path)
    assert np.count_nonzero(found.is_pool) == size
    assert len(found.prompts) == 11


def test_prompts_keep_their_numbers_and_the_warm_up_is_history_alone(tmp_path: Path) -> None:
    for round_number in (1, 3):  # the second was never finished
        write(tmp_path, round_number, selector="uniform")
    first, second = read(tmp_path, warm_up_rounds=1)
    assert (first.round_number, second.round_number) == (1, 3)
    assert not first.is_pool.any()
    assert second.is_pool.any()
    assert first.prompts.tolist() == second.prompts.tolist()


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    write(tmp_path, 1, selector="uniform")
    (tmp_path / "verdicts" / "round=0001" / "verdicts.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(ExperimentError, match=r"round 1 cannot be replayed: .*run it again"):
        read(tmp_path)


def test_too_little_is_refused_with_what_to_do() -> None:
    check_is_enough(5, "mine")
    with pytest.raises(ExperimentError, match=r"'mine' has 4 rounds .* scheduling.selector=uniform`, or .*--env grpo`"):
        check_is_enough(4, "mine")


def test_only_columns_that_are_needed_are_read(tmp_path: Path) -> None:
    """A table that has lost every other column serves as well."""
    write(tmp_path, 1, selector="uniform")
    (before,) = read(tmp_path)
    for name, columns in {"verdicts": ["prompt_id", "reward"], "rollouts": ["prompt_id", "num_tokens"]}.items():
        path = tmp_path / name / "round=0001" / f"{name}.parquet"
        table: pa.Table = pq.read_table(path, columns=columns, partitioning=None)
        pq.write_table(table, path)
    (after,) = read(tmp_path)
    assert before.num_correct.tolist() == after.num_correct.tolist()
    assert before.num_tokens.tolist() == after.num_tokens.tolist()
