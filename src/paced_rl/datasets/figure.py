"""A Matplotlib figure as a PNG file."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kedro.io import AbstractDataset
from kedro_datasets._typing import ImagePreview

from paced_rl.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FigureDataset(AbstractDataset["Figure", bytes]):
    """Saves a figure as PNG, with equal bytes for an equal figure, and loads those bytes."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """
        Args:
            filepath: the PNG file.
            metadata: read by Kedro-Viz.
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def save(self, data: "Figure") -> None:
        write_atomically(self._filepath, lambda path: _write_png(path, data))

    def load(self) -> bytes:
        return self._filepath.read_bytes()

    def preview(self) -> ImagePreview:
        """The image for Kedro-Viz, in base64."""
        return ImagePreview(base64.b64encode(self._filepath.read_bytes()).decode("ascii"))

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


def _write_png(path: Path, figure: "Figure") -> None:
    # What `figure.savefig` does, without an alpha channel that is opaque everywhere, which takes a third of the time,
    # and without the version of Matplotlib, with which an upgrade would make every round's figures differ.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # Half the time of the default compression, 6, for a file that is a tenth larger.
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(path, format="png", compress_level=1)
