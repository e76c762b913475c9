from pathlib import Path

import pandas as pd
import pytest
from round_runs import round_catalog, round_pipeline, run_with_hooks

from paced_rl.hooks import TimingsHook
from paced_rl.hooks.timings import merge_timings, seconds_per_stage
from paced_rl.timing import Timing


def timings_after(project: Path, *, executed: list[str] | None = None, error: Exception | None = None) -> pd.DataFrame:
    catalog = round_catalog(project)
    pipeline = round_pipeline(error=error)
    run_with_hooks([TimingsHook()], project=project, catalog=catalog, pipeline=pipeline, executed=executed)
    return catalog["timings"].load()


def names(timings: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(timings["stage"], timings["name"], strict=True))


def row(stage: str, name: str, seconds: float) -> Timing:
    return Timing(stage=stage, name=name, seconds=seconds, peak_memory_bytes=1)


def frame(*rows: Timing) -> pd.DataFrame:
    return merge_timings(None, list(rows), set())


ALL = {
    ("rollout", "sample"),
    ("rollout", "save:prompts"),
    ("rollout", "save:rollouts"),
    ("verification", "load:rollouts"),
    ("verification", "verify"),
    ("verification", "verifier:arithmetic"),
    ("verification", "save:verdicts"),
    ("training", "load:verdicts"),
    ("training", "train"),
    ("training", "save:training_metrics"),
    ("reporting", "load:training_metrics"),
    ("reporting", "report"),
    ("reporting", "save:round_summary"),
    ("reporting", "save:calibration_figure"),
}


def test_nodes_loads_saves_and_own_parts_are_timed_and_parameters_are_not(tmp_path: Path) -> None:
    timings = timings_after(tmp_path)
    assert names(timings) == ALL
    assert len(timings) == len(ALL)
    assert (timings["seconds"] >= 0).all()
    assert (timings["peak_memory_bytes"] > 10 * 2**20).all(), "a Python process with pandas needs more than 10 MiB"


def test_rows_of_nodes_that_were_not_executed_stay(tmp_path: Path) -> None:
    before = timings_after(tmp_path).set_index(["stage", "name"])["seconds"]
    after = timings_after(tmp_path, executed=["train", "report"]).set_index(["stage", "name"])["seconds"]
    assert set(after.index) == ALL
    kept = [key for key in ALL if key[0] in ("rollout", "verification")]
    pd.testing.assert_series_equal(before[kept], after[kept])


def test_a_run_that_executes_nothing_writes_nothing(tmp_path: Path) -> None:
    timings_after(tmp_path)
    (file,) = tmp_path.glob("data/timings/**/timings.parquet")
    written = file.stat().st_mtime_ns
    timings_after(tmp_path, executed=[])
    assert file.stat().st_mtime_ns == written


def test_a_failed_run_keeps_the_rows_of_what_it_executed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"):
        timings_after(tmp_path, error=ValueError("no"))
    timings = round_catalog(tmp_path)["timings"].load()
    assert names(timings) == {x for x in ALL if x[0] in ("rollout", "verification")} | {("training", "load:verdicts")}


def test_a_verifier_that_is_no_longer_used_disappears() -> None:
    earlier = frame(
        row("verification", "verify", 1.0), row("verification", "verifier:math", 1.0), row("start", "a", 2.0)
    )
    new = [row("verification", "verify", 3.0), row("verification", "verifier:code", 3.0)]
    merged = merge_timings(earlier, new, {"verification"})
    assert dict(zip(merged["name"], merged["seconds"], strict=True)) == {"a": 2.0, "verify": 3.0, "verifier:code": 3.0}


def test_seconds_of_a_stage_do_not_count_a_nodes_parts_twice() -> None:
    timings = frame(
        row("verification", "verify", 2.0),
        row("verification", "verifier:math", 1.5),
        row("verification", "load:x", 0.5),
    )
    assert seconds_per_stage(timings) == {"verification": 2.5}
