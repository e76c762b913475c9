"""When a node runs, when it is skipped, what is said about it, and what is left on disk."""

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.framework.hooks import hook_impl
from kedro.framework.hooks.markers import HOOK_NAMESPACE
from kedro.framework.hooks.specs import DatasetSpecs, NodeSpecs
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline, node
from kedro.validation.exceptions import DataValidationError
from kedro_datasets.json import JSONDataset
from pluggy import PluginManager
from pydantic import BaseModel

from paced_rl.runner import CachingRunner, explain
from paced_rl.runner.records import record_path

Params = Mapping[str, Any]


def double(values: list[int]) -> list[int]:
    return [2 * value for value in values]


def threshold(values: list[int], parameters: Params) -> list[bool]:
    return [value > parameters["limit"] for value in values]


def count(flags: list[bool]) -> dict[str, int]:
    return {"count": sum(flags)}


def split(values: list[int]) -> tuple[list[int], list[int]]:
    return values[:1], values[1:]


def subtract(left: list[int], right: list[int]) -> list[int]:
    return [a - b for a, b in zip(left, right, strict=True)]


def copy_table(table: pd.DataFrame) -> pd.DataFrame:
    return table.copy()


def fail(values: list[int]) -> list[int]:
    raise ValueError("no luck")


def refuse(data: Any) -> None:
    raise ValueError("refused")


class Project:
    """A pipeline `numbers -> doubled -> flags -> total` in a folder, and what happened in its last run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parameters: Any = {"limit": 3, "unused": {"deep": [1]}}
        self.validators: dict[str, Any] = {}
        self.memory: set[str] = set()
        self.versions: dict[str, str] = {"torch": "1"}
        self.pipeline = Pipeline(
            [
                node(double, "numbers", "doubled", name="doubling"),
                node(threshold, ["doubled", "params:choice"], "flags", name="choosing", tags="late"),
                node(count, "flags", "total", name="counting", tags="late"),
            ]
        )
        self.events: list[str] = []
        self.write("numbers", [1, 2, 3])

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def write(self, name: str, data: Any) -> None:
        self.path(name).write_text(json.dumps(data))

    def read(self, name: str) -> Any:
        return json.loads(self.path(name).read_text())

    def catalog(self) -> DataCatalog:
        names = {name for name in self.pipeline.datasets() if not name.startswith("params:")} - self.memory
        config = {
            name: {"type": "json.JSONDataset", "filepath": self.path(name.replace("@", "_")).as_posix()}
            | ({"validator": self.validators[name]} if name in self.validators else {})
            for name in names
        }
        catalog = DataCatalog.from_config(config)
        catalog["params:choice"] = self.parameters
        return catalog

    def run(self, *, force: bool = False, only: Pipeline | None = None, is_async: bool = False) -> list[str]:
        """Run it in a fresh catalog; the names of the nodes that Kedro says were run."""
        self.events = []
        runner = CachingRunner(force=force, is_async=is_async, library_versions=self.versions)
        manager = PluginManager(HOOK_NAMESPACE)
        manager.add_hookspecs(NodeSpecs)
        manager.add_hookspecs(DatasetSpecs)
        manager.register(self)
        runner.run(self.pipeline if only is None else only, self.catalog(), manager)
        return [event.removeprefix("after_node_run ") for event in self.events if event.startswith("after_node_run")]

    def explain(self, name: str) -> str | None:
        [found] = [item for item in self.pipeline.nodes if item.name == name]
        return explain(found, self.catalog(), library_versions=self.versions)

    @hook_impl
    def before_node_run(self, node: Any) -> None:
        self.events.append(f"before_node_run {node.name}")

    @hook_impl
    def after_node_run(self, node: Any) -> None:
        self.events.append(f"after_node_run {node.name}")

    @hook_impl
    def before_dataset_loaded(self, dataset_name: str) -> None:
        self.events.append(f"before_dataset_loaded {dataset_name}")

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        self.events.append(f"after_dataset_saved {dataset_name}")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


EVERYTHING = ["doubling", "choosing", "counting"]


def test_a_second_run_runs_nothing_and_calls_no_hook(project: Project) -> None:
    assert project.explain("doubling") == "never run before"
    assert project.run() == EVERYTHING
    assert project.read("total") == {"count": 2}
    stamps = {path: path.stat().st_mtime_ns for path in project.folder.iterdir()}
    assert project.run() == []
    assert project.events == []
    assert [project.explain(name) for name in EVERYTHING] == [None] * 3
    assert {path: path.stat().st_mtime_ns for path in project.folder.iterdir()} == stamps


def test_only_nodes_that_run_call_hooks(project: Project) -> None:
    project.run()
    project.parameters = {**project.parameters, "limit": 1}
    project.run()
    # The count changes from 2 to 3, so the last node follows.
    assert project.events == [
        "before_dataset_loaded doubled",
        "before_dataset_loaded params:choice",
        "before_node_run choosing",
        "after_node_run choosing",
        "after_dataset_saved flags",
        "before_dataset_loaded flags",
        "before_node_run counting",
        "after_node_run counting",
        "after_dataset_saved total",
    ]


def test_an_output_that_comes_out_identical_stops_the_chain(project: Project) -> None:
    project.run()
    # Of [2, 4, 6] the same two are above 2 as are above 3.
    project.parameters = {**project.parameters, "limit": 2}
    assert project.run() == ["choosing"]
    assert project.run() == []


def test_content_decides_and_not_time(project: Project) -> None:
    project.run()
    for path in project.folder.glob("*.json"):
        os.utime(path, (10**9, 10**9))
    assert project.run() == []


@pytest.mark.parametrize(
    ("change", "node_name", "reason"),
    [
        (lambda p: p.parameters.update(limit=3.5), "choosing", "params:choice.limit 3 → 3.5"),
        (
            lambda p: p.parameters.update(limit=1, unused={"deep": [2], "name": "x" * 80}, more=True),
            "choosing",
            "params:choice.limit 3 → 1, params:choice.more absent → true, "
            "params:choice.unused.deep [1] → [2] and 1 more",
        ),
        (lambda p: p.write("numbers", [1, 2, 4]), "doubling", "input numbers changed"),
        (lambda p: p.path("numbers").unlink(), "doubling", "input numbers is missing"),
        (lambda p: p.write("flags", [True]), "choosing", "output flags was changed by hand"),
        (lambda p: p.write("flags", [True]), "counting", "input flags changed"),
        (lambda p: p.path("total").unlink(), "counting", "output total is missing"),
        (lambda p: p.versions.update(torch="2"), "doubling", "library torch 1 → 2"),
        (
            lambda p: p.path("total").with_name(".counting.record.json").unlink(),
            "counting",
            "no record of a finished run",
        ),
        (
            lambda p: p.path("total").with_name(".counting.record.json").write_text("{"),
            "counting",
            "no record of a finished run",
        ),
        (
            lambda p: p.path("total").with_name(".counting.record.json").write_text('{"format": 0}'),
            "counting",
            "no record of a finished run",
        ),
    ],
)
def test_the_reason_is_told(
    project: Project, change: Callable[[Project], Any], node_name: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    project.run()
    change(project)
    assert project.explain(node_name) == reason
    if reason in ("input numbers is missing", "input flags changed"):
        return  # the first cannot run, the second is put right by its producer, which runs before it
    with caplog.at_level(logging.INFO, "paced_rl"):
        assert node_name in project.run()
    own = [record.getMessage() for record in caplog.records if record.name.startswith("paced_rl")]
    assert f"{node_name} runs: {reason}" in own
    assert project.read("total") == {"count": sum(project.read("flags"))}
    assert project.run() == []


def test_cached_nodes_are_one_short_line(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    project.run()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        project.run()
    own = [record.getMessage() for record in caplog.records if record.name.startswith("paced_rl")]
    assert own[:2] == [f"3 nodes are cached: {', '.join(EVERYTHING)}", "0 nodes ran, 3 are cached"]
    assert not [record for record in caplog.records if "Loading data" in record.getMessage()]


def test_an_output_edited_by_hand_is_made_again_and_nothing_after_it(project: Project) -> None:
    project.run()
    right = project.read("doubled")
    project.write("doubled", [7])
    assert project.run() == ["doubling"]
    assert project.read("doubled") == right


def test_typed_and_raw_parameters_are_the_same_parameters(project: Project) -> None:
    class Choice(BaseModel):
        limit: int = 3
        unused: dict[str, list[int]] = {"deep": [1]}

        def __getitem__(self, key: str) -> Any:
            return getattr(self, key)

    project.run()
    project.parameters = Choice()
    assert project.run() == []
    project.parameters = Choice(limit=4)
    assert project.explain("choosing") == "params:choice.limit 3 → 4"


def test_force_runs_everything_and_leaves_records(project: Project) -> None:
    project.run()
    assert project.run(force=True) == EVERYTHING
    assert project.run() == []


def test_loading_with_threads_is_cached_alike(project: Project) -> None:
    assert project.run(is_async=True) == EVERYTHING
    assert project.run() == []


def test_a_failed_node_leaves_no_record_and_what_came_before_is_cached(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    good = project.pipeline
    project.run()
    bad_node = node(fail, "flags", "total", name="counting")
    project.pipeline = Pipeline([*(item for item in good.nodes if item.name != "counting"), bad_node])
    with pytest.raises(ValueError, match="no luck"):
        project.run()
    assert "1 of 3 nodes have not run" in caplog.text
    project.pipeline = good
    # The output of the run before is still there, and says nothing about a run that did not finish.
    assert project.read("total") == {"count": 2}
    assert project.explain("counting") == "no record of a finished run"
    assert project.run() == ["counting"]


def test_data_that_fails_validation_leaves_no_record(project: Project) -> None:
    project.run()
    project.validators = {"flags": {"class": f"{__name__}.refuse", "on": "save"}}
    project.parameters = {**project.parameters, "limit": 1}
    with pytest.raises(DataValidationError):
        project.run()
    project.parameters = {**project.parameters, "limit": 3}
    assert project.explain("choosing") == "no record of a finished run"


def test_a_run_killed_between_saving_and_recording_is_repeated(project: Project) -> None:
    class Killed(BaseException):
        pass

    class Killer:
        @hook_impl
        def after_dataset_saved(self, dataset_name: str) -> None:
            if dataset_name == "flags":
                raise Killed

    project.run()
    project.parameters = {**project.parameters, "limit": 1}
    manager = PluginManager(HOOK_NAMESPACE)
    manager.add_hookspecs(NodeSpecs)
    manager.add_hookspecs(DatasetSpecs)
    manager.register(Killer())
    with pytest.raises(Killed):
        CachingRunner(library_versions=project.versions).run(project.pipeline, project.catalog(), manager)
    assert project.run() == ["choosing", "counting"]


@pytest.mark.parametrize("memory", ["doubled", "flags"])
def test_nodes_around_a_dataset_in_memory_always_run(project: Project, memory: str) -> None:
    project.memory = {memory}
    around = [item.name for item in project.pipeline.nodes if memory in [*item.inputs, *item.outputs]]
    assert project.run() == EVERYTHING
    assert project.run() == around
    assert project.explain(around[0]) == f"output {memory} is not a local file"
    assert project.explain(around[1]) == f"input {memory} is not a local file"


def test_slices_are_decided_like_the_whole(project: Project) -> None:
    project.run()
    for only in (
        project.pipeline.filter(node_names=["counting"]),
        project.pipeline.filter(from_nodes=["choosing"]),
        project.pipeline.filter(to_nodes=["choosing"]),
        project.pipeline.filter(tags=["late"]),
        project.pipeline.filter(from_inputs=["doubled"]),
    ):
        assert project.run(only=only) == []
    project.write("numbers", [5, 6, 7])
    assert project.run(only=project.pipeline.filter(from_nodes=["choosing"])) == []
    assert project.run(only=project.pipeline.filter(to_nodes=["doubling"])) == ["doubling"]
    assert project.run(only=project.pipeline.filter(node_names=["choosing"])) == ["choosing"]
    assert project.run() == ["counting"]


def test_one_of_several_outputs_is_enough_to_run_again(project: Project) -> None:
    project.pipeline = Pipeline([node(split, "numbers", ["head", "tail"], name="splitting")])
    project.run()
    project.path("tail").unlink()
    assert project.run() == ["splitting"]
    assert project.read("tail") == [2, 3]
    assert project.run() == []


def test_swapped_inputs_are_another_node(project: Project) -> None:
    project.write("others", [0, 0, 1])
    project.pipeline = Pipeline([node(subtract, ["numbers", "others"], "gaps", name="gap")])
    project.run()
    project.pipeline = Pipeline([node(subtract, ["others", "numbers"], "gaps", name="gap")])
    assert project.run() == ["gap"]
    assert project.read("gaps") == [-1, -2, -2]


def test_transcoded_names_are_the_files_of_their_own_entries(project: Project) -> None:
    # As between rounds: one node writes the first file, another reads the same name at another path.
    project.write("numbers_round", [10])
    project.pipeline = Pipeline(
        [
            node(double, "start", "numbers@start", name="starting"),
            node(double, "numbers@round", "doubled", name="doubling"),
        ]
    )
    project.write("start", [1])
    assert project.run() == ["starting", "doubling"]
    assert project.read("doubled") == [20]
    project.write("numbers_start", [3])
    assert project.run() == ["starting"]
    project.write("numbers_round", [11])
    assert project.run() == ["doubling"]


def test_an_output_that_its_dataset_calls_absent_is_made_again(project: Project, monkeypatch: Any) -> None:
    class Manifest(JSONDataset):
        def _exists(self) -> bool:
            return super()._exists() and project.path("weights").exists()

    def catalog() -> DataCatalog:
        datasets = {name: JSONDataset(filepath=project.path(name).as_posix()) for name in ("numbers", "doubled")}
        datasets["doubled"] = Manifest(filepath=project.path("doubled").as_posix())
        return DataCatalog(datasets)

    project.pipeline = Pipeline([node(double, "numbers", "doubled", name="doubling")])
    monkeypatch.setattr(project, "catalog", catalog)
    project.write("weights", 1)
    project.run()
    assert project.explain("doubling") is None
    project.path("weights").unlink()
    assert project.explain("doubling") == "output doubled is missing"


def test_a_function_of_a_library_always_runs(project: Project) -> None:
    project.pipeline = Pipeline([node(sorted, "numbers", "ordered", name="sorting")])
    assert project.run() == ["sorting"]
    assert project.run() == ["sorting"]
    assert project.explain("sorting") == "its function is not of this project"


def test_unnamed_nodes_have_records_of_their_own(project: Project) -> None:
    project.pipeline = Pipeline([node(double, "numbers", "a"), node(double, "numbers", "b")])
    paths = {record_path(item, project.catalog()) for item in project.pipeline.nodes}
    assert len(paths) == 2
    assert len(project.run()) == 2
    assert all(path.is_file() and path.name.startswith(".") for path in paths)
    assert project.run() == []


def test_no_staging_file_is_left(project: Project) -> None:
    project.run()
    names = {path.name for path in project.folder.iterdir()}
    assert names == {f"{name}.json" for name in ("numbers", "doubled", "flags", "total")} | {
        f".{name}.record.json" for name in EVERYTHING
    }


def test_a_torn_record_is_as_good_as_none(project: Project) -> None:
    """As a power cut may leave one on a file system that flushes names before contents."""
    project.run()
    path = project.folder / ".counting.record.json"
    whole = path.read_bytes()
    torn = [whole[:size] for size in range(0, len(whole) - 1, 7)]
    for content in (*torn, bytes(len(whole)), b"[]", b"1", b"{}", b"\xff" + whole):
        path.write_bytes(content)
        assert project.explain("counting") == "no record of a finished run", content
    path.write_bytes(whole)
    assert project.explain("counting") is None


def test_records_do_not_disturb_reading_a_folder_of_tables(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1, 2]})
    for number in (0, 1):
        config = {
            "rows": {
                "type": "pandas.ParquetDataset",
                "filepath": (tmp_path / f"rollouts/round={number:04}/rows.parquet").as_posix(),
            },
            "numbers": {"type": "pandas.CSVDataset", "filepath": (tmp_path / "numbers.csv").as_posix()},
        }
        frame.to_csv(tmp_path / "numbers.csv", index=False)
        pipeline = Pipeline([node(copy_table, "numbers", "rows", name="copying")])
        CachingRunner().run(pipeline, DataCatalog.from_config(config))
    assert len(list(tmp_path.glob("rollouts/round=*/.copying.record.json"))) == 2
    assert len(pd.read_parquet(tmp_path / "rollouts")) == 4


def test_kedro_viz_takes_it_for_a_sequential_runner() -> None:
    from kedro_viz.integrations.kedro.hooks_utils import is_sequential_runner

    assert is_sequential_runner({"runner": str(CachingRunner())})


def test_a_file_that_a_parameter_names_is_an_input(tmp_path: Path) -> None:
    project = Project(tmp_path)
    source = tmp_path / "prompts.jsonl"
    source.write_text("one\n")
    project.parameters = {"limit": 3, "source": str(source)}
    project.run()
    assert project.run() == []
    source.write_text("two\n")
    assert "params:choice.source changed" in str(project.explain("choosing"))
    assert project.run() == ["choosing"]
