"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from hepbridge.core import progress

os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile("hepbridge", derandomize=True, deadline=None, max_examples=30)
settings.load_profile("hepbridge")


@pytest.fixture(scope="session")
def sample_dir() -> Path:
    """The folder of real showers that is larger than the bundled sample."""
    beside = Path(__file__).parents[2] / "shared" / "showers"
    folder = Path(os.environ.get("HEPBRIDGE_SHOWERS", beside))
    if not folder.is_dir():
        pytest.skip(f"no shower files in {folder}; set HEPBRIDGE_SHOWERS")
    return folder


@pytest.fixture
def geant4_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Geant4 can run: geant4-pybind is installed and the environment names its data sets."""
    if importlib.util.find_spec("geant4_pybind") is None:
        pytest.skip("geant4-pybind is not installed (extra geant4)")
    named = os.environ.get("HEPBRIDGE_GEANT4_DATA") or os.environ.get("GEANT4_DATA_DIR")
    folder = Path(named or Path(__file__).parents[2] / "shared" / "geant4-data")
    if not folder.is_dir():
        pytest.skip(f"no Geant4 data sets in {folder}; set HEPBRIDGE_GEANT4_DATA")
    monkeypatch.setenv("GEANT4_DATA_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _torch_is_left_as_it_was() -> Iterator[None]:
    """Fail the test that changes torch for those after it."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_default_dtype"):
        assert torch.get_default_dtype() is torch.float32
        assert torch.is_grad_enabled()
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture(autouse=True)
def _logging_is_left_as_it_was() -> Iterator[None]:
    """The command line configures logging and progress bars for its process: undo that."""
    yield
    logging.captureWarnings(False)
    for name in ("hepbridge", "py.warnings"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel(logging.NOTSET)
    progress.set_quiet(False)
