"""Every objective through a whole round, by parameters alone."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project_folders import make_project, run
from safetensors.numpy import load_file

SMALL = {
    "data_preparation": {"num_train": 20, "num_audit": 4, "num_validation": 4, "num_test": 4},
    "scheduling": {"num_prompts": 4, "audit_fraction": 0.25},
    "rollout": {"group_size": 8, "max_new_tokens": 8},
    "evaluation": {"num_samples": 1},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One project for all: an experiment each."""
    return make_project(tmp_path_factory.mktemp("objectives") / "project")


@pytest.mark.parametrize(
    "training",
    [
        {"objective": "vargrad"},
        {"objective": "dr_grpo"},
        {"objective": "dapo", "importance_correction": "token"},
        {"objective": "rloo"},
        {"objective": "grpo", "importance_correction": "sequence"},
        {"objective": "paced", "importance_correction": "sequence"},
    ],
    ids=lambda training: training["objective"],
)
def test_an_objective_trains_a_policy(project: Path, training: dict[str, Any]) -> None:
    objective = training["objective"]
    params = {**SMALL, "experiment": objective, "training": {**training, "replay_max_added": 0}}
    assert run(project, range(1, 2), params=params) == [1]

    metrics = pd.read_parquet(project / "data/07_model_output/training_metrics" / f"experiment={objective}")
    assert metrics["mean_residual"].notna().all() == (objective in ("paced", "vargrad"))
    assert metrics["clip_fraction"].notna().all() == (objective in ("grpo", "dr_grpo", "dapo"))
    is_corrected = "importance_correction" in training
    assert metrics["mean_importance_correction"].notna().all() == is_corrected
    if is_corrected:  # transformers samples with the trainer's own weights: the two differ by rounding
        assert metrics["mean_importance_correction"].to_list() == pytest.approx([1.0] * len(metrics), abs=1e-3)
        assert metrics["capped_correction_fraction"].to_list() == [0.0] * len(metrics)
    (weights,) = project.glob(f"data/06_models/policy/experiment={objective}/round=0001/policy/*/model.safetensors")
    start = load_file(project / "data/01_raw/starter_policy/model.safetensors")
    assert max(abs(array - start[name]).max() for name, array in load_file(weights).items()) > 0
    batch = pd.read_parquet(project / "data/05_model_input/training_batch" / f"experiment={objective}")
    assert batch["observed_accuracy"].between(0, 1, inclusive="neither").any()  # else there would be no gradient
    assert metrics["gradient_norm"].max() > 1e-3
