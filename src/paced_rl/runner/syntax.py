"""Source files as syntax trees: what a module defines and imports, what a statement mentions and means."""

import ast
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOP_LEVEL = "<module>"
"""Stands for the statements of a module that do more than bind a name, such as `REGISTRY["x"] = f`."""

_OWN_PACKAGE = __name__.partition(".")[0]
_LIBRARY_FOLDERS = {Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("platlib"))}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModule:
    """One module, as it is written."""

    name: str
    package: str
    """What relative imports start from."""
    definitions: Mapping[str, list[ast.stmt]]
    imports: Mapping[str, str]
    """Local name → absolute dotted name."""


def find_source(module_name: str) -> Path | None:
    """Where a module's source is; None for libraries, whose versions stand for their code.

    Only the top package must have been imported, nothing of it is imported here.
    """
    top, *rest = module_name.split(".")
    if top not in sys.modules or top in sys.stdlib_module_names:
        return None
    # A module of one file has no __path__, a compiled one no source.
    file = Path(getattr(sys.modules[top], "__file__", None) or "")
    folders = [Path(folder) for folder in getattr(sys.modules[top], "__path__", ())]
    if top != _OWN_PACKAGE and any(path.is_relative_to(root) for path in (file, *folders) for root in _LIBRARY_FOLDERS):
        return None
    if not folders:
        return file if file.suffix == ".py" and not rest else None
    stems = [folder.joinpath(*rest) for folder in folders]
    candidates = [path for stem in stems for path in (stem / "__init__.py", stem.parent / f"{stem.name}.py")]
    return next((path for path in candidates if path.is_file()), None)


def parse_module(name: str, path: Path) -> SourceModule:
    """Read the file of module `name`; nothing in it is run."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    definitions: dict[str, list[ast.stmt]] = {}
    imports: dict[str, str] = {}
    for statement in ast.parse(path.read_bytes(), filename=str(path)).body:
        if isinstance(statement, _Function | ast.ClassDef):
            bound = {statement.name}
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            bound = set()
            imports |= find_imports(statement, package)
        else:
            nodes = list(ast.walk(statement))
            bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
            bound |= {node.name for node in nodes if isinstance(node, _Function | ast.ClassDef)}
            if not bound or not isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
                bound.add(TOP_LEVEL)
            imports |= find_imports(statement, package)
        for bound_name in bound:
            definitions.setdefault(bound_name, []).append(statement)
    return SourceModule(name=name, package=package, definitions=definitions, imports=imports)


def find_imports(statement: ast.stmt, package: str) -> dict[str, str]:
    """Local name → absolute dotted name, of every import in a statement."""
    found = {}
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            # `import a.b` binds `a` to a; `import a.b as c` binds `c` to a.b.
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                found[alias.asname or name] = name
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            source = [*(parts[: len(parts) - node.level + 1] if node.level else []), *filter(None, [node.module])]
            found |= {alias.asname or alias.name: ".".join([*source, alias.name]) for alias in node.names}
    return found


class Mentions(ast.NodeVisitor):
    """Collects the dotted names of statements (`a.b.c`, not also `a.b` and `a`) and its strings."""

    def __init__(self, statements: list[ast.stmt]) -> None:
        # A star import may stand behind any name.
        self.names: set[tuple[str, ...]] = {("*",)}
        self.texts: set[str] = set()
        for statement in statements:
            self.visit(statement)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        attributes: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            attributes.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self.names.add((inner.id, *attributes))
        else:
            self.visit(inner)

    def visit_Name(self, node: ast.Name) -> None:
        self.names.add((node.id,))

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.texts.add(node.value)


def essence(node: Any) -> str:
    """Text of a syntax tree without what changes no result: docstrings, also of fields, and functions' annotations."""
    if isinstance(node, list):
        return f"[{' '.join(filter(None, map(essence, node)))}]"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return ""
    if isinstance(node, ast.AST):
        skipped = ("annotation", "returns") if isinstance(node, _Function | ast.arg) else ()
        fields = [f"{name}={essence(value)}" for name, value in ast.iter_fields(node) if name not in skipped]
        return f"{type(node).__name__}({' '.join(fields)})"
    return repr(node)
