"""Tables at the ends of the condition, where a window lies on one side of its node."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from hepbridge.transforms import quantile_tables
from hepbridge.transforms.quantile_tables import fit_tables

N, CELLS, NODES = 4_000, 40, 49
Z = np.linspace(-4.5, 4.5, 91)


def fitted(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies from 10 to 100, empty with logit -1.5 - 0.6 c, else y = c + noise: table, fractions, nodes."""
    rng = np.random.default_rng(seed)
    energy = rng.uniform(10, 100, N)
    c = (np.log(energy) - 3.9) / 0.6
    y = c[:, None] + 0.5 * rng.standard_normal((N, CELLS))
    y[rng.random((N, CELLS)) < expit(-1.5 - 0.6 * c)[:, None]] = -np.inf
    groups = np.zeros(CELLS, dtype=np.int64)
    table, atom, (low, high) = fit_tables(y, c, groups, Z, nodes=NODES, degree=3)
    return table[:, 0], atom[:, 0], np.linspace(low, high, NODES)


def bias(seeds: range) -> tuple[float, float]:
    """Mean difference from the true fraction at the lowest node, and its standard error."""
    found = []
    for seed in seeds:
        _, atom, nodes = fitted(seed)
        found.append(atom[0] - expit(-1.5 - 0.6 * nodes[0]))
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(len(found)))


def test_windows_at_the_ends_do_not_stand_for_their_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fraction changes by 0.09 from the node to the middle of its window: nothing of that is left."""
    left, error = bias(range(8))
    smoother = quantile_tables._smoother
    monkeypatch.setattr(
        quantile_tables, "_smoother", lambda grid, _, width: smoother(grid, grid, width)
    )
    planted, planted_error = bias(range(8))
    assert planted < -0.05 - 3 * planted_error
    assert abs(left) < 0.005 + 4 * error


def test_windows_that_are_nearly_one_give_nearly_one_table() -> None:
    """With 420 rows all windows share most of them: no extrapolation from that to the ends."""
    rng = np.random.default_rng(3)
    c = rng.uniform(-2, 2, 420)
    y = rng.standard_normal((420, 1)) + 0.0 * c[:, None]
    table, atom, _ = fit_tables(y, c, np.zeros(1, dtype=np.int64), Z, nodes=NODES, degree=0)
    level = Z[20:71]
    assert np.abs(table[:, 0, 20:71] - level).max() < 0.6
    assert np.all(atom == 0)


def test_smoothing_keeps_parabolas() -> None:
    """Local quadratic regression is exact for them, inside and at the ends, from centres anywhere."""
    rng = np.random.default_rng(4)
    grid = np.linspace(-2, 2, NODES)
    centres = np.clip(grid + rng.uniform(-0.1, 0.1, NODES), -1.95, 1.95)
    parabola = lambda x: 1 - 2 * x + 0.7 * x**2  # noqa: E731
    for width in (0.6, 1.6, 4.0):
        made = quantile_tables._smoother(grid, centres, width) @ parabola(centres)
        np.testing.assert_allclose(made, parabola(grid), atol=1e-9)


def test_constant_condition_gives_the_mean() -> None:
    grid = np.linspace(-0.5, 0.5, NODES)
    matrix = quantile_tables._smoother(grid, np.zeros(NODES), 0.6)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(matrix, 1 / NODES, atol=1e-9)
