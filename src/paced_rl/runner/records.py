"""What a node's last finished run depended on, in a small file beside its first output, and how that compares to now.

The file is `.<node name>.record.json`: Arrow, and with it `pandas.read_parquet` on a folder, passes over names that
begin with a dot. A node that is running, was interrupted or failed has no record.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from kedro.io import CatalogProtocol
from kedro.io.core import is_parameter
from kedro.pipeline.node import Node

from paced_rl.atomic import write_atomically
from paced_rl.runner.code_fingerprints import code_fingerprint
from paced_rl.runner.content_fingerprints import canonical_json, file_fingerprint, installed_versions, local_path

_FORMAT = 1
"""Raise it when the meaning of a field changes: records of another format are ignored."""
_MAX_NAME_CHARACTERS = 80
_MAX_VALUE_CHARACTERS = 60
_MAX_DIFFERENCES = 3
_ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything that decides whether a node must run."""

    format: int
    wiring: str
    """Function, inputs and outputs by name, in order."""
    libraries: Mapping[str, str]
    code: Mapping[str, str]
    """Dotted name → digest of every definition that the node's function reaches."""
    parameters: Mapping[str, Any]
    """`params:` name → value, as JSON."""
    inputs: Mapping[str, str | None]
    """Dataset name → SHA-256 of its file; None where there is none."""
    outputs: Mapping[str, str | None]


def explain(node: Node, catalog: CatalogProtocol, *, library_versions: Mapping[str, str] | None = None) -> str | None:
    """Why a node has to run, e.g. "input schedule changed"; None when what its outputs hold is up to date.

    Args:
        node: a node of a pipeline.
        catalog: where its inputs, parameters and outputs are.
        library_versions: distribution → version; None takes the installed ones.
    """
    reason = why_not_cacheable(node, catalog)
    if reason is not None:
        return reason
    recorded = _read(record_path(node, catalog))
    if recorded is None:
        outputs = output_fingerprints(node, catalog)
        return "never run before" if not any(outputs.values()) else "no record of a finished run"
    return next(_differences(recorded, take_record(node, catalog, library_versions), node, catalog), None)


def why_not_cacheable(node: Node, catalog: CatalogProtocol) -> str | None:
    """What keeps a node from ever being skipped, or None."""
    if not node.outputs:
        return "it has no outputs"
    for kind, names in (("input", _data_inputs(node)), ("output", node.outputs)):
        for name in names:
            if local_path(catalog.get(name)) is None:
                return f"{kind} {name} is not a local file"
    return "its function is not of this project" if code_fingerprint(node.func) is None else None


def record_path(node: Node, catalog: CatalogProtocol) -> Path:
    """Where the record of a cacheable node is.

    Raises:
        ValueError: the first output is not a local file.
    """
    path = local_path(catalog.get(node.outputs[0]))
    if path is None:
        raise ValueError(
            f"node {node.name} has no record because its first output {node.outputs[0]} is not a local file: "
            "ask why_not_cacheable first"
        )
    name = re.sub(r"[^\w.-]", "_", node.name)[:_MAX_NAME_CHARACTERS]
    if name != node.name:
        # Kedro's names of unnamed nodes hold brackets and may be long; the digest keeps them apart.
        name = f"{name}-{hashlib.sha256(node.name.encode()).hexdigest()[:8]}"
    return path.parent / f".{name}.record.json"


def take_record(node: Node, catalog: CatalogProtocol, library_versions: Mapping[str, str] | None) -> Record:
    """What the node depends on now. `outputs` is empty: they belong to the end of a run, see `write_record`."""
    names = [name for name in node.inputs if is_parameter(name)]
    parameters = {name: json.loads(canonical_json(_load(name, catalog))) for name in names}
    return Record(
        format=_FORMAT,
        wiring=repr(node),
        libraries=dict(installed_versions() if library_versions is None else library_versions),
        code=code_fingerprint(node.func) or {},
        parameters=parameters,
        inputs=_fingerprints(_data_inputs(node), catalog) | source_fingerprints(parameters),
        outputs={},
    )


def output_fingerprints(node: Node, catalog: CatalogProtocol) -> dict[str, str | None]:
    """Digest of each output; None for one that its dataset says does not exist, e.g. a manifest without its weights."""
    fingerprints = _fingerprints(node.outputs, catalog)
    return {name: value if _exists(name, catalog) else None for name, value in fingerprints.items()}


def write_record(path: Path, record: Record, outputs: Mapping[str, str | None]) -> None:
    """Write a finished run's record, whole or not at all; the outputs are on the disk already."""
    finished = replace(record, outputs=outputs)
    # Neither `asdict`, which copies every mapping deeply, nor an indent, which Python's fast encoder does not know.
    text = json.dumps({field.name: getattr(finished, field.name) for field in fields(Record)}, ensure_ascii=False)
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))


def _read(path: Path) -> Record | None:
    """The record at `path`; None if there is none, or one that cannot be read or is of another format."""
    with contextlib.suppress(
        FileNotFoundError, NotADirectoryError, UnicodeDecodeError, json.JSONDecodeError, TypeError
    ):
        record = Record(**json.loads(path.read_text("utf-8")))
        return record if record.format == _FORMAT else None
    return None


def _differences(recorded: Record, now: Record, node: Node, catalog: CatalogProtocol) -> Iterator[str]:
    """Reasons to run, the likeliest cause first; lazily, so that outputs are hashed only when nothing else differs."""
    if recorded.wiring != now.wiring:
        yield "its definition in the pipeline changed"
    values = [text for name in now.parameters for text in _changed_values(name, recorded.parameters, now.parameters)]
    if values:
        yield _listed(values)
    # A change of Python or a library also changes nothing else, so it is told before the code.
    versions = [text for name in now.libraries for text in _changed_values(name, recorded.libraries, now.libraries)]
    if versions:
        yield f"library {_listed(versions)}"
    code = [name for name in now.code if recorded.code.get(name, now.code[name]) != now.code[name]]
    if recorded.code != now.code:
        # Where no definition in common differs, one was added or removed.
        yield f"code of {_listed(sorted(code or set(now.code) ^ set(recorded.code)))} changed"
    for name, digest in now.inputs.items():
        if digest is None:
            yield f"input {name} is missing"
        elif recorded.inputs.get(name) != digest:
            yield f"input {name} changed"
    for name, digest in output_fingerprints(node, catalog).items():
        if digest is None:
            yield f"output {name} is missing"
        elif recorded.outputs.get(name) != digest:
            yield f"output {name} was changed by hand"


def _changed_values(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """`name old → new`, at the leaves of nested mappings. NaN is equal to itself here, so texts are compared."""
    before, after = old.get(name, _ABSENT), new.get(name, _ABSENT)
    if canonical_json(before) == canonical_json(after):
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            for text in _changed_values(key, before, after):
                yield f"{name}.{text}"
    else:
        yield f"{name} {_shortened(before)} → {_shortened(after)}"


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= _MAX_VALUE_CHARACTERS else f"{text[: _MAX_VALUE_CHARACTERS - 1]}…"


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _MAX_DIFFERENCES} more" if len(items) > _MAX_DIFFERENCES else ""
    return ", ".join(items[:_MAX_DIFFERENCES]) + more


def _data_inputs(node: Node) -> list[str]:
    return [name for name in node.inputs if not is_parameter(name)]


def _fingerprints(names: list[str], catalog: CatalogProtocol) -> dict[str, str | None]:
    paths = {name: local_path(catalog.get(name)) for name in names}
    return {name: None if path is None else file_fingerprint(path) for name, path in paths.items()}


def source_fingerprints(parameters: Mapping[str, Any]) -> dict[str, str | None]:
    """Digests of the files and folders that parameters called `source` name: to a node they are inputs too."""
    sources = {
        f"{name}.source": Path(group["source"])
        for name, group in parameters.items()
        if isinstance(group, Mapping) and isinstance(group.get("source"), str)
    }
    return {name: file_fingerprint(path) for name, path in sources.items() if path.exists()}


def _exists(name: str, catalog: CatalogProtocol) -> bool:
    dataset = catalog.get(name)
    return dataset is not None and dataset.exists()


def _load(name: str, catalog: CatalogProtocol) -> Any:
    # Not `catalog.load`, which would announce every parameter of a node that may not even run.
    dataset = catalog.get(name)
    if dataset is None:
        raise KeyError(f"{name} is not among the parameters: add it to conf/base/parameters_<stage>.yml")
    return dataset.load()
