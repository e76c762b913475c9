"""Commands as a user would type them, for messages that say what to run next."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

_YAML = {"None": "null", "True": "true", "False": "false"}  # what --params reads back as the same value


def params_option(params: Mapping[str, Any]) -> str:
    """The value of `--params` for nested parameters, quoted for a shell, e.g. `round=2,rollout.group_size=4`."""
    return shlex.quote(",".join(f"{name}={_YAML.get(str(value), value)}" for name, value in _flatten(params)))


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
