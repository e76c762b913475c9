"""An engine that does not run the policy it should stops the round, and leaves what was there before."""

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from project_folders import make_project, run
from safetensors.torch import load_file, save_file

from paced_rl.generation import Generator, close_generators, get_generator
from paced_rl.pipelines import generators
from paced_rl.pipelines.training.canary import LogProbGapError
from paced_rl.policies import file_digests
from paced_rl.types import Checkpoint, Completion, GenerationRequest, SamplingSettings

COLUMNS = ["mean_log_prob_gap", "max_log_prob_gap", "sampler_kl"]
MESSAGE = "the engine is not running the policy it should"


class WrongEngine:
    """Runs another policy than it is told to."""

    def __init__(self, engine: Generator, choose: Callable[[Checkpoint], Checkpoint]) -> None:
        self._engine = engine
        self._choose = choose

    def generate(
        self,
        checkpoint: Checkpoint,
        requests: Sequence[GenerationRequest],
        settings: SamplingSettings,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[tuple[Completion, ...]]:
        return self._engine.generate(self._choose(checkpoint), requests, settings, on_progress=on_progress)

    def close(self) -> None:
        self._engine.close()


def first_seen() -> Callable[[Checkpoint], Checkpoint]:
    """Skips every update of the weights."""
    seen: list[Checkpoint] = []

    def choose(checkpoint: Checkpoint) -> Checkpoint:
        seen.append(checkpoint)
        return seen[0]

    return choose


def with_a_corrupted_layer(folder: Path) -> Callable[[Checkpoint], Checkpoint]:
    """Takes the right weights, but for noise on one matrix of the last layer, a fifth of its spread."""

    def choose(checkpoint: Checkpoint) -> Checkpoint:
        if not folder.exists():
            shutil.copytree(checkpoint.folder, folder)
            weights = load_file(folder / "model.safetensors")
            matrix = weights["model.layers.3.mlp.down_proj.weight"]
            matrix += 0.2 * matrix.std() * torch.randn(matrix.shape, generator=torch.Generator().manual_seed(0))
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return dataclasses.replace(checkpoint, folder=folder, files=file_digests(folder))

    return choose


@pytest.fixture(params=["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    close_generators()


def round_state(project: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(project)): path.read_bytes()
        for name in ("06_models", "07_model_output", "08_reporting")
        for path in (project / "data" / name).rglob("*")
        if path.is_file()
    }


def use(patch: pytest.MonkeyPatch, engine: Generator) -> None:
    def get(*_: Any, **__: Any) -> Generator:
        return engine

    patch.setattr(generators, "get_generator", get)


def make_engine(backend: str) -> Generator:
    options = {"kv_cache_gib": 0.5} if backend == "vllm" else None
    return get_generator(backend, device="cpu", dtype="float32", batch_size=64, options=options)


def test_a_skipped_update_of_the_weights_stops_the_next_round(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project")
    params = {"rollout": {"backend": backend}}
    use(monkeypatch, WrongEngine(make_engine(backend), first_seen()))
    assert run(project, range(1, 2), params=params) == [1]
    before = round_state(project)
    with pytest.raises(LogProbGapError, match=MESSAGE):
        run(project, range(2, 3), params=params)
    after = round_state(project)
    assert {name: content for name, content in after.items() if "round=0002" not in name} == before
    assert not any("policy.json" in name and "round=0002" in name for name in after)

    monkeypatch.undo()  # a right engine goes on where the wrong one was stopped
    forget_rollouts(project)
    assert run(project, range(2, 3), params=params) == [2]


def forget_rollouts(project: Path) -> None:
    """As `--from-nodes=sample_rollouts --runner-params=force=True` does."""
    (path,) = (project / "data").rglob("round=0002/rollouts.parquet")
    path.unlink()


def test_one_corrupted_layer_stops_the_round(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "project")
    use(monkeypatch, WrongEngine(make_engine(backend), with_a_corrupted_layer(tmp_path / "corrupted")))
    with pytest.raises(LogProbGapError, match=MESSAGE) as caught:
        run(project, range(1, 2), params={"rollout": {"backend": backend}})

    gap, limit = map(float, re.findall(r"differ by (\S+) nats.*max_log_prob_gap = (\S+) ", str(caught.value))[0])
    assert limit == 0.001
    assert gap > 3 * limit


def test_a_right_engine_is_seen_to_agree(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    truncated = {"rollout": {"top_p": 0.9, "top_k": 6, "sampling_temperature": 1.2}}
    for experiment, params in {"plain": {}, "truncated": truncated}.items():
        run(project, range(1, 2), params={"experiment": experiment, **params})
        folder = f"experiment={experiment}/round=0001"
        scores = pd.read_parquet(project / f"data/05_model_input/behaviour_log_probs/{folder}")
        metrics = pd.read_parquet(project / f"data/07_model_output/training_metrics/{folder}")
        (summary,) = pd.read_parquet(project / f"data/08_reporting/round_summary/{folder}")[COLUMNS].to_dict("records")

        assert (scores[COLUMNS] >= -1e-9).all(axis=None)
        assert (scores[COLUMNS] < [1e-4, 1e-3, 1e-6]).all(axis=None)
        assert summary["max_log_prob_gap"] == scores["max_log_prob_gap"].max()
        assert metrics[COLUMNS].drop_duplicates().to_dict("records") == [summary]
    # π_old is the whole distribution; what was drawn from gives each kept token more.
    batch = pd.read_parquet(project / f"data/05_model_input/training_batch/{folder}").merge(scores, on="rollout_id")
    differences = (batch["sampler_log_probs"] - batch["behaviour_log_probs"]).explode().astype(float)
    assert (differences > -1e-4).all()
    assert (differences > 0.05).any()
