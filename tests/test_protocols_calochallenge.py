"""The CaloChallenge protocol on toy showers: planted defects, files, classifier, command line."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hepbridge import save
from hepbridge.cli.app import app
from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data import Geometry
from hepbridge.data.binning_xml import write_binning
from hepbridge.data.cells import CellLayer, PolarCells
from hepbridge.data.showers import Showers
from hepbridge.metrics.classifier_settings import MLPSettings
from hepbridge.metrics.frechet import fpd_unbiased
from hepbridge.metrics.kernel import kpd_unbiased
from hepbridge.metrics.protocols import PROTOCOLS
from hepbridge.metrics.protocols.base import Source
from hepbridge.metrics.protocols.calochallenge import CaloChallenge
from hepbridge.metrics.protocols.challenge_classifier import challenge_classifier, jensen_shannon

GEOMETRY = Geometry.of_layers(
    "toy",
    [
        CellLayer(PolarCells(r_mm=(0, 5, 10, 20), n_phi=8)),
        CellLayer(PolarCells(r_mm=(0, 5, 10, 20), n_phi=8)),
        CellLayer(PolarCells(r_mm=(0, 10, 40), n_phi=1)),
    ],
    "Dn",
)
N = 1500
THRESHOLD = 1.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toy samples do not need batches of up to 50,000 showers, nor layers of 2,048."""
    from hepbridge.metrics.protocols import calochallenge, challenge_distances

    monkeypatch.setattr(challenge_distances, "fpd", lambda a, b, **_: fpd_unbiased(a, b, seed=1))
    monkeypatch.setattr(challenge_distances, "kpd", lambda a, b, **_: kpd_unbiased(a, b, seed=1))
    small = MLPSettings(width=8, epochs=2, batch=100)
    classifier = functools.partial(challenge_classifier, settings=small, device="cpu")
    monkeypatch.setattr(calochallenge, "challenge_classifier", classifier)


def toy(seed: int, n: int = N) -> np.ndarray:
    """Cells (n, 50) of showers of 10 GeV, gamma-distributed around an exponential in r."""
    rng = np.random.default_rng(seed)
    mean = np.exp(-np.hypot(GEOMETRY.x_mm, GEOMETRY.y_mm) / 6.0)
    mean *= np.array([0.5, 1.0, 0.3])[GEOMETRY.layer_index]
    mean *= 10_000 / mean.sum()
    return (rng.gamma(mean / 40.0, 40.0, (n, GEOMETRY.n_cells))).astype(np.float32)


def source(name: str, cells: np.ndarray, geometry: Geometry = GEOMETRY) -> Source:
    energy = np.full(len(cells), 10_000.0)
    showers = Showers.from_arrays(cells, energy, geometry=geometry, allow_empty_showers=True)
    return Source.of_showers(name, showers, geometry)


def protocol(tmp_path: Path) -> CaloChallenge:
    path = tmp_path / "binning.xml"
    write_binning(path, GEOMETRY, "photon", overwrite=True)
    made: CaloChallenge = PROTOCOLS["calochallenge"](binning=path, threshold=THRESHOLD)
    return made


def shifted_layer(cells: np.ndarray) -> np.ndarray:
    """Layer 1 turned by a quarter towards +x: half of the energy of its left goes to its right."""
    out = cells.copy()
    left = (GEOMETRY.layer_index == 1) & (GEOMETRY.x_mm < 0)
    grid = np.flatnonzero(GEOMETRY.layer_index == 1).reshape(8, 3)
    mirror = dict(zip(grid.reshape(-1), np.roll(grid, 4, axis=0).reshape(-1), strict=True))
    for cell in np.flatnonzero(left):
        out[:, mirror[cell]] += 0.2 * cells[:, cell]
        out[:, cell] = 0.8 * cells[:, cell]
    return out


def swapped_cells(cells: np.ndarray) -> np.ndarray:
    """An inner and an outer cell of layer 0 change places."""
    out = cells.copy()
    out[:, [0, 2]] = cells[:, [2, 0]]
    return out


def dead_cell(cells: np.ndarray) -> np.ndarray:
    out = cells.copy()
    out[:, 3] = 0.0
    return out


def dead_layer(cells: np.ndarray) -> np.ndarray:
    """Layer 2 fails in every tenth shower."""
    out = cells.copy()
    out[::10, GEOMETRY.layer_index == 2] = 0.0
    return out


def smeared(cells: np.ndarray) -> np.ndarray:
    """A resolution of 6 % smeared by another 9 %."""
    factor = np.random.default_rng(9).normal(1.0, 0.09, (len(cells), 1))
    return (cells * np.maximum(factor, 0)).astype(np.float32)


@pytest.mark.parametrize(
    ("defect", "row"),
    [
        (shifted_layer, "ec_eta 1"),
        (swapped_cells, "ec_r 0"),
        (dead_cell, "sparsity 0"),
        (dead_layer, "e_layer 2"),
        (smeared, "e_tot"),
    ],
)
def test_planted_defects_are_caught(
    tmp_path: Path, defect: Callable[[np.ndarray], np.ndarray], row: str
) -> None:
    """The defect's own histogram is far above chance; that of an honest second sample is not."""
    bad = defect(toy(2))
    found = protocol(tmp_path).evaluate(
        source("ref", toy(1)), {"bad": source("bad", bad)}, source("ref2", toy(3))
    )
    cell, honest = found["candidates"]["bad"]["rows"][row], found["floor"]["rows"][row]
    for record, low, high in ((cell, 7.0, np.inf), (honest, -5.0, 5.0)):
        pull = (record["chi2"] - record["ndf"]) / np.sqrt(2 * record["ndf"])
        assert low < pull < high
    assert cell["separation_all"] > 2 * cell["expected"]
    for metric in ("fpd", "kpd"):
        value, error = (found["floor"][metric][k] for k in ("unbiased", "unbiased_error"))
        assert abs(value) < 5 * error
    fpd = found["candidates"]["bad"]["fpd"]
    # FPD sees logarithms of energies, in which a smeared total is small beside the layers' own
    assert (fpd["unbiased"] > 4 * fpd["unbiased_error"]) == (defect is not smeared)


def test_blind_spots_of_the_protocol_are_corrected(tmp_path: Path) -> None:
    """A layer that fails in every tenth shower: invisible to the challenge's layer energies.

    Only the corrected column sees it; a reflected shower is seen by neither, as documented.
    """
    found = protocol(tmp_path).evaluate(
        source("ref", toy(1)), {"dead": source("dead", dead_layer(toy(1)))}
    )
    row = found["candidates"]["dead"]["rows"]["e_layer 2"]
    assert row["separation"] < row["expected"]  # the same showers, those that failed left out
    assert row["separation_all"] > 0.04 > 2 * row["expected"]
    mirrored = toy(2)[:, GEOMETRY.permutations()[8]]
    found = protocol(tmp_path).evaluate(source("ref", toy(1)), {"m": source("m", mirrored)})
    row = found["candidates"]["m"]["rows"]["ec_phi 1"]
    assert (row["chi2"] - row["ndf"]) / np.sqrt(2 * row["ndf"]) < 5


def test_record_is_complete_and_plain(tmp_path: Path) -> None:
    record = protocol(tmp_path).evaluate(
        source("ref", toy(1, 400)), {"a": source("a", toy(2, 300))}
    )
    json.dumps(record, allow_nan=False)
    assert record["floor"] is None and record["published"] is None
    assert record["samples"]["a"]["n"] == 300 and record["threshold_mev"] == THRESHOLD
    names = [h["name"] for h in record["histograms"]]
    assert sorted(names) == sorted(record["candidates"]["a"]["rows"])
    assert {"e_tot", "voxel", "e_layer 0", "sparsity 2", "width_phi 1", "ec_r 2"} <= set(names)
    assert "ec_eta 2" not in names  # a layer without sectors has no direction
    for histogram in record["histograms"]:
        assert len(histogram["counts"]) == len(histogram["edges"]) + 2
        total = 400 * GEOMETRY.n_cells if histogram["group"] == "voxel" else 400
        assert sum(histogram["counts"]) == total
    groups = record["candidates"]["a"]["groups"]
    rows = record["candidates"]["a"]["rows"]
    mean = np.mean([rows[f"e_layer {k}"]["separation"] for k in range(3)])
    assert groups["e_layer"]["separation"] == pytest.approx(mean)


def test_threshold_comes_first(tmp_path: Path) -> None:
    """Cells below the threshold are empty for every feature; fails if only spectra apply it."""
    cells = toy(1, 200)
    dusty = np.where(cells < 1.0, np.float32(0.99), cells)
    clean = np.where(cells < 1.0, np.float32(0), cells)
    found = protocol(tmp_path).evaluate(source("ref", clean), {"d": source("d", dusty)})
    rows = found["candidates"]["d"]["rows"]
    assert all(row["separation_all"] == 0 for row in rows.values())


def test_published_places(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Data set 1 end to end on made-up showers: per-energy rows, ranking, other energies noticed."""
    made = CaloChallenge(dataset="1-photons")
    rng = np.random.default_rng(0)

    def sample(name: str, scale: float) -> Source:
        energy = 2.0 ** rng.integers(8, 23, 600) * scale
        share = rng.dirichlet(np.full(368, 0.3), 600)
        showers = Showers.from_arrays(
            (share * energy[:, None]).astype(np.float32), energy, geometry=made.geometry
        )
        return Source.of_showers(name, showers, made.geometry)

    record = made.evaluate(sample("ref", 1.0), {"a": sample("a", 1.0), "far": sample("far", 4.0)})
    ranking = record["candidates"]["a"]["ranking"]
    assert ranking["e_layer"]["of"] == 16 and ranking["e_layer"]["floor"] == pytest.approx(0.2e-3)
    assert (
        record["published"]["doi"].endswith("2410.21611") and not record["published"]["same_size"]
    )
    assert "e_tot at 256 MeV" in record["candidates"]["a"]["rows"]
    assert "'far' has other incident energies" in caplog.text
    assert "'a' has other" not in caplog.text


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either a data set"):
        CaloChallenge()
    with pytest.raises(ConfigError, match="give the threshold of a cell"):
        CaloChallenge(binning=tmp_path / "b.xml")
    with pytest.raises(ConfigError, match="data set 2 has its own threshold"):
        CaloChallenge(dataset="2", threshold=1.0)
    made = protocol(tmp_path)
    ref = source("ref", toy(1, 200))
    with pytest.raises(ConfigError, match=r"no classifier 'cnn'; it has low, low-normed, high"):
        made.evaluate(ref, {"a": ref}, classifiers=("cnn",))
    with pytest.raises(DataError, match="'a' has 20 showers; at least 50"):
        made.evaluate(ref, {"a": source("a", toy(2, 20))})
    with pytest.raises(DataError, match=r"sampling fraction \(--sampling-fraction 0.033"):
        made.evaluate(source("ref", toy(1, 200) * np.float32(0.033)), {"a": ref})
    other = Geometry.of_layers("other", [CellLayer(PolarCells(r_mm=(0, 9), n_phi=1))], "Dn")
    with pytest.raises(DataError, match=r"'x': has geometry 'other' with 1 cells in 1 layers"):
        single = Showers.from_arrays(np.ones((60, 1)), np.ones(60), geometry=other)
        Source.of_showers("x", single, GEOMETRY)
    weighted = Showers.from_arrays(toy(1, 60), np.ones(60), geometry=GEOMETRY, weights=np.ones(60))
    with pytest.raises(DataError, match="has weights"):
        Source.of_showers("w", weighted, GEOMETRY)


def test_classifier_on_samples_of_one_truth_and_of_two() -> None:
    """0.5 and JSD 0 for one truth, Φ(δ/√2) = 0.76 for a shift by δ = 1; seeds repeat bit for bit."""
    rng = np.random.default_rng(4)
    settings = MLPSettings(width=16, epochs=4, batch=100, learning_rate=5e-3)
    a, b, far = (rng.normal(s, 1.0, (2000, 1)) for s in (0.0, 0.0, 1.0))
    same = challenge_classifier(a, b, runs=1, settings=settings, device="cpu")
    assert abs(same["auc"] - 0.5) < 4 * same["se"]
    # a shower beyond the ends of the calibration costs log2(1e6) = 20 bits of 800 showers
    assert -5 * 20 / 800 < same["jsd"] < 0.02
    told = challenge_classifier(a, far, runs=2, settings=settings, device="cpu")
    assert abs(told["auc"] - 0.7602) < 4 * told["se"]
    assert 0.04 < told["jsd"] < 0.24  # 0.163 less such costs
    once = challenge_classifier(a, far, runs=1, settings=settings, device="cpu")
    again = challenge_classifier(a, far, runs=1, settings=settings, device="cpu")
    assert again == once != told and told["n"] == 2000


def test_jensen_shannon_of_two_gaussians() -> None:
    """With the exact posterior, against quadrature; fails for nats in place of bits (31 % less)."""
    rng = np.random.default_rng(6)
    n = 40_000
    values = np.concatenate([rng.normal(0.0, 1.0, n), rng.normal(1.0, 1.0, n)])
    label = np.arange(2 * n) < n
    posterior = 1.0 / (1.0 + np.exp(values - 0.5))
    x = np.linspace(-8, 9, 20_001)
    p, q = (np.exp(-((x - m) ** 2) / 2) / np.sqrt(2 * np.pi) for m in (0.0, 1.0))
    mixed = (p + q) / 2
    truth = 0.5 * (p * np.log2(p / mixed) + q * np.log2(q / mixed)).sum() * (x[1] - x[0])
    bits = 1.0 + np.log2(np.where(label, posterior, 1.0 - posterior))
    error = bits.std() / np.sqrt(2 * n)
    assert abs(jensen_shannon(label, posterior) - truth) < 4 * error
    assert truth == pytest.approx(0.163, abs=0.003)


def test_jensen_shannon_by_hand() -> None:
    label = np.array([True, False])
    assert jensen_shannon(label, np.array([1.0, 0.0])) == 1.0
    assert jensen_shannon(label, np.array([0.5, 0.5])) == 0.0
    with pytest.raises(DataError, match="at least 10 in each"):
        challenge_classifier(np.zeros((20, 2)), np.zeros((20, 2)))


def test_inputs_of_the_classifiers(tmp_path: Path) -> None:
    """Columns as the challenge's: log10 E, voxels / E; or voxels / layer, log10 layer energies."""
    made = protocol(tmp_path)
    cells = toy(1, 60)
    cells[0, 0] = 0.5  # below the threshold, which only the first applies
    sample = source("s", cells)
    low = made._inputs(sample, np.empty(0), "low")
    assert low.shape == (60, 51) and low[0, 1] == 0 and low[0, 0] == pytest.approx(4.0)
    assert low[1, 5] == pytest.approx(cells[1, 4] / 1e4, rel=1e-6)
    normed = made._inputs(sample, np.empty(0), "low-normed")
    layer = cells[0, :24].sum()
    assert normed.shape == (60, 1 + 50 + 3)
    assert normed[0, 1] == pytest.approx(0.5 / layer, rel=1e-5)
    assert normed[0, 51] == pytest.approx(np.log10(layer), rel=1e-6)


def test_command_on_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in two pieces, of visible energies, to a table and a folder; a second run is refused."""
    monkeypatch.chdir(tmp_path)
    write_binning("b.xml", GEOMETRY, "photon")
    for name, seed in (("ref", 1), ("ref2", 3), ("a", 2), ("b", 4)):
        deep = [CellLayer(p.cells, (9.0 * k, 9.0 * k + 8)) for k, p in enumerate(GEOMETRY.planes())]
        geometry = Geometry.of_layers("with depth", deep, "Dn")
        cells = toy(seed, 300) * np.float32(0.05)
        energy = np.full(300, 10_000.0)
        save(Showers.from_arrays(cells, energy, geometry=geometry), f"{name}.h5")
    command = [
        *("evaluate", "--protocol", "calochallenge", "--binning", "b.xml", "--threshold", "1"),
        *("--ref", "ref.h5", "--ref2", "ref2.h5", "--cand", "gen=a.h5", "--cand", "gen=b.h5"),
        *("--sampling-fraction", "0.05", "--output", "out"),
        *("--classifier", "high", "--classifier", "low", "--runs", "2"),
    ]
    runner = CliRunner()
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "gen against full simulation (600 and 300 showers)" in done.output
    record = json.loads(Path("out/metrics.json").read_text("utf-8"))
    assert record["sampling_fraction"] == 0.05 and record["samples"]["gen"]["n"] == 600
    gen = record["candidates"]["gen"]
    assert gen["rows"]["e_tot"]["separation"] is not None
    assert set(gen["classifier"]) == set(record["floor"]["classifier"]) == {"high", "low"}
    assert gen["classifier"]["high"]["runs"] == 2 and gen["classifier"]["low"]["n"] == 300
    assert "AUC, high" in done.output and "JSD, low" in done.output
    again = runner.invoke(app, command)
    assert again.exit_code != 0 and "holds a report already" in again.output
    lost = runner.invoke(app, [a for a in command if a not in ("--protocol", "calochallenge")])
    assert "<title>hepbridge report: gen" in Path("out/report.html").read_text("utf-8")
    assert lost.exit_code != 0 and "only with --protocol" in lost.output
