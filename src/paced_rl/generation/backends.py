"""The generators by their names, and the one of them that a process keeps open."""

import atexit
import json
from collections.abc import Mapping
from typing import Any

from paced_rl.generation.protocol import Generator

_open: dict[str, Generator] = {}
"""At most one, by what it was made from: the next round takes it up again, engine and all."""


def get_generator(
    backend: str, *, device: str, dtype: str, batch_size: int, options: Mapping[str, Any] | None = None
) -> Generator:
    """The generator of the parameters `rollout.backend`, `policy.device`, `policy.dtype` and `rollout.batch_size`.

    The same arguments give the same object, for as long as nobody asks with others: then it is closed first, so that
    two engines never share the memory of one machine.

    Args:
        options: of this backend alone: the parameters of the group `rollout.<backend>`, where there is one.

    Raises:
        ValueError: there is no such backend.
    """
    key = json.dumps([backend, device, dtype, batch_size, options], sort_keys=True)
    if key not in _open:
        close_generators()
        _open[key] = _make(backend, device=device, dtype=dtype, batch_size=batch_size, options=options or {})
    return _open[key]


@atexit.register
def close_generators() -> None:
    """Closes the generator that is kept open, if there is one; so does the end of the process."""
    while _open:
        _open.popitem()[1].close()


def _make(backend: str, *, device: str, dtype: str, batch_size: int, options: Mapping[str, Any]) -> Generator:
    # Imported here and not above: torch takes seconds, and whoever only names a Generator need not wait.
    if backend == "transformers":
        from paced_rl.generation.transformers_backend import TransformersGenerator

        return TransformersGenerator(device=device, dtype=dtype, batch_size=batch_size)
    if backend == "vllm":
        from paced_rl.generation.vllm_backend import EngineSettings, VllmGenerator

        return VllmGenerator(dtype=dtype, batch_size=batch_size, settings=EngineSettings(**options))
    if backend == "vllm_server":
        from paced_rl.generation.vllm_server import VllmServerGenerator

        return VllmServerGenerator(dtype=dtype, **options)
    raise ValueError(
        f"unknown generation backend {backend!r}; set rollout.backend to one of: transformers, vllm, vllm_server"
    )
