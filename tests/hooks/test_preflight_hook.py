import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_vllm_server import FakeVllmServer
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node

from paced_rl.hooks import PreflightHook
from paced_rl.preflight import PreflightError

ROOT = Path(__file__).parents[2]


def load_project(folder: Path, **runtime_params: Any) -> dict[str, Any]:
    """What Kedro does when a project is loaded, for a project with these two parameters files; its parameters."""
    (folder / "base").mkdir(exist_ok=True)
    (folder / "local").mkdir(exist_ok=True)
    (folder / "base/parameters.yml").write_text("experiment: paced\nround: 1\nseed: 0\nmine:\n  a: 1\n")
    (folder / "base/parameters_rollout.yml").write_text("rollout:\n  group_size: 4\n")
    arguments: dict[str, Any] = {"base_env": "base", "default_run_env": "local"}
    loader = OmegaConfigLoader(
        str(folder), runtime_params=runtime_params, merge_strategy={"parameters": "soft"}, **arguments
    )
    PreflightHook().after_context_created(SimpleNamespace(config_loader=loader))  # type: ignore[arg-type]
    assert loader.runtime_params == runtime_params, "the hook reads and does not change"
    return loader["parameters"]


def test_good_parameters_pass_those_of_somebody_elses_files_too(tmp_path: Path) -> None:
    others = {"experiment": "paced", "seed": 0}
    assert load_project(tmp_path) == {**others, "round": 1, "rollout": {"group_size": 4}, "mine": {"a": 1}}
    changed = load_project(tmp_path, round=3, rollout={"group_size": 8}, mine={"b": 2})
    assert changed == {**others, "round": 3, "rollout": {"group_size": 8}, "mine": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"raund": 3}, "Unknown parameter 'raund': did you mean round?"),
        ({"raund": 3, "mine": {"a": 2}}, "Unknown parameter 'raund': did you mean round?"),
        ({"round": 0}, "round must be an integer of 1 or more, got 0"),
        ({"experiment": "a/b"}, "experiment 'a/b' cannot be a folder's name"),
        ({"seed": 1.5}, "seed must be an integer, got 1.5"),
        ({"rollout": {"group_size": 0}}, "  - rollout.group_size = 0: input should be greater than or equal to 1"),
    ],
)
def test_bad_parameters_stop_before_anything_else(tmp_path: Path, params: dict[str, Any], message: str) -> None:
    with pytest.raises(PreflightError) as caught:
        load_project(tmp_path, **params)
    assert message in str(caught.value)


def start() -> Pipeline:
    return Pipeline([node(lambda: 0, None, "previous_policy@start", name="start_policy")])


def rollout() -> Pipeline:
    return Pipeline([node(lambda policy: policy, "previous_policy@round", "rollouts", name="sample")])


def check(pipeline: Pipeline, *, round_number: int, policy: Any = None) -> None:
    catalog = DataCatalog(
        {
            "previous_policy@round": MemoryDataset() if policy is None else MemoryDataset(policy),
            "previous_policy@start": MemoryDataset(),
            "rollouts": MemoryDataset(),
            "params:round": MemoryDataset(round_number),
            "params:experiment": MemoryDataset("paced"),
            "params:policy": MemoryDataset({"device": "cuda:99"}),
        }
    )
    PreflightHook().before_pipeline_run(run_params={"env": "gpu"}, pipeline=pipeline, catalog=catalog)


def test_a_round_without_its_predecessor_names_the_command() -> None:
    with pytest.raises(
        PreflightError,
        match=r"needs round 2, which is missing or damaged \(policy\): run .*--env=gpu --params round=2,",
    ):
        check(start() + rollout(), round_number=3)
    check(start() + rollout(), round_number=3, policy="there")


def test_round_1_may_make_its_own_start_and_a_stage_alone_may_not_lack_it() -> None:
    check(start() + rollout(), round_number=1)
    with pytest.raises(PreflightError, match="needs the state it starts from"):
        check(rollout(), round_number=1)
    check(rollout(), round_number=1, policy="there")


def test_the_device_is_checked_where_a_node_would_use_it() -> None:
    loads = Pipeline([node(lambda policy: policy, "params:policy", "rollouts", name="load")])
    with pytest.raises(PreflightError, match=r"policy\.device = 'cuda:99' cannot be used"):
        check(loads, round_number=1)
    check(start(), round_number=1)


def test_servers_are_looked_for_where_a_node_would_sample() -> None:
    with FakeVllmServer() as server:
        pass
    parameters = {
        "params:rollout": {"backend": "vllm_server", "vllm_server": {"urls": server.url}},
        "params:policy": {"device": "cpu"},
    }
    catalog = DataCatalog({name: MemoryDataset(value) for name, value in parameters.items()})
    samples = Pipeline([node(lambda rollout, policy: 0, list(parameters), "rollouts", name="sample")])
    with pytest.raises(PreflightError, match=f"cannot be used:\n  - {server.url}: .*Connection refused"):
        PreflightHook().before_pipeline_run(run_params={}, pipeline=samples, catalog=catalog)
    counts = Pipeline([node(lambda rollout: 0, "params:rollout", "count", name="count")])
    PreflightHook().before_pipeline_run(run_params={}, pipeline=counts, catalog=catalog)


def test_pipelines_that_read_no_earlier_round_are_left_alone() -> None:
    writer = node(lambda: 0, None, "rollouts", name="write")
    check(start() + Pipeline([writer]), round_number=3)
    # The same catalog, and one node that reads it.
    with pytest.raises(PreflightError, match=r"round 3 .*needs round 2"):
        check(start() + rollout(), round_number=3)


def test_the_command_line_shows_one_line_and_no_traceback() -> None:
    kedro = Path(sys.executable).with_name("kedro")
    environment = {**os.environ, "KEDRO_DISABLE_TELEMETRY": "1", "COLUMNS": "200"}
    result = subprocess.run(
        [str(kedro), "run", "--params", "raund=3"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "Error: Unknown parameter 'raund': did you mean round?"
    assert "Traceback" not in result.stdout + result.stderr
