"""A plain folder of files, replaced as a whole: a policy that is shipped or handed to other tools."""

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from paced_rl.atomic import write_folder_atomically
from paced_rl.datasets.checkpoint import write_files
from paced_rl.types import CheckpointFiles


class FolderDataset(AbstractDataset[CheckpointFiles, Path]):
    """The files of a checkpoint in a folder of a fixed name, without manifest or versions."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """
        Args:
            filepath: the folder.
            metadata: read by Kedro-Viz.
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def save(self, data: CheckpointFiles) -> None:
        """Writes all files beside the folder and moves them into place.

        Raises:
            OSError: the disk is full; the folder saved before is untouched.
        """
        write_folder_atomically(self._filepath, lambda folder: write_files(folder, data.files))

    def load(self) -> Path:
        """The folder.

        Raises:
            DatasetError: there is none.
        """
        if not self._filepath.is_dir():
            raise DatasetError(f"there is no folder {self._filepath}; run the pipeline that writes it")
        return self._filepath

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
