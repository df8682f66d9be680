"""Transforms: calibration and inversion against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from hepbridge.core.errors import DataError
from hepbridge.core.rng import stream
from hepbridge.data import SQUIRELS
from hepbridge.transforms import ConditionalQuantile, ShowerCoordinates, matched


def _sample(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three variables with trends in c: Gaussian, skewed, and one with an atom of known share."""
    rng = stream(seed, "test")
    c = rng.uniform(-1.5, 1.5, n)
    gauss = 2.0 * c + np.exp(0.3 * c) * rng.standard_normal(n)
    skewed = np.log(rng.gamma(2.0 + c, 1.0))
    share = 0.2 + 0.1 * c
    atom = np.where(rng.random(n) < share, -np.inf, rng.standard_normal(n) - c)
    return np.stack([gauss, skewed, atom], axis=1), c


def _fitted(n: int = 20_000) -> ConditionalQuantile:
    transform = ConditionalQuantile([0, 1, 2])
    transform.fit(*_sample(n, 0))
    return transform


def _forward(transform: ConditionalQuantile, x: np.ndarray, c: np.ndarray, seed: int) -> np.ndarray:
    noise = torch.from_numpy(stream(seed, "noise").standard_normal(x.shape)).float()
    return transform(torch.from_numpy(x).float(), torch.from_numpy(c).float(), noise).numpy()


@pytest.mark.parametrize("variable", [0, 1, 2])
@pytest.mark.parametrize("window", [(-1.5, -1.2), (-0.2, 0.2), (1.2, 1.5)])
def test_fresh_data_become_standard_normal_at_every_condition(variable, window) -> None:
    """Mean and width within 5 standard errors; fails if the trend inside a bin is not removed."""
    transform = _fitted()
    x, c = _sample(40_000, 1)
    inside = (c > window[0]) & (c < window[1])
    z = _forward(transform, x[inside], c[inside], 2)[:, variable]
    n = len(z)
    fitted = 20_000 / 48  # the tables themselves rest on about this many showers
    error = (1 / n + 1 / fitted) ** 0.5
    assert abs(z.mean()) < 5 * error
    assert abs(z.std() - 1) < 5 * error / 2**0.5
    assert kstest(z, "norm").statistic < 2.5 * error


def test_the_exact_map_of_a_gaussian_is_found() -> None:
    """z = (x - 2c) / exp(0.3c) in closed form; tolerance from the statistics of the tables."""
    transform = _fitted()
    x, c = _sample(4000, 3)
    truth = (x[:, 0] - 2 * c) / np.exp(0.3 * c)
    core = np.abs(truth) < 2
    found = _forward(transform, x, c, 4)[:, 0]
    assert np.abs(found - truth)[core].mean() < 3 * (48 / 20_000) ** 0.5


def test_inverse_undoes_forward_and_keeps_the_atom() -> None:
    transform = _fitted()
    x, c = _sample(3000, 5)
    z = _forward(transform, x, c, 6)
    back = transform.inverse(torch.from_numpy(z), torch.from_numpy(c).float()).numpy()
    assert ((back == -np.inf) == (x == -np.inf)).mean() > 0.9995  # the edge of the atom is rounded
    both = np.isfinite(x) & np.isfinite(back) & (np.abs(z) < 4)
    assert np.abs(back[both] - x[both]).max() < 5e-3


def test_the_atom_has_its_share_at_every_condition() -> None:
    transform = _fitted()
    rng = stream(7, "test")
    for at in (-1.2, 0.0, 1.2):
        z = torch.from_numpy(rng.standard_normal((40_000, 3))).float()
        y = transform.inverse(z, torch.full((len(z),), at)).numpy()
        share = 0.2 + 0.1 * at
        error = (share * (1 - share) * (1 / 40_000 + 24 / 4 / 20_000)) ** 0.5
        assert abs((y[:, 2] == -np.inf).mean() - share) < 5 * error
        assert np.isfinite(y[:, :2]).all()


def test_an_atom_that_vanishes_quickly_keeps_its_share() -> None:
    """A share that no cubic follows; ten pooled variables, 1,500 values in a window on average."""
    rng = stream(0, "logistic")
    c = rng.uniform(-1.5, 1.5, 12_000)
    share = 1 / (1 + np.exp(8 * (c + 0.9)))
    shape = (len(c), 10)
    x = np.where(rng.random(shape) < share[:, None], -np.inf, rng.standard_normal(shape))
    transform = ConditionalQuantile([0] * 10)
    transform.fit(x, c)
    nodes = np.linspace(-1.5, 1.5, len(transform.atom))
    truth = 1 / (1 + np.exp(8 * (nodes + 0.9)))
    error = np.sqrt(truth * (1 - truth) / (10 * 400))  # of one window; smoothing only helps
    assert np.abs((transform.atom[:, 0].numpy() - truth) / (error + 2e-3)).max() < 5


def test_a_trend_does_not_run_away_where_nothing_is_hit() -> None:
    """Hits at high c, ever narrower; the cubic fitted to them overflowed at low c (a warning)."""
    rng = stream(0, "rare")
    c = rng.uniform(-1.5, 1.5, 12_000)
    hit = rng.random(len(c)) < np.where(c > 1.0, 0.2, 0.002)
    x = np.where(hit, np.exp(-20 * (c - 1.0).clip(0)) * rng.standard_normal(len(c)), -np.inf)
    transform = ConditionalQuantile([0], nodes=9)
    transform.fit(x[:, None], c)
    assert transform.table.abs().max() < 1e3


def test_a_narrow_distribution_is_not_tilted() -> None:
    """The energy sum has a width of 1e-3, so knots that are moved by 1e-6 each move its z."""
    rng = stream(0, "narrow")
    c, x = rng.uniform(-1.5, 1.5, 10_000), -6e-3 + 1e-3 * rng.standard_normal((10_000, 1))
    transform = ConditionalQuantile([0])
    transform.fit(x, c)
    z = _forward(transform, x, c, 1)
    assert abs(z.mean()) < 0.01  # 0.045 before; in-sample, so far below 1 / sqrt(N)
    assert abs(z.std() - 1) < 0.01


def test_pooled_variables_share_one_table() -> None:
    x, c = _sample(5000, 8)
    pooled = ConditionalQuantile([0, 0])
    pooled.fit(x[:, [0, 0]], c)
    single = ConditionalQuantile([0])
    single.fit(x[:, [0]], c)
    assert pooled.table.shape[1] == 1
    middle = (pooled.knots // 4, 3 * pooled.knots // 4)  # far tails depend on the number of values
    a, b = (t.table[:, :, slice(*middle)] for t in (pooled, single))
    assert (a - b).abs().mean() < 1e-2


def test_a_fixed_condition_gives_constant_tables() -> None:
    x, _ = _sample(2000, 9)
    transform = ConditionalQuantile([0, 1, 2])
    transform.fit(x, np.full(len(x), 0.3))
    assert torch.equal(transform.table[0], transform.table[-1])


def test_bad_samples_are_refused() -> None:
    x, c = _sample(200, 10)
    with pytest.raises(DataError, match="at least 50 rows, got 20"):
        ConditionalQuantile([0, 1, 2]).fit(x[:20], c[:20])


def test_a_variable_that_is_never_finite_stays_so() -> None:
    """A dead cell, or a corner that no shower reaches: empty goes to empty, whatever z is."""
    x, c = _sample(500, 10)
    x[:, 1] = -np.inf
    transform = ConditionalQuantile([0, 1, 2])
    transform.fit(x, c)
    condition = torch.from_numpy(c).float()
    noise = torch.from_numpy(stream(0, "dead").standard_normal(x.shape)).float()
    z = transform(torch.from_numpy(x).float(), condition, noise)
    assert z.isfinite().all()
    assert abs(float(z[:, 1].std()) - 1) < 4 / (2 * len(x)) ** 0.5  # spread over all levels
    far = torch.linspace(-12, 12, len(x))[:, None].expand(-1, 3)
    assert (transform.inverse(far, condition)[:, 1] == -torch.inf).all()
    assert matched(transform, z.numpy(), c).atom[:, 1].eq(1).all()


@settings(derandomize=True, max_examples=30, deadline=None)
@given(
    n=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    energy=st.floats(1e2, 1e6),
    rings=st.sampled_from([0 * SQUIRELS.rings(), SQUIRELS.rings()]),
)
def test_coordinates_round_trip(n: int, seed: int, energy: float, rings: np.ndarray) -> None:
    """Cells come back within float32, and empty cells stay exactly empty."""
    rng = stream(seed, "test")
    cells = rng.exponential(energy / 100, (n, 100)) * (rng.random((n, 100)) < 0.5)
    cells[:, 44] += energy
    x, e = torch.from_numpy(cells).float(), torch.full((n,), energy, dtype=torch.float32)
    coordinates = ShowerCoordinates(rings.tolist())
    y = coordinates(x, e)
    assert y.shape == (n, coordinates.dim) == (n, 101 + rings.max())
    back = coordinates.inverse(y, e)
    assert torch.equal(back == 0, x == 0)
    assert torch.allclose(back, x, rtol=1e-3, atol=0)


def test_coordinates_of_one_shower_by_hand() -> None:
    """Four cells in two rings, incident energy 10: cells 1 2 3 0 with rings 0 0 1 1."""
    coordinates = ShowerCoordinates([0, 0, 1, 1])
    y = coordinates(torch.tensor([[1.0, 2.0, 3.0, 0.0]]), torch.tensor([10.0]))
    assert torch.allclose(torch.exp(y), torch.tensor([[0.1, 0.2, 0.3, 0.0, 0.3, 0.6]]))


def test_sum_and_rings_win_over_cells() -> None:
    """Whatever the cells say, the sum and the outer rings come out as their coordinates."""
    coordinates = ShowerCoordinates(SQUIRELS.rings().tolist())
    rng = stream(11, "test")
    y = torch.from_numpy(rng.normal(-4, 1, (500, coordinates.dim))).float()
    y[:, -1] = torch.from_numpy(rng.normal(0, 0.01, 500)).float()
    cells = coordinates.inverse(y, torch.full((500,), 50.0))
    assert torch.allclose(cells.sum(1), 50 * torch.exp(y[:, -1]), rtol=1e-5)
    outer = torch.exp(y[:, 100:-1])
    believed = outer.sum(1) < 0.9 * torch.exp(y[:, -1])
    ring = torch.stack([cells[:, SQUIRELS.rings() == k].sum(1) for k in (1, 2, 3, 4)], dim=1)
    assert torch.allclose(ring[believed], 50 * outer[believed], rtol=1e-4)
    assert (cells >= 0).all()


def test_small_cells_of_a_sparse_ring_stay_where_they_are() -> None:
    """What a ring lacks is added to its largest cell; the small ones move by per mille, and all add up.

    One factor for all, as in dense rings, would be 1.3 for the small cells, too.
    """
    coordinates = ShowerCoordinates([0, 1, 1, 1, 1], dense=1)
    shape = torch.tensor([[1.0, 20.0, 0.5, 0.5, 0.0]])
    rings = torch.tensor([[27.3, 100.0]]) / 100
    cells = coordinates.inverse(torch.log(torch.cat([shape, rings], dim=1)), torch.tensor([100.0]))
    torch.testing.assert_close(cells.sum(), torch.tensor(100.0))
    torch.testing.assert_close(cells[0, 1:].sum(), torch.tensor(27.3))
    assert cells[0, 4] == 0
    assert (cells[0, 2:4] / 0.5 - 1).abs().max() < 0.05


@settings(derandomize=True, max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), dense=st.integers(1, 5), off=st.floats(0.0, 2.0))
def test_sparse_rings_add_up_whatever_the_cells_say(seed: int, dense: int, off: float) -> None:
    rng = stream(seed, "test")
    coordinates = ShowerCoordinates(SQUIRELS.rings().tolist(), dense=dense)
    cells = rng.exponential(1.0, (20, 100)) * (rng.random((20, 100)) < 0.5)
    cells[:, SQUIRELS.rings() == 0] += 1000
    x, e = torch.from_numpy(cells).float(), torch.full((20,), 5e3)
    y = coordinates(x, e)
    torch.testing.assert_close(coordinates.inverse(y, e), x, rtol=1e-3, atol=1e-6)
    y[:, :100] += off * torch.from_numpy(rng.standard_normal((20, 100))).float()
    back = coordinates.inverse(y, e)
    member = torch.nn.functional.one_hot(torch.tensor(SQUIRELS.rings())).float()
    torch.testing.assert_close(back @ member, x @ member, rtol=1e-3, atol=1e-3)
    assert torch.equal(back == 0, x == 0)


def test_a_ring_without_hits_holds_nothing() -> None:
    coordinates = ShowerCoordinates([0, 1, 1])
    y = torch.log(torch.tensor([[0.5, 0.0, 0.0, 0.1, 0.9]]))
    cells = coordinates.inverse(y, torch.tensor([10.0]))
    assert torch.allclose(cells, torch.tensor([[9.0, 0.0, 0.0]]))


def test_a_narrow_variable_is_not_disturbed_by_wide_ones() -> None:
    """Energy sums vary by 1e-3 beside cells that vary by a factor of 1e6.

    Fails if a step that keeps tables increasing is scaled by the widest variable instead of each
    one's own width: that shifted the energy sum by a tenth of its width.
    """
    rng = stream(12, "test")
    c = rng.uniform(-1.5, 1.5, 20_000)
    narrow = -0.005 + 1e-3 * rng.standard_normal(len(c))
    wide = -15 + 4 * rng.standard_normal(len(c))
    transform = ConditionalQuantile([0, 1])
    transform.fit(np.stack([narrow, wide], axis=1), c)
    z = torch.linspace(-2.5, 2.5, 101)[:, None].expand(-1, 2)
    found = transform.inverse(z, torch.zeros(101))[:, 0].numpy()
    truth = -0.005 + 1e-3 * z[:, 0].numpy()
    error = (
        1e-3 * (48 / 20_000) ** 0.5
    )  # of a quantile from the rows of one window, near the middle
    assert abs((found - truth).mean()) < 3 * error
