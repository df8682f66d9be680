"""Fast showers that are not those a model was trained with: told of, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from hepbridge import save
from hepbridge.core.errors import DomainError
from hepbridge.data import sample
from hepbridge.data.showers import Showers
from hepbridge.deploy.refine import refine_file
from hepbridge.systems.checks import LOOK, check_response
from hepbridge.systems.model_file import Model, load, locate


@pytest.fixture(scope="module")
def model() -> Model:
    return load(locate("squirels-small"))


def scaled(factor: float, n: int = 1500, part: slice = slice(None)) -> Showers:
    """GFLASH of 50 GeV that no training saw, some of it calibrated otherwise."""
    fast = sample.load("gflash", 50)[:n]
    cells = fast.cells.copy()
    cells[part] *= np.float32(factor)
    return fast.with_cells(cells)


@pytest.mark.parametrize("factor", [0.5, 0.95, 0.97, 1.01, 1.1])
def test_another_calibration_is_told_of(
    model: Model, factor: float, caplog: pytest.LogCaptureFixture
) -> None:
    check_response(model, scaled(factor), "these")
    assert "these: " in caplog.text and "another calibration, detector or particle?" in caplog.text
    with pytest.raises(DomainError, match="training never had"):
        check_response(model, scaled(factor), "these", strict=True)


def test_the_same_calibration_is_not(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """All energies of the bundled sample; and few odd showers, or few showers, say nothing."""
    for energy in (20, 50, 80):
        check_response(model, sample.load("gflash", energy), "these", strict=True)
    check_response(model, sample.load("train_fast"), "these", strict=True)
    check_response(model, scaled(0.9, 1000, slice(10)), "these", strict=True)
    check_response(model, scaled(0.9, 9), "these", strict=True)
    assert not caplog.text
    check_response(model, scaled(0.9, 1000, slice(11)), "these")
    assert "these: 1% of the showers" in caplog.text


def test_arrays_and_files_are_looked_at(
    model: Model, tmp_path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where a refinement is strict; a refused file leaves nothing behind."""
    bad = scaled(0.95, LOOK + 10)
    model.refine(bad)
    assert "the fast showers: 100%" in caplog.text
    with pytest.raises(DomainError, match="training never had"):
        model.refine(bad, strict=True)
    caplog.clear()
    save(bad, tmp_path / "bad.h5")
    with pytest.raises(DomainError, match=r"bad\.h5: 100%"):
        refine_file("squirels-small", tmp_path / "bad.h5", tmp_path / "o.h5", strict=True)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.h5"]
    refine_file("squirels-small", tmp_path / "bad.h5", tmp_path / "o.h5")
    assert "bad.h5: 100%" in caplog.text
