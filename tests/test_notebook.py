"""The notebook runs from top to bottom on what real rounds leave behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PROJECT = Path(__file__).parents[1]
NOTEBOOK = PROJECT / "notebooks" / "explore_round.ipynb"
TWO_ROUNDS = """
import sys
from pathlib import Path
from paced_rl.loop import run_rounds

params = {"policy": {"source": sys.argv[1]}}
assert list(run_rounds(Path.cwd(), range(1, 3), env="test", params=params)) == [1, 2]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_policy_folder: Path) -> Path:
    """A copy of the project's configuration with two rounds of a tiny random policy in it."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(PROJECT / "conf", folder / "conf")
    shutil.copy(PROJECT / "pyproject.toml", folder)
    (folder / "src").mkdir()  # Kedro wants the folder; the package is the installed one
    (folder / "data").mkdir()
    command = [sys.executable, "-c", TWO_ROUNDS, str(tiny_policy_folder)]
    environment = {**os.environ, "PACED_RL_MLFLOW": "off", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_notebook_runs_and_shows_every_section(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACED_RL_DATA", str(project / "data"))
    monkeypatch.setenv("PACED_RL_EXPERIMENT", "test")
    # Jupyter's and IPython's own files stay out of the user's home.
    monkeypatch.setenv("IPYTHONDIR", str(project / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(project / "jupyter"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)

    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(project)}}
    ).execute()

    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code_cells)
    assert "2 rounds, the last one is 2" in code_cells[0].outputs[0]["text"]
    figures = [output for cell in code_cells for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(figures) >= 3


def test_notebook_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code_cells
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells)
