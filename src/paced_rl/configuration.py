"""Kedro's configuration loader for many rounds in one process: files are parsed once, path templates resolved once."""

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import DictConfig, OmegaConf

_SUFFIXES = (".yml", ".yaml", ".json")

_Contents = tuple[tuple[str, bytes], ...]

_parsed: dict[tuple[str, str, str], tuple[_Contents, bytes]] = {}
"""(base folder, environment's folder, key) → what the files held, and what Kedro made of them, pickled."""


class RoundConfigLoader(OmegaConfigLoader):
    """`OmegaConfigLoader` with the same results; a round would spend 0.1 s on reading what the last one read.

    Files are compared by content at every access, so an edit between two rounds counts. Values are resolved anew for
    every loader, because they depend on `--params`.
    """

    def _read_raw_config(self, key: str) -> tuple[Any, ...]:
        # Kedro keeps reading and resolving apart so that what is read can be kept. Credentials are resolved from
        # environment variables while they are read, and archives and URLs are no folders: neither is kept.
        folders = [Path(self._get_conf_env_path(env)) for env in (self.base_env, self.env or self.default_run_env)]
        if key == "credentials" or not all(folder.is_dir() for folder in folders):
            return super()._read_raw_config(key)
        place = (str(folders[0]), str(folders[1]), key)
        contents = _contents(folders)
        known = _parsed.get(place)
        if known is None or known[0] != contents:
            # Pickled, because OmegaConf merges in place; a copy by pickle takes a fifth of the time of `copy.deepcopy`.
            known = _parsed[place] = (contents, pickle.dumps(super()._read_raw_config(key)))
        raw: tuple[Any, ...] = pickle.loads(known[1])
        return raw

    def _resolve_catalog_config(self, aggregate_config: Iterable[DictConfig]) -> dict[str, Any]:
        # OmegaConf resolves `_this_round`, and what it refers to, again for every path that mentions it.
        merged: Any = OmegaConf.unsafe_merge(*aggregate_config)
        for name in merged:
            if str(name).startswith("_") and OmegaConf.is_interpolation(merged, name):
                merged[name] = merged[name]
        resolved: dict[str, Any] = super()._resolve_catalog_config([merged])
        return resolved


def _contents(folders: Iterable[Path]) -> _Contents:
    """Path and bytes of every file that Kedro may take for configuration."""
    files = sorted({file for folder in folders for file in folder.rglob("*") if file.suffix in _SUFFIXES})
    return tuple((str(file), file.read_bytes()) for file in files)
