"""Energies as a user asks for them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepbridge.core.errors import ConfigError, DataError, HepbridgeError
from hepbridge.data import io, sample
from hepbridge.simulate.energies import energies

U = np.array([0.0, 0.25, 0.5, 1.0])


@pytest.mark.parametrize(
    ("text", "mev"),
    [
        ("fixed:35", [35e3, 35e3, 35e3, 35e3]),
        ("uniform:10-100", [10e3, 32.5e3, 55e3, 100e3]),
        ("log:1-10000", [1e3, 1e4, 1e5, 1e7]),
        ("log:1e-1-1e1", [100, 10**2.5, 1e3, 1e4]),
        (" uniform:.5-1. ", [500, 625, 750, 1000]),
    ],
)
def test_quantiles(text: str, mev: list[float]) -> None:
    """Against numbers done by hand; fails if GeV and MeV are mixed up, or log is to base e."""
    assert np.allclose(energies(text).mev(0, U), mev, rtol=1e-12)


@pytest.mark.parametrize("text", ["fixed:35", "uniform:10-100", "log:1e-1-1000"])
def test_canonical_form_reads_back(text: str) -> None:
    assert energies(str(energies(text))) == energies(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("35", "energies '35': write fixed:A or uniform:A-B or log:A-B \\(GeV\\) or file:E.h5"),
        ("gauss:3-4", "write fixed"),
        ("uniform:10", "uniform takes two numbers"),
        ("fixed:10-20", "fixed takes one number"),
        ("uniform:100-10", "from a smaller to a larger"),
        ("uniform:10-10", "from a smaller to a larger"),
        ("fixed:0", "an energy must be positive, not 0 GeV"),
        ("fixed:-5", "an energy must be positive, not -5 GeV"),
        ("uniform:-10-100", "an energy must be positive, not -10 GeV"),
        ("log:0-10", "an energy must be positive"),
        ("fixed:1e400", "inf GeV is more than 100000 GeV"),
        ("fixed:1e6", "1e\\+06 GeV is more than 100000 GeV"),
        ("fixed:nan", "write fixed"),
        ("", "write fixed"),
    ],
)
def test_bad_forms_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        energies(text)


@given(st.text(max_size=30))
def test_any_text_is_energies_or_one_clear_error(text: str) -> None:
    try:
        values = energies(text).mev(0, U)
    except HepbridgeError as error:
        assert str(error)
    else:
        assert (values > 0).all() and np.isfinite(values).all()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    io.save(sample.load("train_full")[:50], tmp_path / "E.h5")
    return tmp_path / "E.h5"


def test_file_gives_its_rows(good: Path) -> None:
    """The energies of a shower file, in any cut."""
    found, truth = energies(f"file:{good}"), io.load(good).incident_energy
    assert found.size == 50
    assert np.array_equal(found.mev(0, np.zeros(50)), truth)
    assert np.array_equal(found.mev(20, np.zeros(7)), truth[20:27])
    assert found.range_gev == (truth.min() / 1000, truth.max() / 1000)


def test_file_is_named_by_its_content(good: Path, tmp_path: Path) -> None:
    good.rename(tmp_path / "elsewhere.h5")
    again = tmp_path / "again.h5"
    io.save(sample.load("train_full")[:50], again)
    assert str(energies(f"file:{tmp_path / 'elsewhere.h5'}")) == str(energies(f"file:{again}"))


def test_file_may_be_in_gev(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "E.h5", "w") as file:
        file["incident_energies"] = np.array([1.0, 2.0])
        file.attrs["units"] = "GeV"
    assert energies(f"file:{tmp_path / 'E.h5'}").mev(0, np.zeros(2)).tolist() == [1e3, 2e3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no dataset 'incident_energies'; the file has: other"),
        ([1.0, -2.0], r"an energy must be positive, not -0.002 GeV \(row 1\)"),
        ([np.nan], r"an energy must be positive, not nan GeV \(row 0\)"),
        ([], "holds no energies"),
        ([[1.0, 2.0]], r"must be numbers of shape \(N,\) or \(N, 1\)"),
        (b"text", "must be numbers"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content, message: str) -> None:
    with h5py.File(tmp_path / "E.h5", "w") as file:
        file["other" if content is None else "incident_energies"] = (
            0 if content is None else content
        )
    with pytest.raises(DataError, match=message):
        energies(f"file:{tmp_path / 'E.h5'}")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file of energies"):
        energies(f"file:{tmp_path / 'none.h5'}")
    (tmp_path / "text.h5").write_text("35\n")
    with pytest.raises(DataError, match="is not a readable HDF5 file"):
        energies(f"file:{tmp_path / 'text.h5'}")
