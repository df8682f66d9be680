"""Looked-up quantile transforms against a slow search, row by row, in double precision."""

from __future__ import annotations

import copy
from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri

from hepbridge.core.rng import stream
from hepbridge.transforms import ConditionalQuantile, lookup

KNOTS, NODES = 91, 9
GROUPS = [0, 1, 2, 1, 3]
Z = np.linspace(-4.5, 4.5, KNOTS)
LOW, HIGH = -1.6, 1.7


@lru_cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """y (nodes, g, knots) and p0 (nodes, g): moving, stretching, skewed, and with atoms."""
    c = np.linspace(LOW, HIGH, NODES)[:, None]
    y = [
        2 * c + np.exp(0.3 * c) * Z,
        -8 + c + 2 * np.sinh(0.5 * Z + 0.2 * c * np.tanh(Z)),
        -1 + 0.2 * c + 0.01 * Z,
        np.log1p(np.exp(Z * (1 + 0.2 * np.sin(c)))) + 0.5 * c**2,
    ]
    p0 = [0 * c, 0.4 + 0.2 * c, 0 * c, 0.9 + 0.05 * np.cos(c)]
    return np.stack(np.broadcast_arrays(*y), axis=1), np.concatenate(p0, axis=1)


def _set(transform: ConditionalQuantile, shift: float = 0.0) -> ConditionalQuantile:
    y, p0 = _tables()
    state = {
        "groups": torch.tensor(GROUPS),
        "table": torch.from_numpy(y + shift).float(),
        "atom": torch.from_numpy(p0).float(),
        "range": torch.tensor([LOW, HIGH]),
    }
    transform.load_state_dict(state)
    return transform


@pytest.fixture
def transform() -> ConditionalQuantile:
    return _set(ConditionalQuantile(GROUPS, knots=KNOTS, nodes=NODES))


def _at(c: float) -> tuple[np.ndarray, np.ndarray]:
    """The tables (g, knots) and atoms (g,) interpolated to c."""
    y, p0 = _tables()
    position = np.clip((c - LOW) / (HIGH - LOW), 0, 1) * (NODES - 1)
    k = min(int(position), NODES - 2)
    w = position - k
    return (1 - w) * y[k] + w * y[k + 1], (1 - w) * p0[k] + w * p0[k + 1]


def _linear(x: float, xs: np.ndarray, ys: np.ndarray) -> float:
    """np.interp, continued linearly."""
    k = int(np.clip(np.searchsorted(xs, x) - 1, 0, len(xs) - 2))
    return float(ys[k] + (x - xs[k]) * (ys[k + 1] - ys[k]) / (xs[k + 1] - xs[k]))


def _slow_forward(values: np.ndarray, c: np.ndarray, noise: np.ndarray) -> np.ndarray:
    out = np.empty(values.shape)
    for i, row in enumerate(values):
        table, p0 = _at(c[i])
        for j, g in enumerate(GROUPS):
            if row[j] == -np.inf:
                u = p0[g] * ndtr(noise[i, j])
            else:
                u = p0[g] + (1 - p0[g]) * ndtr(_linear(row[j], table[g], Z))
            out[i, j] = ndtri(np.clip(u, 1e-6, 1 - 1e-6))
    return out


def _slow_inverse(z: np.ndarray, c: np.ndarray) -> np.ndarray:
    out = np.full(z.shape, -np.inf)
    for i, row in enumerate(z):
        table, p0 = _at(c[i])
        for j, g in enumerate(GROUPS):
            share = (ndtr(row[j]) - p0[g]) / (1 - p0[g])
            if share > 0:
                out[i, j] = _linear(ndtri(np.clip(share, 1e-6, 1 - 1e-6)), Z, table[g])
    return out


def _rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Conditions, also beyond both ends, normal z, and noise, all exactly float32."""
    rng = stream(seed, "lookup")
    c = rng.uniform(LOW - 0.2, HIGH + 0.2, n)
    z, noise = rng.standard_normal((2, n, len(GROUPS)))
    return tuple(a.astype(np.float32).astype(np.float64) for a in (c, z, noise))


def _torch(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(a).float() for a in arrays]


@pytest.mark.parametrize(("largest", "intervals"), [(2**26, 384), (200_000, 72)])
def test_forward_is_the_slow_search(
    transform: ConditionalQuantile,
    monkeypatch: pytest.MonkeyPatch,
    largest: int,
    intervals: int,
) -> None:
    """Below 1e-3 root mean square and 0.01 at most; fails without interpolation between nodes.

    The second table may not be larger than 0.8 MB, and both are made of three groups at a time.
    """
    monkeypatch.setattr(lookup, "_LARGEST", largest)
    monkeypatch.setattr(lookup, "_AT_ONCE", 3)
    c, z, noise = _rows(1500, 1)
    values = _slow_inverse(z, c).astype(np.float32).astype(np.float64)
    assert 0.05 < np.isinf(values).mean() < 0.5
    found = transform(*_torch(values, c, noise)).numpy()
    assert transform._forward is not None
    assert transform._forward.table.last == intervals
    assert transform._forward.table.flat.numel() <= largest + 4 * 642
    error = found - _slow_forward(values, c, noise)
    assert np.sqrt((error**2).mean(axis=0)).max() < 1e-3
    assert np.abs(error).max() < 0.01


def test_inverse_is_the_slow_formula(transform: ConditionalQuantile) -> None:
    """Within float32: z is resolved to 1e-4 of its unit, 5e-4 in the far tails."""
    c, z, _ = _rows(1500, 2)
    truth = _slow_inverse(z, c)
    found = transform.inverse(*_torch(z, c)).numpy()
    share = np.stack([ndtr(row) - _at(k)[1][GROUPS] for row, k in zip(z, c, strict=True)])
    clear = np.abs(share) > 1e-6  # at the edge of the atom rounding decides
    assert np.array_equal(np.isinf(found)[clear], np.isinf(truth)[clear])
    hit = np.isfinite(found) & np.isfinite(truth) & (share > 1e-3)
    slope = np.array([2.0, 4.0, 0.01, 4.0, 1.5])[None].repeat(len(z), 0)[hit]
    assert hit.mean() > 0.6
    assert (np.abs(found[hit] - truth[hit]) < 1e-3 * slope).all()


def test_without_an_atom_the_far_tail_is_exact(transform: ConditionalQuantile) -> None:
    """To float32 at all z; by way of probabilities it was 5e-4 at z = 4.5, 1.5e-5 of a shower's energy."""
    z = np.linspace(-4.7, 4.7, 377).astype(np.float32).astype(np.float64)[:, None].repeat(5, 1)
    c = np.full(len(z), 0.25)
    sure = [0, 2]  # variables without an atom
    found = transform.inverse(*_torch(z, c)).numpy()[:, sure]
    assert np.abs(found - _slow_inverse(z, c)[:, sure]).max() < 5e-6


def test_far_values_end_where_probabilities_do(transform: ConditionalQuantile) -> None:
    values = torch.tensor([[1e4] * 5, [-1e4] * 5])
    z = transform(values, torch.zeros(2), torch.zeros(2, 5))
    most = float(ndtri(1 - 1e-6))
    assert torch.allclose(z[0], torch.tensor(most), atol=1e-3)
    assert torch.allclose(z[1, [0, 2]], torch.tensor(-most), atol=1e-3)
    p0 = torch.from_numpy(_at(0.0)[1][[1, 3]]).float()
    assert torch.allclose(torch.special.ndtr(z[1, [1, 4]]), p0, atol=1e-4)
    back = transform.inverse(torch.tensor([[-9.0] * 5, [9.0] * 5]), torch.zeros(2))
    assert torch.isfinite(back[1]).all()
    assert torch.equal(torch.isinf(back[0]), torch.tensor([False, True, False, True, True]))


def test_forward_rises_at_every_condition(transform: ConditionalQuantile) -> None:
    y = torch.linspace(-12, 6, 20_001)[:, None].expand(-1, 5)
    for at in (LOW, -0.73, 0.01, HIGH):
        z = transform(y, torch.full((len(y),), at), torch.zeros_like(y))
        assert (z.diff(dim=0) > -1e-5).all()


def test_new_tables_are_used_and_moved(transform: ConditionalQuantile) -> None:
    """What is computed from the tables at the first use follows them: loading, copies, devices."""
    x, c = torch.zeros(4, 5), torch.zeros(4)
    first, back = transform(x, c, x), transform.inverse(x, c)
    again = copy.deepcopy(transform)
    assert torch.equal(again(x, c, x), first)
    _set(transform, shift=1.0)
    assert torch.allclose(transform(x + 1, c, x), first, atol=1e-4)
    assert torch.allclose(transform.inverse(x, c), back + 1, atol=1e-4)
    assert torch.equal(again(x, c, x), first)
    assert again.double()(x.double(), c.double(), x.double()).dtype is torch.float64
    assert set(transform.state_dict()) == {"groups", "table", "atom", "range"}


@pytest.mark.parametrize(("knots", "nodes"), [(3, 2), (21, 5), (501, 300)])
def test_any_number_of_knots_and_nodes(knots: int, nodes: int) -> None:
    """A Gaussian of fixed width: both ways are exact, whatever the tables' size."""
    transform = ConditionalQuantile([0], knots=knots, nodes=nodes)
    y = torch.linspace(-4.5, 4.5, knots).expand(nodes, 1, -1)
    at = torch.linspace(0, 1, nodes)[:, None, None]
    groups = torch.tensor([0])
    transform.load_state_dict(
        {"groups": groups, "table": y + at, "atom": 0 * at[..., 0], "range": torch.tensor([0.0, 1])}
    )
    z, c = torch.linspace(-4, 4, 101)[:, None], torch.linspace(0, 1, 101)
    assert torch.allclose(transform(z + c[:, None], c, z), z, atol=2e-3)
    assert torch.allclose(transform.inverse(z, c), z + c[:, None], atol=2e-3)
