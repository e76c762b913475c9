"""Which edits of a throwaway package change the fingerprint of a function in it, and which do not."""

import functools
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paced_rl.runner.code_fingerprints import CodeReader

NODES = '''
"""Nodes."""
import math
from math import floor as rounded

import toy_package.tables
from toy_package import numbers
from toy_package.shapes import Circle
from toy_package.helpers import scale, unused


def decorate(function):
    def inner(*arguments):
        return function(*arguments)
    return inner


def simple(x):
    """Scales."""
    # a comment
    return rounded(scale(x))


def through_modules(x):
    return numbers.increase(x) + toy_package.tables.lookup(x)


def lazily(x):
    from toy_package.heavy import train
    return train(x)


def builds(x):
    return Circle(x).area()


@decorate
def decorated(x):
    return x


def launches():
    return ["python", "-m", "toy_package.worker"]


def weigh(weight, x):
    return weight * x


def make(factor):
    def inner(x):
        return factor * x
    return inner


def nested(x):
    def inner(y):
        return scale(y)
    return inner(x)


by_seven = lambda x: x * 7


def typed(x: Circle):
    return x.area()
'''
PACKAGE = {
    "__init__.py": "",
    "nodes.py": NODES,
    "helpers.py": 'FACTOR = 2\nNAMES = {"a", "b", "c"}\n\n\ndef scale(x):\n    """Doc."""\n'
    "    return FACTOR * x if x in NAMES else step(x)\n\n\ndef step(x):\n    return x - 1\n\n\n"
    "def unused(x):\n    return 1\n",
    "numbers.py": "from toy_package.helpers import step\n\n\ndef increase(x):\n    return x + 1\n\n\n"
    "def decrease(x):\n    return x - 1\n",
    "tables.py": "TABLE = {}\nTABLE[1] = 10\n\n\ndef lookup(x):\n    return TABLE[x]\n",
    "shapes.py": "from dataclasses import dataclass\n\n\nclass Shape:\n    def twice(self):\n        return 2\n\n\n"
    '@dataclass\nclass Circle(Shape):\n    """Round."""\n\n    radius: float = 1.0\n    """Length."""\n\n'
    "    def area(self):\n        return 3 * self.radius\n",
    "heavy.py": 'raise RuntimeError("imported")\n\n\ndef train(x):\n    return x\n',
    "worker.py": "def main():\n    return 1\n\n\nmain()\n",
}
ALL = ("simple", "through_modules", "lazily", "builds", "decorated", "launches", "nested", "by_seven", "typed")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "toy_package"
    folder.mkdir()
    for name, text in PACKAGE.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy_package"]:
        del sys.modules[name]


def fingerprints() -> dict[str, dict[str, str] | None]:
    nodes = importlib.import_module("toy_package.nodes")
    return {name: CodeReader().fingerprint(getattr(nodes, name)) for name in ALL}


@pytest.mark.parametrize(
    ("file", "old", "new", "affected"),
    [
        ("nodes.py", "# a comment", "# another comment", set()),
        ("nodes.py", '"""Scales."""', '"""Scales, as a docstring says."""', set()),
        ("nodes.py", "def simple(x):", "def simple(\n    x: int,\n) -> float:", set()),
        ("nodes.py", '"""Nodes."""', "", set()),
        ("helpers.py", '"""Doc."""', "", set()),
        ("shapes.py", '"""Length."""', '"""Length in metres."""', set()),
        ("helpers.py", "return 1\n", "return 2\n", set()),  # what nobody reaches
        ("numbers.py", "def decrease(x):\n    return x - 1", "def decrease(x):\n    return x - 2", set()),
        ("helpers.py", "FACTOR = 2", "FACTOR = 3", {"simple", "nested"}),
        ("helpers.py", '"c"}', '"d"}', {"simple", "nested"}),
        ("helpers.py", "return x - 1", "return x - 2", {"simple", "nested"}),  # a helper's helper
        ("nodes.py", "floor as rounded", "ceil as rounded", {"simple"}),
        ("numbers.py", "return x + 1", "return x + 2", {"through_modules"}),
        ("tables.py", "TABLE[1] = 10", "TABLE[1] = 11", {"through_modules"}),
        ("heavy.py", "return x\n", "return -x\n", {"lazily"}),
        ("shapes.py", "return 3 *", "return 3.1 *", {"builds", "typed"}),
        ("shapes.py", "= 1.0", "= 2.0", {"builds", "typed"}),
        ("shapes.py", "return 2\n", "return 3\n", {"builds", "typed"}),  # a base class
        ("nodes.py", "return function(*arguments)", "return -function(*arguments)", {"decorated"}),
        ("worker.py", "return 1", "return 2", {"launches"}),
        ("nodes.py", "x * 7", "x * 8", {"by_seven"}),
    ],
)
def test_an_edit_changes_the_fingerprints_of_what_reaches_it(
    package: Path, file: str, old: str, new: str, affected: set[str]
) -> None:
    before = fingerprints()
    text = (package / file).read_text()
    assert text.count(old) == 1
    (package / file).write_text(text.replace(old, new))
    after = fingerprints()
    changed = {name for name in ALL if before[name] != after[name]}
    # A lambda has no name of its own, so it answers for the whole of its module and for all that this reaches.
    assert changed - {"by_seven"} == affected - {"by_seven"}
    assert ("by_seven" in changed) >= bool(affected)


def test_the_fingerprint_names_what_is_reached(package: Path) -> None:
    fingerprint = fingerprints()["nested"]
    assert fingerprint is not None
    reached = {name for name in fingerprint if name.startswith("toy_package.")}
    assert reached >= {
        "toy_package.nodes.nested",
        "toy_package.helpers.scale",
        "toy_package.helpers.FACTOR",
        "toy_package.helpers.NAMES",
        "toy_package.helpers.step",
    }
    assert "toy_package.helpers.unused" not in reached


def test_a_lazily_imported_module_is_read_and_not_imported(package: Path) -> None:
    fingerprint = fingerprints()["lazily"]
    assert fingerprint is not None
    assert "toy_package.heavy.train" in fingerprint
    assert "toy_package.heavy" not in sys.modules


def test_arguments_of_a_partial_count(package: Path) -> None:
    nodes = importlib.import_module("toy_package.nodes")
    reader = CodeReader()
    two, also_two, three = (functools.partial(nodes.weigh, weight) for weight in (2, 2, 3))
    assert reader.fingerprint(two) == reader.fingerprint(also_two) != reader.fingerprint(three)
    with_step = reader.fingerprint(functools.partial(nodes.weigh, {"step": nodes.scale}))
    assert with_step is not None
    assert "toy_package.helpers.step" in with_step


def test_values_of_a_closure_count(package: Path) -> None:
    nodes = importlib.import_module("toy_package.nodes")
    reader = CodeReader()
    two, also_two, three = (nodes.make(factor) for factor in (2, 2, 3))
    assert reader.fingerprint(two) == reader.fingerprint(also_two) != reader.fingerprint(three)


def test_a_closure_that_holds_itself_has_a_fingerprint(package: Path) -> None:
    def countdown(x: int) -> int:
        return 0 if x == 0 else countdown(x - 1)

    assert CodeReader().fingerprint(countdown) is not None


def test_the_state_of_a_bound_method_counts(package: Path) -> None:
    shapes = importlib.import_module("toy_package.shapes")
    reader = CodeReader()
    one, also_one, two = (shapes.Circle(radius).area for radius in (1, 1, 2))
    assert reader.fingerprint(one) == reader.fingerprint(also_one) != reader.fingerprint(two)


@pytest.mark.parametrize("function", [len, json.dumps, np.mean, np.float64, functools.partial(np.mean, axis=0)])
def test_a_function_of_a_library_has_no_fingerprint(function: Any) -> None:
    assert CodeReader().fingerprint(function) is None


def test_a_function_that_a_library_wraps_is_followed(package: Path) -> None:
    nodes = importlib.import_module("toy_package.nodes")
    fingerprint = CodeReader().fingerprint(np.vectorize(nodes.nested))
    assert fingerprint is not None
    assert "toy_package.helpers.step" in fingerprint


def test_a_reader_keeps_what_it_read_first(package: Path) -> None:
    nodes = importlib.import_module("toy_package.nodes")
    reader = CodeReader()
    before = reader.fingerprint(nodes.simple)
    (package / "helpers.py").write_text("")
    assert reader.fingerprint(nodes.simple) == before
    # Also of a function it has not been asked about: what is in memory is the text of the beginning.
    nested = reader.fingerprint(nodes.nested)
    assert nested is not None
    assert "toy_package.helpers.step" in nested


def test_fingerprints_are_the_same_in_every_process(package: Path) -> None:
    script = (
        "from paced_rl.runner.code_fingerprints import CodeReader\nfrom toy_package import nodes\n"
        f"print([sorted(CodeReader().fingerprint(getattr(nodes, name)).items()) for name in {ALL!r}])\n"
        "print(sorted(CodeReader().fingerprint(nodes.make({'a', 'b', 'c', 'd'})).items()))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(package.parent)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[-2:]  # Kedro may announce its logging before
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert "toy_package.helpers.NAMES" in outputs[0][0]
