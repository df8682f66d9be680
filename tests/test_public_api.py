"""The public names: what they are, where they come from, and that they cost nothing until used."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import hepbridge

PUBLIC = [
    "Geometry",
    "HepbridgeError",
    "OnnxRefiner",
    "Showers",
    "__version__",
    "evaluate",
    "export_onnx",
    "generate_file",
    "load",
    "load_generator",
    "load_model",
    "refine_file",
    "save",
    "train",
    "train_generator",
    "write_report",
]


def test_names_are_frozen() -> None:
    """Change this list together with CHANGELOG.md; removing a name needs a deprecation."""
    assert hepbridge.__all__ == PUBLIC
    assert dir(hepbridge) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_resolves(name: str) -> None:
    assert getattr(hepbridge, name) is not None


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'shower'"):
        _ = hepbridge.shower


def test_lazy_names_do_not_collide_with_rooms() -> None:
    """Importing a subpackage sets an attribute of its name, which would hide a public name."""
    rooms = {p.parent.name for p in Path(hepbridge.__file__).parent.glob("*/__init__.py")}
    assert not rooms & set(PUBLIC)


def test_every_module_declares_its_public_names() -> None:
    """Every module with public functions or classes has ``__all__``, and all it names exists."""
    root = Path(hepbridge.__file__).parent
    for path in sorted(root.rglob("*.py")):
        if path.name in ("__init__.py", "__main__.py", "units.py"):
            continue
        name = ".".join(["hepbridge", *path.relative_to(root).with_suffix("").parts])
        module = import_module(name)
        assert hasattr(module, "__all__"), f"{name} has no __all__"
        missing = [n for n in module.__all__ if not hasattr(module, n)]
        assert not missing, f"{name}.__all__ names {missing}, which do not exist"


def test_version_is_the_same_everywhere() -> None:
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == hepbridge.__version__
    assert f"version: {hepbridge.__version__}\n" in (root / "CITATION.cff").read_text("utf-8")
    assert f"## [{hepbridge.__version__}]" in (root / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize(
    "statement",
    ["import hepbridge", "import hepbridge.core.errors", "from hepbridge import Showers, Geometry"],
)
def test_import_leaves_torch_out(statement: str) -> None:
    """Fails if any module on the way imports torch at its top."""
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
