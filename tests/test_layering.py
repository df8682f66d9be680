"""The floors of the house: an import only ever points down (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hepbridge

ROOT = Path(hepbridge.__file__).parent

FLOOR = {
    "core": 0,
    "data": 1,
    "networks": 1,
    "training": 1,
    "transforms": 2,
    "transports": 2,
    "weighters": 2,
    "simulate": 2,
    "metrics": 3,
    "inference": 3,
    "systems": 4,
    "recipes": 4,
    "report": 5,
    "deploy": 5,
    "cli": 6,
}
# Beyond the floors: rooms that must not know of each other although the floors would allow it.
FORBIDDEN = {
    "transports": {"data", "training"},
    "weighters": {"training"},
    "simulate": {"networks", "training"},
    "networks": {"data", "training"},
    "metrics": {"training", "transports"},
}
SIBLINGS = {1}  # floors on which the rooms do not import each other


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of all imports, also those in functions and for type checkers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def faults(room: str, source: str, package: str) -> list[str]:
    """What is wrong with the imports of one module that lives in ``room``."""
    found = []
    for line, name in imports(source, package):
        parts = name.split(".")
        if parts[0] != "hepbridge" or parts[1:] == ["__version__"]:
            continue
        other = parts[1] if len(parts) > 1 else ""
        if other not in FLOOR:
            found.append(f"line {line}: imports {name}; import from the room that owns it")
        elif other == room:
            continue
        elif FLOOR[other] > FLOOR[room]:
            found.append(f"line {line}: {room} imports {name}, which is on a higher floor")
        elif FLOOR[other] == FLOOR[room] and FLOOR[room] in SIBLINGS:
            found.append(f"line {line}: {room} imports its neighbour {name}")
        elif other in FORBIDDEN.get(room, set()):
            found.append(f"line {line}: {room} must not know of {other}, but imports {name}")
    return found


MODULES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_down(path: Path) -> None:
    """Fails if, for example, ``data`` imports ``networks`` inside a function."""
    relative = path.relative_to(ROOT)
    package = ".".join(["hepbridge", *relative.parent.parts])
    assert relative.parts[0] in FLOOR, f"give the room {relative.parts[0]!r} a floor"
    assert faults(relative.parts[0], path.read_text(encoding="utf-8"), package) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("core", "import hepbridge.data.showers"),
        ("core", "from ..cli import main"),
        ("data", "def f():\n    from hepbridge.networks import mlp"),
        ("data", "from hepbridge import training"),
        ("transports", "from hepbridge.training import fit"),
        ("transports", "from hepbridge.data.showers import Showers"),
        ("metrics", "from hepbridge.report.style import figure"),
        ("systems", "import hepbridge.cli"),
        ("report", "import hepbridge"),
        ("report", "from hepbridge import load"),
    ],
)
def test_faults_are_found(room: str, source: str) -> None:
    assert faults(room, source, f"hepbridge.{room}")


HEAVY = {
    "core": {"torch"},
    "data": {"torch", "matplotlib"},
    "metrics": {"torch", "matplotlib", "mplhep", "hist"},
}


@pytest.mark.parametrize("room", HEAVY)
def test_light_rooms_import_no_heavy_library_at_the_top(room: str) -> None:
    for path in sorted((ROOT / room).rglob("*.py")):
        source = "\n".join(
            ast.unparse(node)
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        )
        heavy = {name.partition(".")[0] for _, name in imports(source, "")} & HEAVY[room]
        assert not heavy, f"{path} imports {heavy} when it is imported"
