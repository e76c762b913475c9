"""Whole rounds that the real vLLM engine samples."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project_folders import make_project, run

from paced_rl.generation import close_generators, vllm_backend

pytestmark = pytest.mark.vllm

PARAMS: dict[str, Any] = {
    "rollout": {"backend": "vllm", "top_p": 0.95, "vllm": {"kv_cache_gib": 0.5}},
    "training": {"importance_correction": "sequence"},
}


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """What the backend logs; Kedro's own configuration of logging keeps the package's records from pytest."""
    shown: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            shown.append(record.getMessage())

    handler = Keep()
    vllm_backend.logger.addHandler(handler)
    yield shown
    vllm_backend.logger.removeHandler(handler)
    close_generators()


def test_one_engine_serves_all_rounds_and_a_second_call_is_cached(tmp_path: Path, messages: list[str]) -> None:
    project = make_project(tmp_path / "project")
    run(project, range(1, 4), params=PARAMS)
    starts = [message for message in messages if message.startswith("vLLM started in")]
    assert len(starts) == 1
    assert any(message.startswith("vLLM took the weights of policy version 2 in") for message in messages)

    summary = pd.read_parquet(project / "data/08_reporting/round_summary").sort_values("round")
    assert summary["round"].to_list() == [1, 2, 3]
    assert (summary["max_log_prob_gap"] < 1e-3).all()
    metrics = pd.read_parquet(project / "data/07_model_output/training_metrics")
    assert metrics["mean_importance_correction"].between(0.2, 0.999).all()  # the mass that top-p kept

    messages.clear()
    tables = {path: path.stat().st_mtime_ns for path in (project / "data").rglob("rollouts.parquet")}
    run(project, range(1, 4), params=PARAMS)
    assert len(tables) == 3
    assert {path: path.stat().st_mtime_ns for path in tables} == tables
    assert messages == []
