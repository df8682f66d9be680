"""Every module can be imported by itself, first, without a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hepbridge

ROOT = Path(hepbridge.__file__).parent
MODULES = sorted(
    ".".join(["hepbridge", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path.name != "__main__.py"
)

# One process per room keeps torch's import time within reason; fresh modules show cycles.
SCRIPT = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [m for m in sys.modules if m.partition(".")[0] == "hepbridge"]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("room", sorted({name.split(".")[1] for name in MODULES if "." in name}))
def test_every_module_imports_first(room: str) -> None:
    """Fails on an import cycle that only shows when another module is imported first."""
    names = [name for name in MODULES if name.split(".")[1:2] == [room]]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *names],
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_core_data_and_cli_work_without_the_extras() -> None:
    """uproot, awkward, tensorboard and ONNX Runtime are optional: no module needs them to be imported."""
    extras = ("uproot", "awkward", "tensorboard", "onnx", "onnxscript", "onnxruntime")
    block = f"import sys\nfor m in {extras}: sys.modules[m] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", block + SCRIPT, *MODULES],
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
