"""Every objective through a whole round, by parameters alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
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
        {"objective": "rloo", "kl_coefficient": 0.05},
        {"objective": "flowrl"},
        {"objective": "gflowrl"},
        {"objective": "grpo", "importance_correction": "sequence"},
        {"objective": "paced", "importance_correction": "sequence"},
    ],
    ids=lambda training: training["objective"],
)
def test_an_objective_trains_a_policy(project: Path, training: dict[str, Any]) -> None:
    objective = training["objective"]
    params = {**SMALL, "experiment": objective, "training": {**training, "replay_max_added": 0}}
    if objective == "flowrl":  # its log Z is no accuracy
        params["scheduling"] = {**SMALL["scheduling"], "estimator": "group_mean"}
    assert run(project, range(1, 2), params=params) == [1]

    metrics = pd.read_parquet(project / "data/07_model_output/training_metrics" / f"experiment={objective}")
    assert metrics["mean_residual"].notna().all() == (objective in ("paced", "vargrad", "flowrl", "gflowrl"))
    assert metrics["clip_fraction"].notna().all() == (objective in ("grpo", "dr_grpo", "dapo"))
    needs_reference = objective in ("flowrl", "gflowrl") or "kl_coefficient" in training
    assert metrics["kl_reference_policy"].notna().all() == needs_reference
    scores = pd.read_parquet(project / "data/05_model_input/behaviour_log_probs" / f"experiment={objective}")
    assert scores["reference_log_probs"].notna().all() == needs_reference
    if needs_reference:  # in round 1 the behaviour policy is the reference policy
        assert np.array_equal(*(np.concatenate(scores[f"{name}_log_probs"]) for name in ("behaviour", "reference")))
        divergence = metrics["kl_reference_policy"]
        assert divergence.iloc[0] == pytest.approx(0.0, abs=1e-6)
        assert divergence.iloc[-1] > divergence.iloc[0]
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


def test_the_log_z_of_flowrl_is_recorded_and_called_no_accuracy(project: Path) -> None:
    experiment = "flowrl-twice"
    scheduling = {**SMALL["scheduling"], "estimator": "group_mean", "warm_up_rounds": 0}
    training = {"objective": "flowrl", "replay_max_added": 0, "log_z_learning_rate": 0.05, "learning_rate": 1e-3}
    training |= {"learning_rate_schedule": "linear", "learning_rate_total_rounds": 2}
    params = {**SMALL, "experiment": experiment, "scheduling": scheduling, "training": training}
    assert run(project, range(1, 3), params=params) == [1, 2]

    estimates = pd.read_parquet(project / "data/04_feature/accuracy_estimates" / f"experiment={experiment}")
    first, second = (estimates[estimates["round"] == number] for number in (1, 2))
    assert set(first["log_z"]) == {0.0}
    assert (second["log_z"] < 0).any()  # no bounded head could say so
    assert second["estimated_accuracy"].between(0, 1).all()  # the mean of the groups, which the head has no part in
    evaluation = pd.read_parquet(project / "data/07_model_output/evaluation" / f"experiment={experiment}")
    assert evaluation["estimated_accuracy"].isna().all()
    summary = pd.read_parquet(project / "data/08_reporting/round_summary" / f"experiment={experiment}")
    assert summary["audit_mean_absolute_error"].isna().all()
    metrics = pd.read_parquet(project / "data/07_model_output/training_metrics" / f"experiment={experiment}")
    rates = metrics.groupby(metrics["round"].astype(int))["learning_rate"].unique().map(list).to_dict()
    assert rates == {1: [pytest.approx(7.5e-4)], 2: [pytest.approx(2.5e-4)]}
    manifest = project / f"data/06_models/log_z_head/experiment={experiment}/round=0002/log_z_head.json"
    assert json.loads(manifest.read_text())["metadata"]["form"] == "unbounded"


def test_an_experiment_keeps_the_form_of_its_head(project: Path) -> None:
    params = {**SMALL, "experiment": "began-paced"}
    run(project, range(1, 2), params=params)
    changed = {
        "scheduling": {**SMALL["scheduling"], "estimator": "group_mean"},
        "training": {"objective": "flowrl", "replay_max_added": 0},
    }
    with pytest.raises(ValueError, match="needs a log-Z head that is unbounded, and this experiment began with"):
        run(project, range(2, 3), params={**params, **changed})
