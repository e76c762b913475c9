"""Whole rounds that the real vLLM engine samples."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project_folders import make_project, run

from paced_rl.generation import close_generators, vllm_backend
from paced_rl.generation.vllm_engine import VllmEngine

pytestmark = pytest.mark.vllm

PARAMS: dict[str, Any] = {
    "rollout": {"backend": "vllm", "top_p": 0.95, "vllm": {"kv_cache_gib": 0.5}},
    "training": {"importance_correction": "sequence"},
}


@pytest.fixture
def engine_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What engines are told, over all engines of the process."""
    calls: list[str] = []

    class CountedEngine(VllmEngine):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            calls.append("start")
            super().__init__(*args, **kwargs)

        def load(self, folder: Path) -> None:
            calls.append("load")
            super().load(folder)

        def generate(self, *args: Any, **kwargs: Any) -> None:
            calls.append("generate")
            super().generate(*args, **kwargs)

    monkeypatch.setattr(vllm_backend, "VllmEngine", CountedEngine)
    yield calls
    close_generators()


def test_one_engine_serves_all_rounds_and_a_second_call_is_cached(tmp_path: Path, engine_calls: list[str]) -> None:
    project = make_project(tmp_path / "project")
    run(project, range(1, 4), params=PARAMS)
    # The start is evaluated and rolled out with the same weights; so is round 2, which the environment evaluates.
    assert engine_calls == ["start", "generate", "generate", *["load", "generate"] * 2, "generate"]

    summary = pd.read_parquet(project / "data/08_reporting/round_summary").sort_values("round")
    assert summary["round"].to_list() == [1, 2, 3]
    assert (summary["max_log_prob_gap"] < 1e-3).all()
    metrics = pd.read_parquet(project / "data/07_model_output/training_metrics")
    assert metrics["mean_importance_correction"].between(0.2, 0.999).all()  # the mass that top-p kept

    engine_calls.clear()
    tables = {path: path.stat().st_mtime_ns for path in (project / "data").rglob("rollouts.parquet")}
    run(project, range(1, 4), params=PARAMS)
    assert len(tables) == 3
    assert {path: path.stat().st_mtime_ns for path in tables} == tables
    assert engine_calls == []
