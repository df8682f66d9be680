"""The readout stage: noise, threshold, saturation, dead cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data import DeadCells, Geometry, Noise, Readout, Saturation, Showers, Threshold

GRID = Geometry("grid", (10,), ("x",), (1.0,))


def make(n: int = 4, value: float | None = None) -> Showers:
    cells = np.tile(np.arange(1.0, 11.0), (n, 1)) if value is None else np.full((n, 10), value)
    return Showers.from_arrays(cells, np.full(n, 1e4), geometry=GRID)


def apply(stages: list, showers: Showers | None = None, seed: int = 0) -> np.ndarray:
    return Readout(stages).apply(make() if showers is None else showers, seed).cells


def test_stages_one_by_one() -> None:
    assert apply([Threshold(3.0)])[0].tolist() == [0, 0, 3, 4, 5, 6, 7, 8, 9, 10]
    assert apply([Saturation(3.0)])[0].tolist() == [1, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    assert apply([DeadCells([0, 9])])[0].tolist() == [0, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert apply([])[0].tolist() == list(range(1, 11))


def test_stages_act_in_order() -> None:
    assert apply([Saturation(3.0), Threshold(3.5)]).max() == 0
    assert apply([Threshold(3.5), Saturation(3.0)])[0].tolist() == [0, 0, 0, 3, 3, 3, 3, 3, 3, 3]


def test_noise_has_its_width_and_is_independent() -> None:
    """100,000 numbers of N(1000, 2): mean and width within 4 standard errors."""
    noise = apply([Noise(2.0)], make(10_000, 1000.0)).astype(float) - 1000
    n = noise.size
    assert abs(noise.mean()) < 4 * 2 / np.sqrt(n)
    assert abs(noise.std() - 2) < 4 * 2 / np.sqrt(2 * n)
    correlation = np.corrcoef(noise.T) - np.eye(10)
    assert np.abs(correlation).max() < 5 / np.sqrt(10_000)


def test_noise_alone_is_clipped_at_zero() -> None:
    """Documented bias: an empty cell shows sigma / sqrt(2 pi) on average."""
    cells = apply([Noise(2.0)], make(10_000, 1e-9)).astype(float)
    assert cells.min() == 0
    width = 2 * np.sqrt(0.5 - 0.5 / np.pi)
    assert abs(cells.mean() - 2 / np.sqrt(2 * np.pi)) < 4 * width / np.sqrt(cells.size)
    assert np.mean(apply([Noise(2.0), Threshold(8.0)], make(10_000, 1e-9)) > 0) < 2e-4


def test_noise_belongs_to_the_event() -> None:
    """Fails if the noise depends on order, block or data set instead of the event id."""
    showers, readout = make(6), Readout([Noise(0.5), Noise(0.5)])
    whole = readout.apply(showers, 7).cells
    rows = np.array([5, 1, 3])
    assert np.array_equal(readout.apply(showers[rows], 7).cells, whole[rows])
    assert not np.array_equal(readout.apply(showers, 8).cells, whole)
    assert not np.allclose(
        whole - showers.cells, 2 * (apply([Noise(0.5)], showers, 7) - showers.cells)
    )
    changed = showers.with_cells(showers.cells * 2)
    assert np.allclose(
        readout.apply(changed, 7).cells - changed.cells, whole - showers.cells, atol=1e-5
    )


def test_what_was_applied_is_in_the_provenance() -> None:
    readout = Readout([Threshold(1.0)])
    seen = readout.apply(make(), 3)
    assert Readout.from_dict(seen.meta["readout"]) == readout
    assert seen.meta["readout_seed"] == 3


POSITIVE = st.floats(0, 1e6)
STAGE = st.one_of(
    st.builds(Noise, POSITIVE),
    st.builds(Threshold, POSITIVE),
    st.builds(Saturation, POSITIVE),
    st.builds(DeadCells, st.lists(st.integers(0, 9))),
)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.lists(STAGE, max_size=4))
def test_any_readout_comes_back_and_gives_valid_cells(stages: list) -> None:
    readout = Readout(stages)
    assert Readout.from_dict(readout.to_dict()) == readout
    cells = readout.apply(make(), 0).cells
    assert np.isfinite(cells).all() and (cells >= 0).all() and cells.dtype == np.float32


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "not a readout"),
        ({"stages": 3}, "not a readout"),
        ({"stages": [{"kind": "gain"}]}, "stage 'gain' is unknown; allowed: noise, threshold, sat"),
        ({"stages": [{"kind": "noise"}]}, "stage 'noise' cannot be made of {}"),
        (
            {"stages": [{"kind": "noise", "sigma_mev": -1}]},
            "sigma_mev must be a number of MeV >= 0, got -1",
        ),
        ({"stages": [{"kind": "threshold", "mev": float("nan")}]}, "mev must be a number"),
        ({"stages": [{"kind": "saturation", "mev": "a"}]}, "got 'a'"),
        (
            {"stages": [{"kind": "dead_cells", "indices": [-1]}]},
            r"indices must be >= 0, got \(-1,\)",
        ),
        ({"stages": [{"kind": "dead_cells", "indices": 3}]}, "'dead_cells' cannot be made of"),
    ],
)
def test_bad_records(record: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Readout.from_dict(record)


def test_dead_cell_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"there is no cell 10; the showers have cells 0 … 9"):
        apply([DeadCells([10])])
