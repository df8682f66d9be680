"""Columns of events as normal variables, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from hepbridge.core.errors import DataError
from hepbridge.transforms.event_frame import EventFrame

N = 20_000
RNG = np.random.default_rng(1)
COLUMNS = {
    "skewed": RNG.lognormal(size=N),
    "whole": RNG.poisson(25, N).astype(float),
    "sometimes": np.where(RNG.random(N) < 0.02, np.nan, RNG.uniform(0.1, 0.5, N)),
    "often zero": np.where(RNG.random(N) < 0.3, 0.0, RNG.exponential(size=N)),
}
VALUES = np.stack(list(COLUMNS.values()), axis=1)
UNIFORM = RNG.random((N, 5))


@pytest.fixture(scope="module")
def frame() -> EventFrame:
    made = EventFrame(4)
    made.fit(VALUES, list(COLUMNS))
    return made


@pytest.mark.parametrize("column", range(4), ids=COLUMNS)
def test_columns_become_normal(frame: EventFrame, column: int) -> None:
    """Atoms, whole numbers and undefined values included; fails without the uniform numbers."""
    z = frame(VALUES, UNIFORM)[:, column].numpy()
    assert kstest(z, "norm").statistic < 1.63 / N**0.5  # 1 % of perfect samples of other events


def test_there_and_back(frame: EventFrame) -> None:
    back = frame.inverse(frame(VALUES, UNIFORM))
    np.testing.assert_array_equal(np.isnan(back), np.isnan(VALUES))
    np.testing.assert_array_equal(back[:, 1] == VALUES[:, 1], True)
    spread = np.nanstd(VALUES, axis=0)
    assert (np.nanmean(np.abs(back - VALUES), axis=0) < 1e-3 * spread).all()


def test_new_events_have_the_distribution_of_the_old(frame: EventFrame) -> None:
    z = np.random.default_rng(2).standard_normal((N, 4))
    import torch

    made = frame.inverse(torch.from_numpy(z.astype(np.float32)))
    for column in range(4):
        ours, theirs = made[:, column], VALUES[:, column]
        lost = np.isnan(ours).mean() - np.isnan(theirs).mean()
        assert abs(lost) < 4 * (2 * 0.02 * 0.98 / N) ** 0.5
        error = (np.nanvar(theirs) / N * 2) ** 0.5
        assert abs(np.nanmean(ours) - np.nanmean(theirs)) < 4 * error


def test_values_beyond_are_told_of_and_put_at_the_edge(frame: EventFrame) -> None:
    far = np.array([[1e6, 500.0, 0.9, -3.0], [1.0, 25.0, np.nan, 1.0]])
    np.testing.assert_array_equal(frame.outside(far), [[True] * 4, [False] * 4])
    back = frame.inverse(frame(far, np.full((2, 5), 0.5)))
    low, high = frame.spans()
    assert back[0, 0] == pytest.approx(high[0], rel=1e-6)
    assert back[0, 3] == low[3] == 0.0


def test_features_are_not_random_and_say_what_is_missing(frame: EventFrame) -> None:
    a, b = frame.features(VALUES), frame.features(VALUES)
    assert a.equal(b)
    assert a.shape == (N, frame.n_features) == (N, 5)
    np.testing.assert_array_equal(a[:, 4].numpy() == 1.0, np.isnan(VALUES[:, 2]))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12, unique=True), st.integers(0, 99))
def test_any_column_comes_back(values: list[float], seed: int) -> None:
    """Few values, far apart, any magnitude: all inside the span, and finite."""
    rng = np.random.default_rng(seed)
    column = rng.choice(values, 200)
    if np.ptp(column) == 0:
        return
    made = EventFrame(1, knots=101)
    made.fit(column[:, None], ["a"])
    z = made(column[:, None], rng.random((200, 2)))
    assert z.isfinite().all()
    back = made.inverse(z)[:, 0]
    low, high = made.spans()
    assert ((back >= np.floor(low[0])) & (back <= np.ceil(high[0]))).all()


def test_columns_without_information_are_refused() -> None:
    with pytest.raises(DataError, match=r"column 'a' is 3 in every event"):
        EventFrame(1).fit(np.full((100, 1), 3.0), ["a"])
    few = np.full((100, 1), np.nan)
    few[:10] = np.arange(10)[:, None]
    with pytest.raises(DataError, match=r"only 10 defined values"):
        EventFrame(1).fit(few, ["a"])
