"""The live values that a node's function carries with it and that no source file tells."""

import functools
import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

Definition = tuple[str, str]
"""(module, name at its top level)."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(slots=True)
class BoundValues:
    """Live values that belong to a node's function: arguments of a partial, a closure, the object of a method."""

    definitions: set[Definition] = field(default_factory=set)
    """Functions and classes met so far."""

    def describe(self, value: Any, above: frozenset[int] = frozenset()) -> str:
        """Text of a value; `above` holds the ids of the values around it, so that a cycle ends."""
        if id(value) in above:
            return "itself"
        inside = functools.partial(self.describe, above=above | {id(value)})
        if isinstance(value, functools.partial):
            return f"partial {inside(value.func)} {inside(value.args)} {inside(value.keywords)}"
        if inspect.ismethod(value):
            return f"{inside(value.__func__)} of {inside(value.__self__)}"
        if inspect.isclass(value):
            self.definitions.add((value.__module__, value.__qualname__.partition(".")[0]))
            return f"{value.__module__}.{value.__qualname__}"
        if inspect.isfunction(value):
            self.definitions.add((value.__module__, value.__qualname__.partition(".")[0]))
            # Only a function made inside another one has defaults that its source does not tell.
            is_local = "<locals>" in value.__qualname__
            defaults = (value.__defaults__, value.__kwdefaults__) if is_local else ()
            return f"{value.__module__}.{value.__qualname__} {inside(_closure(value))} {inside(defaults)}"
        if isinstance(value, Mapping):
            return f"{{{' '.join(sorted(f'{inside(key)}: {inside(item)}' for key, item in value.items()))}}}"
        if isinstance(value, list | tuple | set | frozenset):
            items = map(inside, value)
            return f"[{' '.join(sorted(items) if isinstance(value, set | frozenset) else items)}]"
        self.definitions.add((type(value).__module__, type(value).__qualname__.partition(".")[0]))
        return _ADDRESS.sub("", repr(value)) + inside(getattr(value, "__dict__", ()))


def _closure(function: Any) -> dict[str, Any]:
    values = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # an empty cell: the name is bound later or never
            values[name] = cell.cell_contents
    return values
