"""Frames of layered showers: sums, shares and back, against slow loops and by properties."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm

import generation_toys as toy
from hepbridge.core.rng import stream
from hepbridge.data import sample
from hepbridge.data.showers import Showers
from hepbridge.transforms.layer_sums import LayerSums
from hepbridge.transforms.logit_frame import LogitFrame
from hepbridge.transforms.quantile_frame import QuantileFrame


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(stream(seed, "test").standard_normal(shape)).float()


def groups(showers: Showers) -> list[int]:
    return list(showers.geometry.orbits())


def sizes(showers: Showers) -> list[int]:
    return [layer.cells.n_cells for layer in showers.geometry.planes()]


@pytest.fixture(scope="module", params=["sample", "toy"])
def showers(request: pytest.FixtureRequest) -> Showers:
    """Real showers of one layer of 10 x 10 cells, or the toy's of 16 + 4 + 4."""
    return some(request.param)


def some(name: str) -> Showers:
    return sample.load("train_full")[:800] if name == "sample" else toy.truth(800)


def quantile(showers: Showers, *, shares: bool, **options: object) -> QuantileFrame:
    reference = toy.REFERENCE if len(sizes(showers)) > 1 else 0
    frame = QuantileFrame(
        sizes(showers),
        groups(showers),
        reference=reference,
        shares=shares,
        **{**toy.TABLES, **options},
    )
    cells, energy, c = toy.tensors(showers)
    frame.fit(cells, energy, c, np.zeros(0))
    return frame


# -- layer sums ---------------------------------------------------------------------------------


@st.composite
def layered(draw: st.DrawFn) -> tuple[LayerSums, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Layers of any sizes; cells with many zeros; sums with zeros; ranks."""
    widths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    n, d = 6, sum(widths)
    cells = 10.0 ** rng.uniform(-3, 4, (n, d)) * (rng.uniform(size=(n, d)) < draw(st.floats(0, 1)))
    sums = 10.0 ** rng.uniform(-3, 5, (n, len(widths))) * (rng.uniform(size=(n, len(widths))) < 0.7)
    sums[:, 0] += 1.0
    rank = rng.standard_normal((n, d))
    frame = LayerSums(widths, draw(st.integers(0, len(widths) - 1)))
    return frame, *(torch.from_numpy(a).float() for a in (cells, sums, rank))


@given(layered(), st.sampled_from([0.0, 1e-3, 10.0]))
def test_filled_layers_have_their_sums_exactly(case, threshold: float) -> None:
    """Whatever the cells were: none, one, all below the threshold. Empty layers stay empty."""
    frame, cells, sums, rank = case
    out = frame.fill(cells, sums, rank, threshold)
    assert (out >= 0).all()
    assert torch.allclose(frame.sums(out), sums, rtol=1e-5, atol=0)
    for row, values in enumerate(out):
        for layer, part in enumerate(values.split(frame.sizes)):
            hit = part[part > 0]
            if sums[row, layer] == 0:
                assert len(hit) == 0
            else:  # above the threshold, or the one cell of the largest rank
                ranks = rank[row].split(frame.sizes)[layer]
                assert (hit > threshold * (1 - 1e-5)).all() or (
                    len(hit) == 1 and part[ranks.argmax()] == hit
                )


@given(layered())
def test_filling_changes_no_proportion_above_the_threshold(case) -> None:
    frame, cells, sums, rank = case
    out = frame.fill(cells, sums, rank, 0.0)
    for row in range(len(cells)):
        parts = zip(
            cells[row].split(frame.sizes), out[row].split(frame.sizes), sums[row], strict=True
        )
        for before, after, total in parts:
            if total > 0 and before.sum() > 0:
                expected = before / before.sum() * total
                assert torch.allclose(after, expected, rtol=1e-4)


@given(layered())
def test_coordinates_of_layers_against_a_loop(case) -> None:
    frame, _, sums, _ = case
    energy = torch.full((len(sums),), 500.0)
    y = frame(sums, energy)
    r = frame.reference
    for row, values in enumerate(sums.double().tolist()):
        least = max(values[r], 1e-6 * sum(values))
        others = [e / least for k, e in enumerate(values) if k != r]
        expected = [math.log(sum(values) / 500.0)]
        expected += [math.log(x) if x > 0 else -math.inf for x in others]
        assert y[row].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)
    hit = sums[:, r] > 1e-6 * sums.sum(dim=1)
    back = frame.inverse(y, energy)
    assert torch.allclose(back[hit], sums[hit], rtol=1e-4, atol=0)
    assert torch.allclose(back.sum(dim=1), sums.sum(dim=1), rtol=1e-5)


# -- the frame of quantile tables ---------------------------------------------------------------


@pytest.mark.parametrize("shares", [False, True])
def test_quantile_frame_comes_back(showers: Showers, shares: bool) -> None:
    """To normal space and back: zeros exactly, energies as well as the tables are looked up."""
    frame = quantile(showers, shares=shares)
    cells, energy, c = toy.tensors(showers)
    z = frame(cells, energy, c, normal(len(cells), len(frame.sums.sizes) + cells.shape[1]))
    back = frame.inverse(*z, energy, c)
    assert torch.equal(back > 0, cells > 0)
    hit = cells > 0
    off = (torch.log(back[hit]) - torch.log(cells[hit])).abs()
    assert off.median() < 2e-3 and off.quantile(0.999) < 0.1
    ratio = frame.sums.sums(back) / frame.sums.sums(cells)
    assert (ratio[ratio.isfinite()] - 1).abs().quantile(0.99) < 0.02


@pytest.mark.parametrize(("name", "shares"), [("sample", True), ("toy", True), ("toy", False)])
def test_every_coordinate_of_the_quantile_frame_is_normal(name: str, shares: bool) -> None:
    """Kolmogorov-Smirnov on the training showers, at every coordinate; atoms are spread.

    Energies of real core cells, which follow the incident energy, would need more showers."""
    showers = some(name)
    frame = quantile(showers, shares=shares, knots=91, nodes=9)
    cells, energy, c = toy.tensors(showers)
    noise = normal(len(cells), len(frame.sums.sizes) + cells.shape[1])
    z = torch.cat(frame(cells, energy, c, noise), dim=1).double().numpy()
    p = np.array([kstest(column, norm.cdf).pvalue for column in z.T])
    assert p.min() > 1e-3 / len(p)


def test_layer_energies_are_those_of_the_layer_coordinates(showers: Showers) -> None:
    """Cells drawn at random: their sums are what the layers alone say. Both frames."""
    cells, energy, c = toy.tensors(showers)
    n = len(sizes(showers))
    logits = LogitFrame(sizes(showers), groups(showers), threshold=0.0)
    frames = [quantile(showers, shares=True), logits]
    frames[1].fit(cells, energy, c, normal(len(cells), n + cells.shape[1]).double().numpy())
    for frame in frames:
        z, one, other = normal(800, n, seed=1), *(normal(*cells.shape, seed=k) for k in (2, 3))
        first, second = (frame.inverse(z, x, energy, c) for x in (one, other))
        assert not torch.allclose(first, second, rtol=0.1)
        assert torch.allclose(frame.sums.sums(first), frame.sums.sums(second), rtol=1e-4, atol=1e-6)
    layers = frames[0].sums.inverse(frames[0].of_layers.inverse(z, c), energy)
    assert torch.allclose(
        frames[0].sums.sums(frames[0].inverse(z, one, energy, c)), layers, rtol=1e-5
    )


def test_a_cell_that_was_never_hit_stays_empty() -> None:
    showers = toy.truth(400)
    showers.cells[:, 3] = 0.0
    showers.cells[:, 20:] = 0.0  # a whole layer
    for shares in (False, True):
        frame = QuantileFrame(
            toy.SIZES, list(range(24)), reference=1, shares=shares, knots=9, nodes=3
        )
        cells, energy, c = toy.tensors(showers)
        frame.fit(cells, energy, c, np.zeros(0))
        z = frame(cells, energy, c, normal(400, 27))
        assert all(part.isfinite().all() for part in z)
        made = frame.inverse(normal(400, 3), normal(400, 24, seed=1), energy, c)
        assert not made[:, 3].any() and not made[:, 20:].any()
        assert made[:, :3].any() and made.isfinite().all()


# -- the frame of logits ------------------------------------------------------------------------


def slow_logits(
    cells: np.ndarray, energy: np.ndarray, noise: np.ndarray, frame: LogitFrame
) -> np.ndarray:
    """Equations (2.5) to (2.10) of arXiv:2106.05285, number by number."""
    out, alpha, widths = [], frame.alpha, frame.sums.sizes
    starts = np.cumsum([0, *widths])
    for row, values in enumerate(cells.astype(float)):
        e = values + frame.noise_mev * norm.cdf(noise[row, len(widths) :])
        layer = [e[a:b].sum() for a, b in pairwise(starts)]
        u = [sum(layer) / (float(frame.response) * energy[row])]
        for k in range(len(widths) - 1):
            u.append(layer[k] / sum(layer[k:]))
        for k, (a, b) in enumerate(pairwise(starts)):
            u += [x / layer[k] for x in e[a:b]]
        x = [alpha + (1 - 2 * alpha) * v for v in u]
        out.append([math.log(v / (1 - v)) for v in x])
    return np.array(out)


def test_logits_against_a_slow_loop(showers: Showers) -> None:
    """Also their standardisation: cells of a ring share mean and width."""
    some = showers[:200]
    cells, energy, c = toy.tensors(some)
    widths, labels = sizes(some), np.array(groups(some))
    n = len(widths)
    frame = LogitFrame(widths, list(labels), alpha=1e-5, noise_mev=0.5)
    noise = normal(200, n + cells.shape[1]).double().numpy()
    frame.fit(cells, energy, c, noise)
    e = some.cells.astype(float) + 0.5 * norm.cdf(noise[:, n:])
    assert float(frame.response) == pytest.approx(
        1.05 * (e.sum(axis=1) / some.incident_energy).max(), rel=1e-5
    )
    expected = slow_logits(some.cells, some.incident_energy, noise, frame)
    for label in range(labels.max() + 1):
        columns = np.flatnonzero(labels == label) + n
        expected[:, columns] -= expected[:, columns].mean()
        expected[:, columns] /= expected[:, columns].std()
    if n == 1:  # the only layer holds everything: a constant, up to rounding
        expected[:, 0] = (expected[:, 0] - expected[:, 0].mean()) / expected[:, 0].std()
    else:
        expected[:, :n] -= expected[:, :n].mean(axis=0)
        expected[:, :n] /= expected[:, :n].std(axis=0)
    found = torch.cat(frame(cells, energy, c, torch.from_numpy(noise).float()), dim=1).numpy()
    assert np.abs(found - expected).max() < 5e-3
    assert np.abs(found - expected).mean() < 2e-4


def test_logit_frame_comes_back(showers: Showers) -> None:
    """Up to the noise that was added, what alpha cuts off, and the threshold."""
    cells, energy, c = toy.tensors(showers)
    n = len(sizes(showers))
    frame = LogitFrame(sizes(showers), groups(showers), alpha=1e-6, noise_mev=1e-3, threshold=0.01)
    noise = normal(len(cells), n + cells.shape[1])
    frame.fit(cells, energy, c, noise.double().numpy())
    back = frame.inverse(*frame(cells, energy, c, noise), energy, c)
    sums = frame.sums.sums(cells).index_select(1, frame.sums.layers)
    assert ((back > 0) == (cells > 0))[cells.sub(0.01).abs() > 5e-3 + 3e-6 * sums].all()
    assert ((back - cells).abs() <= 5e-3 + 1e-5 * sums + 1e-4 * cells).all()


def test_layers_that_held_only_noise_come_back_empty() -> None:
    """96 cells of noise of 0.001 MeV add up to fifty thresholds, and must not become a hit."""
    frame = LogitFrame([96, 4], [0] * 96 + [1] * 4)
    cells = torch.cat([torch.zeros(300, 96), 100 + 10 * normal(300, 4).abs()], dim=1)
    cells[::3, :96] = 0.5 * normal(300, 96, seed=1).abs()[::3]
    energy, noise = torch.full((300,), 1000.0), normal(300, 102, seed=2)
    frame.fit(cells, energy, torch.log(energy), noise.double().numpy())
    z = frame(cells, energy, torch.log(energy), noise)
    back = frame.inverse(*z, energy, torch.log(energy))
    empty = cells[:, :96].sum(dim=1) == 0
    assert empty.sum() == 200
    assert not back[empty, :96].any() and back[~empty, :96].any(dim=1).all()
    assert ((back - cells).abs() <= 3e-3 + 1e-3 * cells).all()


@given(st.integers(0, 2**31))
def test_any_logits_are_showers(seed: int) -> None:
    """Far outside what was seen: finite, positive, not more than the response allows."""
    frame = LogitFrame(toy.SIZES, list(range(24)))
    energy = torch.full((8,), 1000.0)
    z = 30 * normal(8, 27, seed=seed)
    out = frame.inverse(z[:, :3], z[:, 3:], energy, torch.log(energy))
    assert out.isfinite().all() and (out >= 0).all()
    assert (out.sum(dim=1) <= 1000.0 * (1 + 1e-5)).all()
