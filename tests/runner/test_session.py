"""The session and the runner inside a real Kedro project, by real `kedro run` commands in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kedro.runner import SequentialRunner, ThreadRunner

from paced_rl.runner import CachingRunner
from paced_rl.session import choose_runner

FILES = {
    "pyproject.toml": '[tool.kedro]\npackage_name = "toy_project"\nproject_name = "toy"\n'
    'kedro_init_version = "1.7.0"\n',
    "conf/logging.yml": "version: 1\nhandlers:\n  out: {class: logging.StreamHandler, stream: ext://sys.stdout}\n"
    "root: {handlers: [out], level: INFO}\n",
    "src/toy_project/__init__.py": "",
    "src/toy_project/settings.py": "from paced_rl.session import PacedSession\n\nSESSION_CLASS = PacedSession\n"
    'CONFIG_LOADER_ARGS = {"base_env": "base", "default_run_env": "base"}\n',
    "src/toy_project/cli.py": "import click\nfrom kedro.framework.cli.project import run\n"
    "from paced_rl.session import with_caching_runner\n\n\n@click.group()\ndef cli():\n    pass\n\n\n"
    "cli.add_command(with_caching_runner(run))\n",
    "src/toy_project/helpers.py": "def scale(x, factor):\n    return x * factor\n",
    "src/toy_project/pipeline_registry.py": """
from kedro.pipeline import Pipeline, node
from pydantic import BaseModel


class Scaling(BaseModel):
    factor: int = 2


def first(x: int, scaling: Scaling) -> int:
    from toy_project.helpers import scale
    return scale(x, scaling.factor)


def second(y: int) -> int:
    return y + 1


def register_pipelines():
    return {"__default__": Pipeline([
        node(first, ["x", "params:scaling"], "y", name="first"), node(second, "y", "z", name="second", tags="late"),
    ])}
""",
    "conf/base/catalog.yml": "".join(f"{x}:\n  type: json.JSONDataset\n  filepath: data/{x}.json\n" for x in "xyz"),
    "conf/base/parameters.yml": "scaling: {factor: 2}\n",
    "data/x.json": "5",
}
# Each command line of the arguments in one process; a full `kedro` costs seconds of imports.
SCRIPT = """
import logging, sys
from pathlib import Path
from kedro.framework.cli.cli import KedroCLI
for line in sys.argv[1:]:
    print(">>", line)
    try:
        KedroCLI(Path.cwd()).main(line.split(), standalone_mode=False)
    except TypeError as error:
        print("TypeError", error)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def kedro(project: Path, *lines: str) -> list[set[str]]:
    """Run command lines in one process; of each, what it said about the nodes `first` and `second`."""
    (project / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(project / "src"), "KEDRO_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "script.py", *lines], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = []
    for part in done.stdout.split(">> ")[1:]:
        words = [" ".join(line.split()) for line in part.splitlines()]
        said.append(
            {
                text
                for text in (
                    "first runs",
                    "second runs",
                    "1 node is cached: first",
                    "1 node is cached: second",
                    "2 nodes are cached: first, second",
                    "Running node: first",
                    "Running node: second",
                    "forced",
                    "params:scaling.factor 2 → 3",
                    "code of toy_project.helpers.scale changed",
                )
                if any(text in line for line in words)
            }
        )
    return said


BOTH_CACHED = {"2 nodes are cached: first, second"}
BOTH_RUN = {"first runs", "second runs", "Running node: first", "Running node: second"}


def test_kedro_run_uses_the_cache_and_its_options_work(project: Path) -> None:
    said = kedro(
        project,
        "run",
        "run",
        "run --runner-params=force=True",
        "run --nodes=second --runner-params=force=True",
        "run --from-nodes=second",
        "run --to-nodes=first",
        "run --tags=late",
        "run --from-inputs=y",
        "run --runner=SequentialRunner",
        "run --runner=ThreadRunner",
        "run --params=scaling.factor=3 --to-nodes=first",
    )
    assert said == [
        BOTH_RUN,
        BOTH_CACHED,
        BOTH_RUN | {"forced"},
        {"second runs", "Running node: second", "forced"},
        {"1 node is cached: second"},
        {"1 node is cached: first"},
        {"1 node is cached: second"},
        {"1 node is cached: second"},
        # A runner that was asked for is used: it knows no cache.
        {"Running node: first", "Running node: second"},
        {"Running node: first", "Running node: second"},
        {"first runs", "Running node: first", "params:scaling.factor 2 → 3"},
    ]
    assert (project / "data/y.json").read_text() == "15"


def test_an_edit_between_two_processes_reruns_what_it_reaches(project: Path) -> None:
    assert kedro(project, "run") == [BOTH_RUN]
    helpers = project / "src/toy_project/helpers.py"
    helpers.write_text("# a comment\n" + helpers.read_text())
    assert kedro(project, "run") == [BOTH_CACHED]
    helpers.write_text("def scale(x, factor):\n    return factor * x\n")
    # The product is the same either way round, so what follows stays cached.
    code_changed = {"first runs", "Running node: first", "code of toy_project.helpers.scale changed"}
    assert kedro(project, "run", "run") == [code_changed | {"1 node is cached: second"}, BOTH_CACHED]


def test_without_the_project_command_the_session_puts_the_cache_in(project: Path) -> None:
    (project / "src/toy_project/cli.py").unlink()
    said = kedro(project, "run", "run", "run --runner=SequentialRunner", "run --runner=paced_rl.runner.CachingRunner")
    assert said == [BOTH_RUN, BOTH_CACHED, {"Running node: first", "Running node: second"}, BOTH_CACHED]


def test_the_caching_runner_replaces_only_a_runner_that_nobody_chose() -> None:
    class Special(SequentialRunner):
        pass

    assert isinstance(choose_runner(None), CachingRunner)
    assert isinstance(choose_runner(SequentialRunner()), CachingRunner)
    for runner in (Special(), ThreadRunner(), CachingRunner(force=True)):
        assert choose_runner(runner) is runner
    plain = SequentialRunner()
    assert choose_runner(plain, is_asked_for=True) is plain
