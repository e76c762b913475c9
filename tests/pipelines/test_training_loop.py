"""The loop over rounds on the real project at tiny sizes: branches, pruned weights, repairs, early stops, Ctrl-C."""

import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project
from kedro.io import CatalogProtocol, DatasetError
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner
from project_folders import environment, inside, make_project, run

from paced_rl.datasets.checkpoint import CheckpointDataset
from paced_rl.forks import ForkError
from paced_rl.locks import ExperimentLockedError, lock_path
from paced_rl.loop import open_study, train
from paced_rl.preflight import PreflightError

NUM_ROUNDS = 3
WALL_CLOCK = ("timings.parquet", "provenance.json")
"""Files that say when and how fast, and so differ from run to run."""


def run_loop(project: Path, *, params: Mapping[str, Any] | None = None, **options: Any) -> str | None:
    with inside(project):
        return train(open_study(project, env="test", params=params), **options)


def files(project: Path, experiment: str, rounds: range = range(NUM_ROUNDS + 1)) -> dict[str, Path]:
    """Path without the experiment's name → path, of all files of these rounds and of none."""
    others = {f"round={number:04d}" for number in range(100) if number not in rounds}
    found = [path for path in (project / "data").rglob("*") if f"experiment={experiment}" in path.parts]
    return {
        str(path.relative_to(project)).replace(f"experiment={experiment}", "experiment=…"): path
        for path in found
        if path.is_file() and others.isdisjoint(path.parts)
    }


def contents(project: Path, experiment: str, rounds: range = range(NUM_ROUNDS + 1)) -> dict[str, bytes]:
    """Tables, figures, manifests and weights: all but what is said about the runs that wrote them."""
    return {
        name: path.read_bytes()
        for name, path in files(project, experiment, rounds).items()
        if path.name not in WALL_CLOCK and not path.name.startswith(".")
    }


def when_written(project: Path, experiment: str) -> dict[str, int]:
    return {
        name: path.stat().st_mtime_ns
        for name, path in files(project, experiment).items()
        if path.name not in WALL_CLOCK
    }


def manifest(project: Path, name: str, experiment: str, round_number: int) -> CheckpointDataset:
    folder = project / "data/06_models" / name / f"experiment={experiment}" / f"round={round_number:04d}"
    return CheckpointDataset(filepath=str(folder / f"{name}.json"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rounds of experiment `test` have run here in one go; no test changes them."""
    folder = make_project(tmp_path_factory.mktemp("loop") / "project")
    assert run_loop(folder, last=NUM_ROUNDS) is None
    assert not lock_path(folder, "test").exists()
    return folder


def test_a_branch_shares_its_first_rounds_and_goes_on_as_the_original(project: Path) -> None:
    old = {name: path.read_bytes() for name, path in files(project, "test", range(2)).items()}
    params = {"experiment": "branch"}
    assert run_loop(project, params=params, first=2, last=2, fork_of="test") is None

    shared = files(project, "branch", range(2))
    assert {name: path.read_bytes() for name, path in shared.items()} == old
    originals = files(project, "test")
    linked = {name for name, path in shared.items() if path.samefile(originals[name])}
    assert linked == {name for name in shared if re.search("/[0-9a-f]{16}/", name)}
    # The head of round 0; policy, head and the two optimisers of round 1.
    assert sum(name.endswith(".safetensors") for name in linked) == 1 + 4

    # Without --from-round it goes on at its first own round; all rounds are as those of the original.
    assert run_loop(project, params=params, last=NUM_ROUNDS) is None
    assert contents(project, "branch") == contents(project, "test")
    with pytest.raises(
        ForkError, match="was branched off 'test' at round 2, so --rounds 1 is a round that the two share"
    ):
        run_loop(project, params=params, last=1)
    before = when_written(project, "branch")
    assert run(project, range(1, NUM_ROUNDS + 1), params=params) == [1, 2, 3]
    assert when_written(project, "branch") == before, "every round is cached"


def test_pruned_weights_make_no_round_stale_and_come_back_byte_for_byte(project: Path) -> None:
    retention = {"keep_last": 1, "keep_best": False}
    params = {"experiment": "pruned", "retention": retention}
    originals = {name: path.read_bytes() for name, path in files(project, "test").items()}
    assert run_loop(project, params=params, first=NUM_ROUNDS, last=NUM_ROUNDS, fork_of="test") is None

    def rounds_with_weights() -> set[int]:
        return {int(path.parts[-4][-4:]) for path in files(project, "pruned").values() if ".safetensors" in path.name}

    assert rounds_with_weights() == {0, NUM_ROUNDS}
    assert all(name in originals for name in files(project, "pruned") if ".pruned." not in name)
    assert {name: path.read_bytes() for name, path in files(project, "test").items()} == originals
    before = when_written(project, "pruned")
    assert run_loop(project, params=params, first=1, last=NUM_ROUNDS) is None
    assert when_written(project, "pruned") == before, "nothing ran"
    with pytest.raises(DatasetError, match="--experiment pruned --from-round 1 --rounds 2 --restore` and the --env"):
        manifest(project, "policy", "pruned", 2).load()

    assert run_loop(project, params=params, first=1, last=2, is_restoring=True) is None
    assert rounds_with_weights() == {0, 2, NUM_ROUNDS}
    changed = {name for name, when in when_written(project, "pruned").items() if before.get(name) != when}
    assert {name.split("/")[2] for name in changed} == {"policy", "log_z_head", "optimizer_state", "training_metrics"}
    assert run_loop(project, params=params, first=1, last=1, is_forced=True) is None
    assert rounds_with_weights() == {0, 1, 2, NUM_ROUNDS}
    assert contents(project, "pruned") == contents(project, "test")


def test_a_change_in_the_middle_makes_later_rounds_stale_and_the_loop_repairs_them(project: Path) -> None:
    params = {"experiment": "repaired"}
    run_loop(project, params=params, first=NUM_ROUNDS, last=NUM_ROUNDS, fork_of="test")
    original = contents(project, "repaired")
    run(project, range(2, 3), params={**params, "training": {"learning_rate": 0.01}})
    assert contents(project, "repaired", range(2)) == contents(project, "test", range(2))
    run(project, range(3, 4), params=params)
    mixed = contents(project, "repaired")
    for number in range(2, NUM_ROUNDS + 1):  # round 3 was cached, but what it starts from is another policy
        name = f"data/06_models/policy/experiment=…/round={number:04d}/policy.json"
        assert mixed[name] != original[name]

    assert run_loop(project, params=params, first=1, last=NUM_ROUNDS) is None
    assert contents(project, "repaired") == original == contents(project, "test")


def test_a_loop_stops_early_where_an_uninterrupted_one_would(project: Path) -> None:
    def params(**stopping: Any) -> dict[str, Any]:
        return {"stopping": stopping}

    before = when_written(project, "test")
    reached = run_loop(project, params=params(target_accuracy=0.0), last=NUM_ROUNDS)
    assert reached is not None
    assert re.match(r"Stopped after round 1 of 3: validation accuracy .* of round 0 has reached", reached)
    # Rounds 0 and 2 are evaluated (conf/test); nothing improves by 1.
    worn = run_loop(project, params=params(patience=1, min_improvement=1.0), last=NUM_ROUNDS)
    assert worn is not None
    assert worn.startswith("Stopped after round 2 of 3: the last 1 evaluations, up to round 2, are not better by 1.0")
    resumed = run_loop(project, params=params(patience=1, min_improvement=1.0), first=3, last=NUM_ROUNDS)
    assert resumed is not None
    assert resumed.startswith("Nothing to do from round 3 on: the last 1 evaluations, up to round 2")
    assert run_loop(project, params=params(patience=3), last=NUM_ROUNDS) is None
    assert when_written(project, "test") == before


class InterruptedRunner(SequentialRunner):
    """Is stopped by Ctrl-C before its first node."""

    def _run(self, pipeline: Pipeline, catalog: CatalogProtocol, *_: Any, **__: Any) -> None:
        assert lock_path(Path.cwd(), catalog["params:experiment"].load()).exists()
        raise KeyboardInterrupt


def test_a_run_holds_its_experiment_and_lets_go_when_it_is_interrupted(project: Path) -> None:
    from paced_rl.session import PacedSession

    with inside(project):
        bootstrap_project(project)
        with (
            pytest.raises(KeyboardInterrupt),
            PacedSession.create(project, env="test", runtime_params={"experiment": "left"}) as session,
        ):
            session.run(pipeline_names=["paced_round"], runner=InterruptedRunner())
    assert files(project, "left") == {}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ("--rounds 1 --params round=2", 2, "use --rounds for the last round"),
        ("--rounds 2 --from-round 3", 2, "--from-round 3 is after the last round, --rounds 2"),
        ("--rounds 2 --experiment new --fork-of test", 2, "--fork-of needs --from-round"),
        ("--rounds 2 --experiment a --params experiment=b", 2, "--params experiment=b contradict each other"),
        ("--rounds 2 --experiment 7", 1, "a name of digits only is read as a number"),
        ("--rounds 2 --params rollout.grup_size=8", 1, "did you mean rollout.group_size?"),
        ("--rounds 2 --from-round 2 --fork-of test --params experiment=test", 1, "a name of its own"),
        ("--rounds 3 --from-round 3 --fork-of nobody --experiment new", 1, "starts from round 2 of 'nobody'"),
        ("--rounds 3 --params stopping.target_accuracy=0 --experiment test", 0, "Stopped after round 1 of 3"),
    ],
)
def test_the_command_says_in_one_message_what_is_wrong(project: Path, arguments: str, status: int, said: str) -> None:
    from paced_rl.commands.train import train as command

    before = when_written(project, "test")
    with inside(project):
        result = CliRunner().invoke(command, [*arguments.split(), "--env", "test"])
    assert result.exit_code == status, result.output
    assert said in " ".join(result.output.split())
    assert when_written(project, "test") == before
    assert files(project, "new") == {}


HOLD = """
import sys, pathlib
from paced_rl.locks import experiment_lock
with experiment_lock(pathlib.Path(sys.argv[1]), "held"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_an_experiment_in_use_is_refused_to_runs_and_loops(project: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(project)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        said = f"experiment 'held' is in use by process {holder.pid} "
        with pytest.raises(PreflightError, match=said):
            run(project, range(1, 2), params={"experiment": "held"})
        with pytest.raises(ExperimentLockedError, match=said):
            run_loop(project, params={"experiment": "held"}, last=1)
        with pytest.raises(ExperimentLockedError, match=said):
            run_loop(project, params={"experiment": "new"}, first=1, last=1, fork_of="held")
        assert run(project, range(1, 2)) == [1], "another experiment is free"
        holder.communicate()
    assert files(project, "held").keys() <= {"data/.locks/experiment=….json"}
    assert files(project, "new") == {}


def test_ctrl_c_ends_after_a_node_and_the_command_it_names_goes_on(project: Path, tmp_path: Path) -> None:
    other = make_project(tmp_path / "project")

    arguments = ["paced", "train", "--rounds", "2", "--env", "test", "--params", "retention.keep_best=false"]
    with subprocess.Popen(
        [sys.executable, "-m", "kedro", *arguments],
        cwd=other,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A background job of a shell is started with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "sample_rollouts runs" in line:
                process.send_signal(signal.SIGINT)
                break
        output = " ".join(process.stdout.read().split())
    assert process.returncode == 130, output
    assert "Stopping after the node that runs now; press Ctrl-C again to stop at once." in output
    stopped = re.search(r"Stopped in round 1 after sample_rollouts, as asked for.* to go on: kedro (.*)$", output)
    assert stopped, output
    assert stopped[1].split() == arguments
    assert "Traceback" not in output
    assert not lock_path(other, "test").exists()
    assert not list((other / "data").rglob("verdicts.parquet"))

    (rollouts,) = (other / "data").rglob("rollouts.parquet")
    sampled = rollouts.stat().st_mtime_ns
    assert run_loop(other, last=2) is None
    assert rollouts.stat().st_mtime_ns == sampled, "it was cached"
    assert contents(other, "test", range(3)) == contents(project, "test", range(3))
