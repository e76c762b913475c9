"""Kedro's configuration loader for many rounds in one process: files are parsed once, path templates resolved once."""

import contextlib
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

_SUFFIXES = (".yml", ".yaml", ".json")

_Contents = tuple[tuple[str, bytes], ...]

_parsed: dict[tuple[str, str, str], tuple[_Contents, bytes]] = {}
"""(base folder, environment's folder, key) → what the files held, and what Kedro made of them, pickled."""


class RoundConfigLoader(OmegaConfigLoader):
    """`OmegaConfigLoader` with the same results; a round would spend 0.1 s on reading what the last one read.

    Files are compared by content at every access, so an edit between two rounds counts. Values are resolved anew for
    every loader, because they depend on `--params`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parameters: bytes | None = None

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

    def __getitem__(self, key: str) -> dict[str, Any]:
        # A session asks for its parameters twice, with everything that they depend on the same.
        if key != "parameters" or key in self:
            return super().__getitem__(key)
        if self._parameters is None:
            self._parameters = pickle.dumps(super().__getitem__(key))
        parameters: dict[str, Any] = pickle.loads(self._parameters)
        return parameters

    def _read_dir_configs(self, conf_path: str, patterns: Iterable[str], key: str, *rest: Any) -> dict[Path, Any]:
        # OmegaConf takes long to copy what it made of a file, and so does every step below; plain mappings are quick.
        files: dict[Path, Any] = super()._read_dir_configs(conf_path, patterns, key, *rest)
        return {path: OmegaConf.to_container(file) for path, file in files.items()} if key == "catalog" else files

    def _resolve_catalog_config(self, aggregate_config: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        # OmegaConf resolves `_this_round`, and what it refers to, again for every path that mentions it, and takes most
        # of its time to understand where in the path that is. Anything but a plain mention of a text is left to it.
        files = list(aggregate_config)
        templates = [{name: value for name, value in file.items() if _is_template(name)} for file in files]
        merged: Any = OmegaConf.unsafe_merge({}, *filter(None, templates))
        with contextlib.suppress(InterpolationResolutionError):  # of a template that mentions an entry
            texts = {f"${{{name}}}": value for name, value in merged.items() if isinstance(value, str)}
            # Kedro drops the templates after this.
            replaced: dict[str, Any] = _replace(
                {name: entry for file in files for name, entry in file.items() if not _is_template(name)}, texts
            )
            if "${" not in str(replaced):
                return replaced
        resolved: dict[str, Any] = super()._resolve_catalog_config(files)
        return resolved


def _is_template(name: Any) -> bool:
    return str(name).startswith("_")


def _replace(value: Any, texts: Mapping[str, str]) -> Any:
    """The same mappings and lists, with every mention in a text replaced."""
    if isinstance(value, dict):
        return {key: _replace(entry, texts) for key, entry in value.items()}
    if isinstance(value, list):
        return [_replace(entry, texts) for entry in value]
    if isinstance(value, str) and "${" in value:
        for mention, text in texts.items():
            value = value.replace(mention, text)
    return value


def _contents(folders: Iterable[Path]) -> _Contents:
    """Path and bytes of every file that Kedro may take for configuration."""
    files = sorted({file for folder in folders for file in folder.rglob("*") if file.suffix in _SUFFIXES})
    return tuple((str(file), file.read_bytes()) for file in files)
