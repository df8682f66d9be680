"""Samples one after another."""

from __future__ import annotations

import numpy as np
import pytest

from hepbridge.core.errors import DataError
from hepbridge.data import Geometry, sample
from hepbridge.data.join import join
from hepbridge.data.showers import Showers


def test_rows_ids_and_shared_columns_are_kept_in_order() -> None:
    a, b = sample.load("full", 20)[:5], sample.load("full", 50)[:7]
    a.columns["run"], b.columns["run"], b.columns["only_b"] = np.zeros(5), np.ones(7), np.ones(7)
    both = join([a, b])
    assert len(both) == 12
    assert np.array_equal(both.cells[5:], b.cells) and np.array_equal(
        both.event_ids[:5], a.event_ids
    )
    assert np.array_equal(both.columns["run"], np.repeat([0.0, 1.0], [5, 7]))
    assert "only_b" not in both.columns
    assert "source_file" not in both.meta or a.meta["source_file"] == b.meta["source_file"]


def test_missing_weights_count_as_one() -> None:
    a = sample.load("full", 20)[:3]
    b = Showers.from_arrays(a.cells, a.incident_energy, weights=[2.0, 3.0, 4.0])
    assert np.array_equal(join([a, b]).weights, [1, 1, 1, 2, 3, 4])


def test_other_detectors_conditions_and_nothing_are_refused() -> None:
    a = sample.load("full", 20)[:3]
    other = Geometry("other", (100,), ("x",), (1.0,))
    with pytest.raises(DataError, match="their geometries differ"):
        join([a, Showers.from_arrays(a.cells, a.incident_energy, geometry=other)])
    with pytest.raises(DataError, match="their conditions differ"):
        join([a, Showers.from_arrays(a.cells, a.incident_energy, conditions={"angle": [0, 0, 0]})])
    with pytest.raises(DataError, match="no samples"):
        join([])
