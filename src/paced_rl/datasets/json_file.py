"""A JSON document that is replaced as a whole, with equal bytes for equal content."""

import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import JSONPreview

from paced_rl.atomic import write_atomically


class JsonFile(AbstractDataset[dict[str, Any], dict[str, Any]]):
    """A mapping with sorted keys, indented so that `diff` of two of them reads well."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """
        Args:
            filepath: the JSON file.
            metadata: read by Kedro-Viz.
        """
        self._filepath = Path(filepath)
        self.metadata = metadata

    def save(self, data: dict[str, Any]) -> None:
        text = json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(self._filepath, lambda path: path.write_text(text, encoding="utf-8"))

    def load(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._filepath.read_text(encoding="utf-8"))
        return document

    def preview(self) -> JSONPreview:
        """The document for Kedro-Viz."""
        return JSONPreview(self._filepath.read_text(encoding="utf-8"))

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
