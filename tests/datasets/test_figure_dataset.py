"""Figures: equal figures give equal bytes; Kedro-Viz gets an image."""

import base64
import inspect
from pathlib import Path

import pytest
from kedro.io import DatasetError
from matplotlib.figure import Figure

from paced_rl.datasets.figure import FigureDataset


def _figure(height: float) -> Figure:
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([0, 1], [0, height])
    return figure


def test_a_figure_is_saved_as_png_with_stable_bytes(tmp_path: Path) -> None:
    path = tmp_path / "figures" / "curve.png"
    dataset = FigureDataset(filepath=str(path))
    assert not dataset.exists()
    dataset.save(_figure(1.0))
    first = dataset.load()
    dataset.save(_figure(1.0))
    assert dataset.load() == first == path.read_bytes()
    assert first.startswith(b"\x89PNG")
    assert b"Software" not in first
    dataset.save(_figure(-1.0))
    assert dataset.load() != first
    assert dataset.exists()
    assert base64.b64decode(dataset.preview()) == path.read_bytes()
    assert inspect.signature(dataset.preview).return_annotation.__name__ == "ImagePreview"


def test_a_failed_save_keeps_the_old_figure(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    dataset = FigureDataset(filepath=str(path))
    dataset.save(_figure(1.0))
    before = path.read_bytes()
    broken = _figure(2.0)
    broken.text(0.5, 0.5, r"$\no_such_macro$")
    with pytest.raises(DatasetError, match="no_such_macro"):
        dataset.save(broken)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
