"""Whole rounds of the real project at tiny sizes: what they leave on disk, and that they leave it again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from project_folders import environment, inside, make_project, run
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from paced_rl.schemas import TABLES

ROUND_TABLES = (
    "accuracy_estimates",
    "schedule",
    "rollouts",
    "verdicts",
    "training_batch",
    "behaviour_log_probs",
    "training_metrics",
    "replay_audit",
    "replay_buffer",
    "outcome_history",
    "evaluation",
    "learning_curve",
    "round_summary",
    "timings",
)
NUM_PROMPTS, GROUP_SIZE, NUM_MINIBATCHES = 8, 4, 3  # conf/test, the last of conf/base


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rounds 1 and 2 have run here, in this process."""
    folder = make_project(tmp_path_factory.mktemp("rounds") / "project")
    assert run(folder, range(1, 3)) == [1, 2]
    return folder


def table(project: Path, name: str, round_number: int | None = None) -> pd.DataFrame:
    """A table of one round, or of the whole experiment."""
    (path,) = project.glob(f"data/0*/{name}")
    return pd.read_parquet(path if round_number is None else path / f"experiment=test/round={round_number:04d}")


def files(project: Path, suffix: str) -> dict[str, Path]:
    """Relative path → path of every result with this suffix."""
    return {str(path.relative_to(project)): path for path in sorted((project / "data").rglob(f"*{suffix}"))}


def test_every_table_has_its_schema(project: Path) -> None:
    found = files(project, ".parquet").values()

    assert {path.stem for path in found} == {"prompts", "prompt_embeddings", *ROUND_TABLES}
    for path in found:
        assert pq.read_schema(path).equals(TABLES[path.stem]), path


@pytest.mark.parametrize("name", ROUND_TABLES)
def test_a_tables_folder_reads_as_one_study(project: Path, name: str) -> None:
    rows = table(project, name)

    assert {*TABLES[name].names, "experiment", "round"} == set(rows.columns)
    assert set(rows["experiment"]) == {"test"}
    assert {1, 2} <= set(rows["round"].astype(int)) or name in (
        "evaluation",
        "replay_audit",  # nothing is there to replay in round 1
        "replay_buffer",
    )
    assert not rows.empty or name == "replay_buffer"


def test_a_round_samples_its_train_prompts_once_per_sibling(project: Path) -> None:
    train = set(table_of_experiment(project, "prompts").query("split == 'train'")["prompt_id"])
    for round_number in (1, 2):
        schedule, rollouts = table(project, "schedule", round_number), table(project, "rollouts", round_number)

        assert len(schedule) == NUM_PROMPTS == schedule["prompt_id"].nunique()
        assert set(schedule["prompt_id"]) == set(rollouts["prompt_id"]) <= train
        siblings = [sorted(group) for _, group in rollouts.groupby("prompt_id")["sample_index"]]
        assert siblings == [[*range(GROUP_SIZE)]] * NUM_PROMPTS
        assert rollouts["seed"].is_unique
        assert set(rollouts["policy_version"]) == {round_number - 1}
        assert rollouts["completion_token_ids"].map(len).equals(rollouts["num_tokens"].astype("int64"))
    assert set(table(project, "schedule", 1)["reason"]) == {"warm_up", "audit"}  # one warm-up round in conf/test
    assert set(table(project, "schedule", 2)["reason"]) == {"selected", "audit"}


def table_of_experiment(project: Path, name: str) -> pd.DataFrame:
    (path,) = project.glob(f"data/0*/{name}/experiment=test/{name}.parquet")
    return pd.read_parquet(path)


def test_what_is_trained_on_is_what_was_sampled_and_judged(project: Path) -> None:
    for round_number in (1, 2):
        batch, verdicts = table(project, "training_batch", round_number), table(project, "verdicts", round_number)
        scored = table(project, "behaviour_log_probs", round_number)
        fresh = batch[batch["origin"] == "fresh"]

        assert fresh.set_index("rollout_id")["reward"].to_dict() == verdicts.set_index("rollout_id")["reward"].to_dict()
        assert scored["rollout_id"].to_list() == batch["rollout_id"].to_list()
        for ours, theirs in zip(scored["behaviour_log_probs"][fresh.index], fresh["sampler_log_probs"], strict=True):
            np.testing.assert_allclose(
                ours, theirs, atol=1e-4
            )  # the sampler pads left and caches keys, the trainer not
        means = verdicts.groupby("prompt_id")["reward"].mean()
        np.testing.assert_allclose(fresh["observed_accuracy"], fresh["prompt_id"].map(means))
        np.testing.assert_allclose(fresh["priority"], (fresh["observed_accuracy"] - fresh["estimated_accuracy"]).abs())


def test_replay_keeps_right_answers_and_hands_them_to_the_next_round(project: Path) -> None:
    assert table(project, "replay_buffer", 0).empty
    for round_number in (1, 2):
        before, after = table(project, "replay_buffer", round_number - 1), table(project, "replay_buffer", round_number)
        batch = table(project, "training_batch", round_number)
        replayed = batch[batch["origin"] == "replayed"]
        right = set(batch.loc[(batch["origin"] == "fresh") & (batch["reward"] == 1.0), "rollout_id"])

        assert set(replayed["rollout_id"]) <= set(before["rollout_id"])
        assert len(replayed) > 0 or before.empty
        assert set(after["rollout_id"]) <= right | set(before["rollout_id"])
        assert len(after) > 0 or not right
        assert (after["reward"] == 1.0).all()
        assert (after["age"] == round_number - after["sampled_round"]).all()
        reused = after.set_index("rollout_id")["reuse_count"]
        assert (reused[reused.index.isin(replayed["rollout_id"])] >= 1).all()
        assert table(project, "round_summary", round_number)["num_replayed"].item() == len(replayed)


def test_optimiser_steps_are_counted_over_the_experiment(project: Path) -> None:
    steps = table(project, "training_metrics").sort_values("optimizer_step")

    assert steps["optimizer_step"].to_list() == [*range(1, 2 * NUM_MINIBATCHES + 1)]
    assert steps["round"].astype(int).to_list() == [1] * NUM_MINIBATCHES + [2] * NUM_MINIBATCHES
    assert steps["mean_residual"].notna().all()
    assert steps["clip_fraction"].isna().all()
    assert np.isfinite(steps[["policy_loss", "log_z_loss", "gradient_norm"]]).all(axis=None)


def test_the_learning_curve_grows_by_one_point_a_round(project: Path) -> None:
    curve = table(project, "learning_curve", 2)
    rollouts = [table(project, "rollouts", round_number) for round_number in (1, 2)]
    tokens = np.cumsum([0, *(rows["num_tokens"].sum() for rows in rollouts)])

    assert curve["curve_round"].to_list() == [0, 1, 2]
    assert curve["tokens_sampled"].to_list() == tokens.tolist()
    assert curve["validation_accuracy"].isna().to_list() == [False, True, False]  # every second round in conf/test
    for round_number in (0, 2):
        validation = table(project, "evaluation", round_number).query("split == 'validation'")
        expected = (validation["num_correct"] / validation["num_scored"]).mean()
        point = curve.iloc[round_number]
        assert point["validation_accuracy"] == pytest.approx(expected)
        assert point["validation_accuracy_low"] <= expected <= point["validation_accuracy_high"]
    rewards = [table(project, "verdicts", round_number)["reward"].mean() for round_number in (1, 2)]
    assert curve["train_accuracy"].to_list()[1:] == pytest.approx(rewards)


def test_outcomes_of_all_rounds_are_carried_along(project: Path) -> None:
    history = table(project, "outcome_history", 2)
    verdicts = table(project, "verdicts")
    expected = verdicts.groupby([verdicts["round"].astype(int), "prompt_id"])["reward"].agg(["count", "sum"])

    found = history.set_index(["scheduled_round", "prompt_id"])
    assert len(history) == 2 * NUM_PROMPTS
    assert found["num_scored"].to_dict() == expected["count"].to_dict()
    assert found["num_correct"].to_dict() == expected["sum"].to_dict()


def test_a_rounds_policy_is_a_hugging_face_folder_with_trained_weights(project: Path) -> None:
    (folder,) = project.glob("data/06_models/policy/experiment=test/round=0001/policy/*/")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start = load_file(project / "data/01_raw/starter_policy/model.safetensors")
    trained = load_file(folder / "model.safetensors")

    token_ids = tokenizer("1 2>3:", return_tensors="pt")["input_ids"]
    assert bool(model(token_ids).logits.isfinite().all())
    assert trained.keys() == start.keys()
    assert any(not np.array_equal(trained[name], start[name]) for name in start)


def test_a_finished_round_run_again_executes_no_node(project: Path) -> None:
    def written() -> dict[str, int]:
        found = files(project, "")
        own = [name for name in found if "timings" not in name and ".locks" not in name]
        return {name: found[name].stat().st_mtime_ns for name in own}

    before = written()
    assert run(project, range(2, 3)) == [2]
    assert written() == before


def test_kedro_viz_is_told_of_the_last_round_alone(project: Path) -> None:
    events = json.loads((project / ".viz" / "kedro_pipeline_events.json").read_text())
    assert [event["event"] for event in events].count("after_pipeline_run") == 1


def test_the_same_seed_writes_the_same_bytes_in_another_process(project: Path, tmp_path: Path) -> None:
    other = make_project(tmp_path / "project")
    command = [sys.executable, "-m", "kedro", "paced", "train", "--rounds", "2", "--env", "test"]
    done = subprocess.run(
        command, cwd=other, env=environment(PYTHONHASHSEED="7"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    for suffix in (".parquet", ".safetensors"):
        ours, theirs = files(project, suffix), files(other, suffix)
        assert ours.keys() == theirs.keys()
        differing = [name for name, path in ours.items() if path.read_bytes() != theirs[name].read_bytes()]
        assert [name for name in differing if "/timings/" not in name] == []


def test_every_catalog_entry_is_used_and_every_free_input_is_there(project: Path) -> None:
    from paced_rl.pipeline_registry import register_pipelines

    pipelines = register_pipelines()
    with inside(project):
        bootstrap_project(project)
        with KedroSession.create(project, env="test") as session:
            context = session.load_context()
            entries = set(context.config_loader["catalog"])
            catalog = context.catalog  # built anew at every access
    missing = {
        (name, entry) for name, pipeline in pipelines.items() for entry in pipeline.inputs() if entry not in catalog
    }
    used = {entry for pipeline in pipelines.values() for entry in pipeline.datasets()}

    assert missing == set()
    assert entries - used == {"timings", "provenance"}  # written by hooks
    assert {entry for entry in used if not entry.startswith("params:")} <= entries
