"""The notebook runs from top to bottom on what real rounds leave behind."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from project_folders import ROOT, make_project, run

NOTEBOOK = ROOT / "notebooks" / "explore_round.ipynb"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_policy_folder: Path) -> Path:
    """Two rounds of a tiny random policy have run here."""
    folder = make_project(tmp_path_factory.mktemp("notebook") / "project")
    assert run(folder, range(1, 3), params={"policy": {"source": str(tiny_policy_folder)}}) == [1, 2]
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
