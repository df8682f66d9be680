"""High-level features, histograms and separations of the CaloChallenge, against slow loops."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data import Geometry
from hepbridge.data.binning_xml import Binning, read_binning, write_binning
from hepbridge.data.cells import CellLayer, PolarCells, XYCells
from hepbridge.metrics.protocols.challenge_data import DATASETS, challenge_data, of_binning
from hepbridge.metrics.protocols.histograms import chi2, expected_separation, fill, separation
from hepbridge.metrics.protocols.published import published, rank
from hepbridge.metrics.protocols.shower_features import FeatureMaker
from hepbridge.simulate.detector import load_detector

GEOMETRY = Geometry.of_layers(
    "three",
    [
        CellLayer(PolarCells(r_mm=(0, 5, 20), n_phi=1)),
        CellLayer(PolarCells(r_mm=(0, 2, 7, 10), n_phi=4)),
        CellLayer(PolarCells(r_mm=(0, 10), n_phi=6)),
    ],
    "Dn",
)


def cells_of_layers() -> list[list[tuple[float, float]]]:
    """(r, α) of the middle of every cell, in the order of the challenge: r fastest, α from -π."""
    out = []
    for edges, n in (((0, 5, 20), 1), ((0, 2, 7, 10), 4), ((0, 10), 6)):
        layer = []
        for k in range(n):
            for low, high in pairwise(edges):
                layer.append(((low + high) / 2, -math.pi + (k + 0.5) * 2 * math.pi / n))
        out.append(layer)
    return out


def slow_features(shower: list[float]) -> dict[str, list[float]]:
    """The definitions of the challenge, one cell after another."""
    found: dict[str, list[float]] = {}
    first = 0
    for layer in cells_of_layers():
        energies = shower[first : first + len(layer)]
        first += len(layer)
        total = sum(energies)
        found.setdefault("e_layer", []).append(total)
        empty = sum(1 for e in energies if not e > 0)
        found.setdefault("sparsity", []).append(empty / len(energies))
        axes = {"r": [r for r, _ in layer]}
        if len({a for _, a in layer}) > 1:
            axes["eta"] = [r * math.cos(a) for r, a in layer]
            axes["phi"] = [r * math.sin(a) for r, a in layer]
        for axis, places in axes.items():
            mean = sum(e * x for e, x in zip(energies, places, strict=True)) / (total + 1e-16)
            square = sum(e * x * x for e, x in zip(energies, places, strict=True))
            width = math.sqrt(max(square / (total + 1e-16) - mean**2, 0.0))
            found.setdefault(f"ec_{axis}", []).append(mean)
            found.setdefault(f"width_{axis}", []).append(width)
    return found


def some_showers(n: int = 7) -> np.ndarray:
    rng = np.random.default_rng(3)
    cells = rng.exponential(50.0, (n, GEOMETRY.n_cells)) * (rng.random((n, GEOMETRY.n_cells)) < 0.6)
    cells[2, GEOMETRY.layer_index == 1] = 0.0  # a shower with an empty layer
    cells[3] = 0.0
    return cells.astype(np.float32)


def test_features_against_a_loop_over_cells() -> None:
    """Fails if a layer or two cells are exchanged, for r as the slow axis, or α from 0."""
    cells = some_showers()
    found = FeatureMaker(GEOMETRY)(cells, np.full(len(cells), 1e4))
    for i, shower in enumerate(cells):
        slow = slow_features([float(e) for e in shower])
        assert found.e_tot[i] == pytest.approx(sum(slow["e_layer"]), rel=1e-12)
        for name, values in slow.items():
            # a width is a root of a difference of squares of up to 20 mm: 1e-16 · 400 under it
            assert found.layers[name][i] == pytest.approx(values, rel=1e-9, abs=1e-6), name
    assert set(found.layers) == set(slow)


def test_table_is_that_of_the_high_level_classifier() -> None:
    """Columns in the challenge's order, 362 for data sets 2 and 3, 30 and 46 for data set 1."""
    cells = some_showers()
    f = FeatureMaker(GEOMETRY)(cells, np.full(len(cells), 1e4))
    table = f.table()
    assert table.shape == (7, 2 + 4 * (3 + 2))
    assert table[0, 0] == 4.0  # log10 of 10,000 MeV
    assert table[3, 1:4] == pytest.approx(-8.0)  # log10 of an empty layer + 1e-8
    assert table[0, 4] == pytest.approx(f.layers["ec_eta"][0, 0] / 100)
    assert table[0, 12] == pytest.approx(math.log10(f.e_tot[0]))
    assert table[0, -1] == pytest.approx(f.layers["width_r"][0, 2] / 100)
    sizes = []
    for name in DATASETS[:3]:
        geometry = challenge_data(name).geometry
        blank = np.zeros((1, geometry.n_cells), np.float32)
        sizes.append(FeatureMaker(geometry)(blank, np.ones(1)).table().shape[1])
    assert sizes == [30, 46, 362]


def test_features_need_rings() -> None:
    grid = Geometry.of_layers("grid", [CellLayer(XYCells(n=(2, 2), pitch_mm=(1, 1)))])
    with pytest.raises(DataError, match="layer 0 is a grid of x and y"):
        FeatureMaker(grid)


def test_cells_of_the_data_sets() -> None:
    """The numbers of voxels of the challenge; data sets 2 and 3 are those of our detectors."""
    sizes = {name: challenge_data(name).geometry.n_cells for name in DATASETS}
    assert sizes == {"1-photons": 368, "1-pions": 533, "2": 6480, "3": 40500}
    for name in ("2", "3"):
        ours = load_detector(f"calochallenge-{name}").geometry()
        theirs = challenge_data(name).geometry
        assert [p.cells for p in ours.planes()] == [p.cells for p in theirs.planes()]


@pytest.mark.parametrize("name", DATASETS)
def test_a_binning_file_makes_the_same_cells(name: str, tmp_path: Path) -> None:
    data = challenge_data(name)
    write_binning(tmp_path / "b.xml", data.geometry, data.particle, layer_ids=data.layer_ids)
    own = of_binning(read_binning(tmp_path / "b.xml"), 2.0)
    assert own.geometry.planes() == data.geometry.planes()
    assert own.layer_ids == data.layer_ids and own.threshold == 2.0
    assert own.centre_range(0) == data.radius(0)  # histograms reach to the edge of a layer


def test_ranges_of_data_set_1() -> None:
    """±500 mm in the tile layers 12 and 13, ±100 in the others; 30 in data sets 2 and 3."""
    pions = challenge_data("1-pions")
    centre = {number: pions.centre_range(k) for k, number in enumerate(pions.layer_ids)}
    assert centre == {0: 100, 1: 100, 2: 100, 3: 100, 12: 500, 13: 500, 14: 100}
    assert pions.width_range(4) == 400 and challenge_data("3").width_range(0) == 30
    photons = challenge_data("1-photons")
    assert [photons.e_ratio_bins(2.0**k)[0] for k in (8, 11, 12, 22)] == [0.4, 0.4, 0.9, 0.9]
    assert pions.e_ratio_bins(2.0**20) == (0.4, 1.4)


def test_unknown_data_sets_and_thresholds() -> None:
    with pytest.raises(ConfigError, match=r"unknown data set '4'.*1-photons"):
        challenge_data("4")
    binning = type("B", (), {"geometry": GEOMETRY, "particle": "photon", "layer_ids": (0, 1, 2)})
    with pytest.raises(ConfigError, match="positive energy, not 0"):
        of_binning(cast(Binning, binning), 0.0)


def test_fill_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    edges = np.array([0.0, 1.0, 2.0, 4.0])
    values = np.concatenate([rng.uniform(-2, 6, 200), edges])
    missing = rng.random(204) < 0.2
    inside, every = [0] * 3, [0] * 6
    for v, gone in zip(values, missing, strict=True):
        place = None
        for k in range(3):
            last = k == 2 and v == edges[3]
            if edges[k] <= v < edges[k + 1] or last:
                place = k
        if place is not None:
            inside[place] += 1
        if gone:
            every[5] += 1
        elif place is None:
            every[0 if v < 0 else 4] += 1
        else:
            every[1 + place] += 1
    counts = fill(values, edges, missing)
    assert counts.inside.tolist() == inside and counts.every.tolist() == every
    assert counts.every.sum() == len(values)
    assert fill(values, edges).every.sum() == len(values)


def test_separation_against_a_loop_and_its_ends() -> None:
    n, m = np.array([10, 0, 30, 0]), np.array([1, 2, 3, 0])
    expected = 0.0
    for a, b in zip(n / 40, m / 6, strict=True):
        expected += 0.5 * (a - b) ** 2 / (a + b) if a + b else 0.0
    assert separation(n, m) == pytest.approx(expected)
    assert separation(n, 7 * n) == 0.0
    assert separation(np.array([5, 0]), np.array([0, 3])) == 1.0
    assert separation(n, 0 * n) is None and expected_separation(n, 0 * n) is None


def test_separation_and_chi2_of_one_truth() -> None:
    """Fails for an expectation that is off by a factor of two, or a χ² of unequal sizes as equal."""
    rng = np.random.default_rng(5)
    p = rng.dirichlet(np.full(30, 2.0))
    pairs = [(rng.multinomial(4000, p), rng.multinomial(9000, p)) for _ in range(400)]
    found = np.array([separation(a, b) for a, b in pairs])
    chance = np.mean([expected_separation(a, b) for a, b in pairs])
    # the expectation itself is good to a few per cent where bins hold few entries
    assert abs(found.mean() - chance) < 4 * found.std() / 20 + 0.02 * chance
    chis = np.array([chi2(a, b) for a, b in pairs])
    assert (chis[:, 1] == 29).all()
    assert abs(chis[:, 0].mean() - 29) < 4 * math.sqrt(2 * 29 / 400)


def test_expected_separation_is_the_published_noise() -> None:
    """Geant4 against Geant4 in the tables is the chance of their bins and sizes: so bins agree.

    99/4 · 2/100,000 = 0.495e-3 for 100 bins, 0.24e-3 for 49 and 0.09e-3 for 19. Fails for 39 bins
    of layer energies (0.19e-3), or if the two samples were half as large.
    """
    entries = published("calochallenge")["datasets"]
    for group, bins in (("centre", 100), ("width", 100), ("e_layer", 49), ("sparsity", 19)):
        n = np.full(bins, 100_000 // bins)
        assert expected_separation(n, n) == pytest.approx(entries["2"]["GEANT4"][group], rel=0.03)
    assert expected_separation(n, n) is not None
    n = np.full(100, 1210)
    assert expected_separation(n, n) == pytest.approx(
        entries["1-photons"]["GEANT4"]["centre"], rel=0.03
    )


def test_published_numbers_and_places() -> None:
    entries = published("calochallenge")["datasets"]["2"]
    assert entries["CaloDREAM"]["fpd"] == pytest.approx(24.65e-3)
    assert entries["CaloDREAM"]["auc_high"] == pytest.approx(0.5208)
    assert all(0 < row["auc_low"] <= 1 for row in entries.values())
    first = rank(entries, "auc_high", 0.51)
    assert first is not None and first["rank"] == 1 and first["of"] == 18
    assert first["better"] is None and first["worse"] == ["CaloDREAM", 0.5208]
    second = rank(entries, "auc_high", 0.55)
    assert second is not None and second["rank"] == 2
    assert second["better"] == ["CaloDREAM", 0.5208]
    last = rank(entries, "e_layer", 1.0)
    assert last is not None and last["rank"] == last["of"] == 17  # CaloDiT has no such number
    assert last["floor"] == pytest.approx(0.24e-3)
    assert rank(entries, "colour", 1.0) is None
