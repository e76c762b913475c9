"""The cache on the real round: every way to run a part of it, and what leaves no trace of having finished.

What ran is told by the files: an output that is written again is another file (inode), even where its bytes are equal.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from kedro.framework.cli.cli import KedroCLI
from kedro.pipeline import Pipeline
from project_folders import inside, make_project, run

SIZES = (
    "data_preparation.num_train=8,data_preparation.num_audit=4,data_preparation.num_validation=4,"
    "data_preparation.num_test=4,scheduling.num_prompts=4,scheduling.audit_fraction=0.25,rollout.group_size=3,"
    "rollout.max_new_tokens=8,evaluation.num_samples=1"
)
ALWAYS = {"timings", "provenance"}
"""Written by hooks after a run in which any node ran."""


def outputs(pipeline: Pipeline, parameter: str | None = None) -> set[str]:
    """What the nodes of a pipeline write into the folders of a round; only of those that take a parameter, if named."""
    nodes = [node for node in pipeline.nodes if parameter is None or parameter in node.inputs]
    of_experiment = {"reference_policy", "prompts", "prompt_embeddings", "start_evaluation"}
    return {name for node in nodes for name in node.outputs if "@" not in name} - of_experiment


def whole_round() -> Pipeline:
    from paced_rl.pipeline_registry import register_pipelines

    return register_pipelines()["paced_round"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rounds 1 and 2 have run here; every test leaves them up to date."""
    folder = make_project(tmp_path_factory.mktemp("slices") / "project")
    for round_number in (1, 2):
        kedro(folder, round_number=round_number)
    return folder


def kedro(project: Path, *options: str, round_number: int = 2, params: str = "") -> set[str]:
    """`kedro run` of a round with these options; the datasets of that round that were written again."""
    folder = f"round={round_number:04d}"

    def written() -> Mapping[str, tuple[int, int]]:
        paths = [path for path in project.glob(f"data/0*/*/experiment=test/{folder}/*") if path.is_file()]
        statuses = {path.parts[-4]: path.stat() for path in paths if not path.name.startswith(".")}
        return {name: (status.st_ino, status.st_mtime_ns) for name, status in statuses.items()}

    before = written()
    given = ",".join(filter(None, (f"round={round_number}", SIZES, params)))
    with inside(project):
        KedroCLI(project).main(
            ["run", "--pipelines=paced_round", "--env=test", f"--params={given}", *options], standalone_mode=False
        )
    after = written()
    return {name for name in after if after[name] != before.get(name)}


def record(project: Path, table: str, node: str) -> Path:
    (folder,) = project.glob(f"data/0*/{table}/experiment=test/round=0002")
    return folder / f".{node}.record.json"


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--nodes=train_policy",),
        ("--from-nodes=score_training_batch",),
        ("--to-nodes=sample_rollouts",),
        ("--tags=evaluation,reporting",),
        ("--from-inputs=rollouts",),
        ("--nodes=draw_calibration", "--runner-params=force=False"),
    ],
)
def test_nothing_runs_twice_in_any_slice(project: Path, options: tuple[str, ...]) -> None:
    assert kedro(project, *options) == set()


def test_force_runs_the_slice_and_nothing_else(project: Path) -> None:
    assert kedro(project, "--nodes=verify_rollouts", "--runner-params=force=True") == {"verdicts", *ALWAYS}
    assert kedro(project, "--tags=scheduling", "--runner-params=force=True") == {
        "accuracy_estimates",
        "schedule",
        *ALWAYS,
    }
    # The same bytes came out, so nothing behind them runs.
    assert kedro(project) == set()


def test_force_runs_the_whole_round_to_the_same_bytes(project: Path) -> None:
    written = outputs(whole_round())
    assert {"schedule", "rollouts", "policy", "round_summary", "learning_curve_figure"} <= written
    assert kedro(project, "--runner-params=force=True") == written | ALWAYS
    assert kedro(project) == set()


def test_a_runner_that_was_asked_for_knows_no_cache(project: Path) -> None:
    before = record(project, "verdicts", "verify_rollouts").stat()
    options = ("--runner=SequentialRunner", "--nodes=verify_rollouts,record_outcomes")
    assert kedro(project, *options) == {"verdicts", "outcome_history", *ALWAYS}
    assert record(project, "verdicts", "verify_rollouts").stat() == before
    assert kedro(project) == set()


def test_a_change_runs_what_reads_it_and_stops_where_bytes_are_equal(project: Path) -> None:
    """Every node that takes params:training runs; all write the same bytes, so that no other one does."""
    changed, group = "training.replay_capacity=127", "params:training"
    pipeline = whole_round()
    first = outputs(pipeline.to_nodes("assemble_training_batch"), group)
    rest = outputs(pipeline, group) - first

    assert {"accuracy_estimates", "training_batch"} <= first
    assert {"policy", "replay_buffer"} <= rest
    assert kedro(project, "--to-nodes=assemble_training_batch", params=changed) == first | ALWAYS
    assert kedro(project, params=changed) == rest | ALWAYS
    assert kedro(project, params=changed) == set()
    assert kedro(project) == first | rest | ALWAYS  # back again, by the same rule


def test_an_interrupted_node_leaves_no_record(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from paced_rl.training import trainer

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_round", interrupt)
        with pytest.raises(click.Abort):
            kedro(project, "--from-nodes=train_policy", "--runner-params=force=True")
    assert not record(project, "policy", "train_policy").exists()
    trained = {"policy", "log_z_head", "optimizer_state", "training_metrics"}
    assert kedro(project) - {"replay_buffer"} == trained | ALWAYS


def test_a_table_that_breaks_its_rules_leaves_no_record_and_the_old_table(project: Path) -> None:
    rules = project / "conf/base/expectations/schedule.json"
    good = rules.read_text()
    suite = json.loads(good)
    suite["expectations"].append(
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "rank", "max_value": -1}}
    )
    (table,) = project.glob("data/04_feature/schedule/experiment=test/round=0002/schedule.parquet")
    before = table.read_bytes()
    rules.write_text(json.dumps(suite))
    try:
        with pytest.raises(click.ClickException, match="DataValidationError") as caught:
            kedro(project, "--nodes=schedule_prompts", "--runner-params=force=True")
    finally:
        rules.write_text(good)
    assert "rank: values to be between" in str(caught.value)
    assert table.read_bytes() == before
    assert not record(project, "schedule", "schedule_prompts").exists()
    assert kedro(project) == {"schedule", *ALWAYS}


def test_the_loop_and_the_command_share_one_cache(project: Path) -> None:
    params = {"data_preparation": {"num_train": 8, "num_audit": 4, "num_validation": 4, "num_test": 4}}
    params |= {
        "scheduling": {"num_prompts": 4, "audit_fraction": 0.25},
        "rollout": {"group_size": 3, "max_new_tokens": 8},
    }
    before = record(project, "policy", "train_policy").stat().st_mtime_ns
    assert run(project, range(1, 3), params={**params, "evaluation": {"num_samples": 1}}) == [1, 2]
    assert record(project, "policy", "train_policy").stat().st_mtime_ns == before
