"""Fingerprint of a node's code: its definition and every definition of the project that is reached from it by name.

The source is parsed and never imported, for three reasons: a fully cached run must not pay for importing torch; a live
module holds state (caches, counters) that is not code; and a syntax tree has neither comments nor line numbers and
keeps sets in source order, so that the digest is the same in every process.

A definition is whatever binds a name at the top level of a module: a function, a class, a constant. What it mentions is
followed through imports, also those inside functions, and through attributes of imported modules. Where a name cannot
be pinned down, the whole module counts: a needless run is cheap, a stale result is not.

Not seen: methods of objects whose class is mentioned nowhere, and modules whose name is put together at run time.
"""

import ast
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from paced_rl.runner.bound_values import BoundValues, Definition
from paced_rl.runner.syntax import TOP_LEVEL, Mentions, SourceModule, essence, find_imports, find_source, parse_module

_DIGEST_CHARACTERS = 16


class CodeReader:
    """Reads each source file once, at the first question about it.

    A file edited while a run is under way is therefore judged as it was when the run began, like the code in memory.
    """

    def __init__(self) -> None:
        self._modules: dict[str, SourceModule | None] = {}
        self._definitions: dict[Definition, tuple[str, frozenset[Definition]]] = {}
        # The function is kept beside its fingerprint so that its id is not given to another one.
        self._fingerprints: dict[int, tuple[Callable[..., Any], dict[str, str] | None]] = {}

    def fingerprint(self, function: Callable[..., Any]) -> dict[str, str] | None:
        """Digest of every definition that `function` reaches, by dotted name; None where none is the project's."""
        if id(function) not in self._fingerprints:
            self._fingerprints[id(function)] = (function, self._fingerprint(function))
        return self._fingerprints[id(function)][1]

    def _fingerprint(self, function: Callable[..., Any]) -> dict[str, str] | None:
        bound = BoundValues()
        found = {"the values bound to the node's function": _digest(bound.describe(function))}
        todo = [pair for start in bound.definitions for pair in self._resolve(".".join(start))]
        if not todo:
            return None
        seen: set[Definition] = set()
        while todo:
            module, name = todo.pop()
            if (module, name) not in seen:
                seen.add((module, name))
                dotted = module if name == TOP_LEVEL else f"{module}.{name}"
                found[dotted], mentioned = self._definition(module, name)
                todo += [*mentioned, (module, TOP_LEVEL)]
        return found

    def _definition(self, module_name: str, name: str) -> tuple[str, frozenset[Definition]]:
        """Digest of one definition, and the definitions it mentions."""
        key = (module_name, name)
        if key not in self._definitions:
            module = self._module(module_name)
            statements = module.definitions.get(name, []) if module else []
            mentions = Mentions(statements)
            # `from math import floor as rounded` stands outside the definition that uses it, and decides what it does.
            known = module.imports if module else {}
            imports = {head: known[head] for head, *_ in mentions.names if head in known}
            text = f"{essence(statements)} {sorted(imports.items())}"
            self._definitions[key] = (_digest(text), frozenset(self._follow(module, statements, mentions)))
        return self._definitions[key]

    def _follow(
        self, module: SourceModule | None, statements: list[ast.stmt], mentions: Mentions
    ) -> Iterator[Definition]:
        if module is None:
            return
        top = module.name.partition(".")[0]
        for imports in (module.imports, *(find_imports(statement, module.package) for statement in statements)):
            for head, *rest in mentions.names:
                if imports.get(head, "").partition(".")[0] == top:
                    yield from self._resolve(".".join([imports[head], *rest]))
        yield from ((module.name, head) for head, *_ in mentions.names if head in module.definitions)
        # The name of a module in a string is how a worker is launched: `python -m paced_rl.training.worker`.
        for text in mentions.texts:
            if text.startswith(f"{top}.") and all(map(str.isidentifier, text.split("."))) and self._module(text):
                yield from self._resolve(text)

    def _resolve(self, dotted: str, above: frozenset[str] = frozenset()) -> Iterator[Definition]:
        """The definitions that an absolute dotted name stands for, through re-exports; a bare module is all of it."""
        parts = dotted.split(".")
        prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        module = next((found for prefix in prefixes if (found := self._module(prefix)) is not None), None)
        if module is None or dotted in above:
            return
        rest = parts[module.name.count(".") + 1 :]
        if rest and rest[0] in module.definitions:
            yield module.name, rest[0]
        elif rest and rest[0] in module.imports:
            yield from self._resolve(".".join([module.imports[rest[0]], *rest[1:]]), above | {dotted})
        else:
            yield from ((module.name, name) for name in {*module.definitions, TOP_LEVEL})

    def _module(self, name: str) -> SourceModule | None:
        if name not in self._modules:
            path = find_source(name)
            self._modules[name] = None if path is None else parse_module(name, path)
        return self._modules[name]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]


_READER = CodeReader()


def code_fingerprint(function: Callable[..., Any]) -> dict[str, str] | None:
    """`CodeReader.fingerprint` by the reader of this process."""
    return _READER.fingerprint(function)


def code_digest(function: Callable[..., Any]) -> str:
    """One digest for all that `code_fingerprint` says of a function."""
    return _digest(repr(sorted((code_fingerprint(function) or {}).items())))
