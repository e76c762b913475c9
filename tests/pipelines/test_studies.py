"""A study end to end at tiny sizes: shared starts, a failing arm, a killed parent, and the same bytes as without it.

One study serves all tests: it is killed in its first experiment and continued by the same command.
"""

import filecmp
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from project_folders import environment, inside, make_project

from paced_rl.commands.study import study
from paced_rl.loop import open_study, train
from paced_rl.studies.checks import open_arms
from paced_rl.studies.running import run_study
from paced_rl.studies.study_file import StudyFileError, read_study

ROUNDS = 2
STUDY = f"""
name: tiny
env: test
rounds: {ROUNDS}
seeds: [0, 1]
params:
  data_preparation.num_train: 20
  scheduling: {{num_prompts: 4, audit_fraction: 0.25}}
  rollout.max_new_tokens: 8
arms:
  uniform: {{scheduling.selector: uniform}}
  wide_head: {{scheduling.selector: nearest, training.log_z_hidden_size: 16}}
  broken: {{training.max_log_prob_gap: 1e-30}}
"""
WALL_CLOCK = ("timings.parquet", "provenance.json")
"""Files that say when and how fast, and so differ from run to run."""


def project_with_study(folder: Path, text: str = STUDY) -> Path:
    project = make_project(folder)
    (project / "study.yml").write_text(text)
    return project


def files(project: Path, experiment: str) -> dict[str, Path]:
    """Path without the experiment's name → path, of all files that depend on nothing but the parameters."""
    found = (path for path in (project / "data").glob(f"*/*/experiment={experiment}/**/*") if path.is_file())
    return {
        re.sub(r"experiment=[^/]+", "", str(path.relative_to(project))): path
        for path in found
        if path.name not in WALL_CLOCK
    }


def assert_equal(left: dict[str, Path], right: dict[str, Path]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not is_equal(left[name], right[name])] == []


def is_equal(left: Path, right: Path) -> bool:
    """Equal bytes; of a record equal contents, because its definitions come in an order that processes differ in."""
    if left.name.endswith(".record.json"):
        return bool(json.loads(left.read_text()) == json.loads(right.read_text()))
    return filecmp.cmp(left, right, shallow=False)


def table(project: Path, experiment: str, name: str, round_number: int) -> pd.DataFrame:
    paths = (project / "data").glob(f"*/{name}/experiment={experiment}/round={round_number:04d}/{name}.parquet")
    return pd.read_parquet(next(paths), partitioning=None)


def executed(project: Path, experiment: str, stage: str) -> set[str]:
    """The nodes of a stage that ran, and were not found in the cache, by the end of round 1."""
    timings = table(project, experiment, "timings", 1)
    names = timings.loc[timings["stage"] == stage, "name"]
    return {name for name in names if ":" not in name}


def command(project: Path, *arguments: str) -> Result:
    with inside(project):
        return CliRunner().invoke(study, ["study.yml", *arguments])


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, int]]:
    """A project in which the command was killed in round 1 of its first experiment; what it had written, and when."""
    project = project_with_study(tmp_path_factory.mktemp("study") / "project")
    program = [sys.executable, "-m", "kedro", "paced", "study", "study.yml"]
    with (project / "out.txt").open("w") as out:
        process = subprocess.Popen(program, cwd=project, stdout=out, stderr=out, env=environment())
        first = project / "data/08_reporting/round_summary/experiment=tiny-uniform-s0/round=0001/round_summary.parquet"
        deadline = time.monotonic() + 900
        while not first.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        process.wait()
    assert first.exists(), (project / "out.txt").read_text()
    locks = project / "data/.locks"
    while list(locks.glob("*.json")) and time.monotonic() < deadline:  # its workers stop after their nodes
        time.sleep(0.05)
    written = (path for path in (project / "data").glob("*/*/experiment=*/**/*.parquet"))
    return project, {path: path.stat().st_mtime_ns for path in written}


@pytest.fixture(scope="module")
def finished(killed: tuple[Path, dict[Path, int]]) -> tuple[Path, Result]:
    """The same project, in which the same command has gone on, and how that ended."""
    project, _ = killed
    return project, command(project)


def test_every_arm_runs_under_every_seed_and_one_that_fails_stops_no_other(finished: tuple[Path, Result]) -> None:
    project, result = finished
    assert result.exit_code == 1
    assert "2 of 6 experiments failed; the same command tries them again:" in result.output
    for seed in (0, 1):
        assert f"- tiny-broken-s{seed}: LogProbGapError: " in result.output
        for arm in ("uniform", "wide_head"):
            assert len(table(project, f"tiny-{arm}-s{seed}", "learning_curve", ROUNDS)) == ROUNDS + 1
    assert "LogProbGapError" in (project / "data/08_reporting/studies/tiny/logs/tiny-broken-s0.log").read_text()


def test_the_command_ends_with_a_report_that_can_be_drawn_again_without_a_run(finished: tuple[Path, Result]) -> None:
    project, result = finished
    report = project / "data/08_reporting/studies/tiny/report.md"
    assert f"report: {report}" in result.output.replace("\n", "")
    text = report.read_text()
    assert "2 of 6 experiments have not come to round 2" in text
    assert "- tiny-broken-s1: at round 0" in text
    accuracies = []
    for seed in (0, 1):
        rows = table(project, f"tiny-wide_head-s{seed}", "evaluation", ROUNDS)
        rows = rows[rows["split"] == "test"]
        accuracies.append((rows["num_correct"] / rows["num_scored"]).mean())
    curves = pd.read_parquet(report.with_name("learning_curves.parquet")).set_index(["arm", "round"])
    assert curves.loc[("wide_head", ROUNDS), "accuracy"] == pytest.approx(sum(accuracies) / 2)

    before = {path: path.stat().st_mtime_ns for path in (project / "data").glob("0[2-7]*/**/*")}
    report.unlink()
    again = command(project, "--report-only")
    assert again.exit_code == 0
    assert report.read_text() == text
    assert before == {path: path.stat().st_mtime_ns for path in (project / "data").glob("0[2-7]*/**/*")}


def test_the_start_is_computed_once_per_seed(finished: tuple[Path, Result]) -> None:
    project, _ = finished
    for seed in (0, 1):
        assert executed(project, f"tiny-uniform-s{seed}", "data_preparation") == {
            "open_reference_policy",
            "prepare_prompts",
            "embed_all_prompts",
        }
        assert "evaluate_start" in executed(project, f"tiny-uniform-s{seed}", "start")
        assert executed(project, f"tiny-wide_head-s{seed}", "data_preparation") == set()
        assert executed(project, f"tiny-wide_head-s{seed}", "start") == {"start_log_z_head"}, "which is its own"
    tables = [files(project, f"tiny-{arm}-s0") for arm in ("uniform", "wide_head")]
    name = "data/04_feature/prompt_embeddings//prompt_embeddings.parquet"
    assert filecmp.cmp(*(paths[name] for paths in tables), shallow=False)


@pytest.mark.parametrize(("arm", "seed"), [(0, 0), (1, 1)])
def test_an_experiment_of_a_study_is_the_one_that_train_would_have_made(
    finished: tuple[Path, Result], arm: int, seed: int
) -> None:
    """The one that was killed in the middle too."""
    project, _ = finished
    plan = read_study(project / "study.yml")
    params = plan.runtime_params(plan.arms[arm], seed)
    by_hand = f"by_hand_{arm}"
    with inside(project):
        train(open_study(project, env="test", params={**params, "experiment": by_hand}), last=ROUNDS)
    assert_equal(files(project, by_hand), files(project, plan.experiment(plan.arms[arm].name, seed)))


def test_the_test_split_is_evaluated_and_no_figure_of_a_round_reads_it(finished: tuple[Path, Result]) -> None:
    project, _ = finished
    evaluation, summary, curve = (
        table(project, "tiny-uniform-s0", name, ROUNDS) for name in ("evaluation", "round_summary", "learning_curve")
    )
    accuracy = evaluation.assign(accuracy=evaluation["num_correct"] / evaluation["num_scored"])
    means = accuracy.groupby("split")["accuracy"].mean()
    assert sorted(means.index) == ["audit", "test", "validation"]
    assert means["test"] != means["validation"]
    assert summary["validation_accuracy"].item() == pytest.approx(means["validation"])
    assert curve["validation_accuracy"].iloc[-1] == pytest.approx(means["validation"])


def test_a_study_without_test_rows_is_the_same_but_for_them(finished: tuple[Path, Result]) -> None:
    """Policies, schedules and stopping do not depend on whether the test split is evaluated."""
    project, _ = finished
    plan = read_study(project / "study.yml")
    params = {**plan.runtime_params(plan.arms[0], 0), "experiment": "without_test"}
    params["evaluation"] = {"splits": ["validation", "audit"]}
    with inside(project):
        train(open_study(project, env="test", params=params), last=ROUNDS)
    left, right = files(project, "without_test"), files(project, "tiny-uniform-s0")
    differing = {name for name in left if not is_equal(left[name], right[name])}
    assert {name for name in differing if not name.endswith(".record.json")} == {
        f"data/{layer}/{name}//round={number:04d}/{name}.parquet"
        for layer, name, numbers in (("07_model_output", "evaluation", (0, 2)), ("08_reporting", "round_summary", (2,)))
        for number in numbers
    }
    summaries = [table(project, name, "round_summary", ROUNDS) for name in ("without_test", "tiny-uniform-s0")]
    pd.testing.assert_frame_equal(*(summary.drop(columns="tokens_evaluated") for summary in summaries))


def test_a_killed_study_goes_on_where_it_was(
    killed: tuple[Path, dict[Path, int]], finished: tuple[Path, Result]
) -> None:
    project, written = killed
    begun = {path.parts[-3] for path in written if path.match("rollouts/*/*/*")}
    assert begun == {"experiment=tiny-uniform-s0"}, "the kill came too late"
    assert not any(path.match("round_summary/*/round=0002/*") for path in written), "it was not interrupted"
    assert len(table(project, "tiny-uniform-s0", "learning_curve", ROUNDS)) == ROUNDS + 1
    ran_again = [p for p, when in written.items() if p.name not in WALL_CLOCK and p.stat().st_mtime_ns != when]
    assert ran_again == []


def test_every_arm_is_checked_against_the_project_before_anything_runs(tmp_path: Path) -> None:
    project = project_with_study(
        tmp_path / "project",
        """
name: wrong
env: test
rounds: 1
seeds: [0]
params: {evaluation.every: 2}
arms:
  misspelt: {training.lerning_rate: 1e-3}
  replay: {training.objective: grpo}
  again: {training.objective: grpo, rollout.group_size: 4}
  untested: {evaluation.splits: [validation], data_preparation.num_test: 0}
""",
    )
    with inside(project), pytest.raises(StudyFileError) as caught:
        open_arms(read_study(project / "study.yml"), project)
    told = str(caught.value)
    assert "arm misspelt: Unknown parameter 'training.lerning_rate': did you mean training.learning_rate?" in told
    assert "arms replay, again: Parameters that cannot be used:" in told
    assert "set training.replay_max_added=0" in told
    assert "arm untested: evaluation.splits = ['validation'] leaves out test" in told
    assert "arm untested: data_preparation.num_test = 0" in told
    assert "arm untested: evaluation.every = 2 is more than the 1 rounds" in told
    assert not list((project / "data").glob("0[2-8]*"))


def test_an_environment_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    project = project_with_study(tmp_path / "project", STUDY.replace("env: test", "env: tets"))
    with (
        inside(project),
        pytest.raises(StudyFileError, match=r"no environment env: tets; there are \['base', 'grpo', 'test'\]"),
    ):
        run_study(read_study(project / "study.yml"), project)
