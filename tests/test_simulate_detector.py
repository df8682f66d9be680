"""Detector descriptions: the presets' published numbers, files, bad input, and calibration."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hepbridge.cli.app import app
from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data import SQUIRELS, Geometry, Showers
from hepbridge.data.cells import CellLayer
from hepbridge.simulate.calibration import Calibration, calibration_factors, sampling_fraction
from hepbridge.simulate.detector import (
    Detector,
    Layer,
    PolarCells,
    Slice,
    XYCells,
    detectors,
    load_detector,
)
from hepbridge.simulate.materials import material

run = CliRunner().invoke
NAMES = ["calochallenge-2", "calochallenge-3", "calogan", "ild-ecal", "squirels"]


def thickness(detector: Detector) -> dict[str, float]:
    """mm of each material, added up slab by slab."""
    total: dict[str, float] = defaultdict(float)
    for slab in detector.slabs():
        total[slab.material] += slab.z1_mm - slab.z0_mm
    return {name: round(mm, 6) for name, mm in total.items()}


# --- the detectors that come with the package -----------------------------------------------------


def test_names() -> None:
    assert detectors() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_presets_are_whole(name: str) -> None:
    """Slabs without gaps or overlaps, known materials, a source, and the way to a file and back."""
    detector = load_detector(name)
    slabs = detector.slabs()
    assert detector.name == name and len(detector.about) > 100
    assert slabs[0].z0_mm == 0 and slabs[-1].z1_mm == detector.depth_mm
    assert all(a.z1_mm == b.z0_mm for a, b in itertools.pairwise(slabs))
    assert all(b.layer - a.layer in (0, 1) for a, b in itertools.pairwise(slabs))
    assert all(material(s.material, detector.materials).x0_mm > 0 for s in slabs)
    assert sum(x.mm for x in detector.layers) == pytest.approx(detector.depth_mm)
    geometry = detector.geometry()
    assert geometry.n_cells == sum(x.cells.n_cells for x in detector.layers)
    assert Geometry.from_dict(geometry.to_dict()) == geometry
    assert Detector.from_dict(json.loads(json.dumps(detector.to_dict()))) == detector
    assert Detector.from_dict(yaml.safe_load(detector.to_yaml())) == detector


def test_squirels_is_the_detector_of_the_models() -> None:
    """Showers that are simulated here must be those that shipped models refine."""
    detector = load_detector("squirels")
    assert detector.geometry() == SQUIRELS
    assert detector.geometry().digest() == SQUIRELS.digest()
    assert thickness(detector) == {"G4_PbWO4": 240.0}
    assert detector.envelope() == ("box", 150.0, 150.0)


def test_calogan() -> None:
    """Public code hep-lbdl/CaloGAN: 80 × (2 mm Pb + 4 mm lAr), cuts at 90 and 437 of 480 mm."""
    detector = load_detector("calogan")
    geometry = detector.geometry()
    assert thickness(detector) == {"G4_Pb": 160.0, "G4_lAr": 320.0}
    assert [layer.z_mm for layer in geometry.layers] == [(0, 90), (90, 437), (437, 480)]
    assert [x.cells.n_cells for x in detector.layers] == [3 * 96, 12 * 12, 12 * 6]
    assert geometry.symmetry == "D2" and geometry.n_cells == 504
    # the code's own numbering: xbin = floor((x + 240) / (480 / nx)), xbin * ny + ybin, + offset
    for x, y, z in np.random.default_rng(0).uniform([-240, -240, 0], [240, 240, 480], (200, 3)):
        layer = 0 if z < 90 else 1 if z < 437 else 2
        nx, ny = [(3, 96), (12, 12), (12, 6)][layer]
        index = [0, 288, 432][layer] + int((x + 240) * nx / 480) * ny + int((y + 240) * ny / 480)
        mine = detector.layers[layer].cells.index(x, y) + geometry.layer_starts[layer]
        assert mine == index
    # 80 gaps: every argon slab is 4 mm, but for the one that the second cut divides
    gaps = [s.z1_mm - s.z0_mm for s in detector.slabs() if s.active]
    assert Counter(round(g, 9) for g in gaps) == {4.0: 79, 3.0: 1, 1.0: 1}


def test_ild_ecal() -> None:
    """arXiv:2005.05334: 20 × 2.1 mm and 10 × 4.2 mm of tungsten, 24 X0 of 3.504 mm (PDG)."""
    detector = load_detector("ild-ecal")
    assert thickness(detector)["G4_W"] == 84.0
    assert pytest.approx(24, abs=0.05) == 84.0 / 3.504
    assert detector.depth_x0() == pytest.approx(24, abs=1.5)  # with copper, silicon and the rest
    assert detector.geometry().shape == (30, 30, 30)
    assert detector.geometry().symmetry == "D4"
    assert detector.equal_layers() == (0,) * 20 + (20,) * 10
    assert {x.cells for x in detector.layers} == {XYCells(n=(30, 30), pitch_mm=(5, 5))}


@pytest.mark.parametrize(("k", "n_r", "n_phi", "n"), [(2, 9, 16, 6480), (3, 18, 50, 40500)])
def test_calochallenge(k: int, n_r: int, n_phi: int, n: int) -> None:
    """Geant4's Par04: 90 × (1.4 mm W + 0.3 mm Si), voxels of 3.4 mm in depth; arXiv:2410.21611."""
    detector = load_detector(f"calochallenge-{k}")
    geometry = detector.geometry()
    assert len(detector.slabs()) == 180
    assert thickness(detector) == {"G4_W": 126.0, "G4_Si": 27.0}
    assert geometry.shape == (45, n_phi, n_r) and geometry.n_cells == n
    assert geometry.symmetry == "Dn"
    assert geometry.layers[44].z_mm == (44 * 3.4, 153.0)
    assert detector.calibration is not None
    assert 1 / detector.calibration.factors[0] == pytest.approx(0.033)
    # Par04: rho = floor(r / dr), phi = floor((π + φ) / dφ), z = floor(z / dz)
    rng = np.random.default_rng(k)
    for x, y, z in rng.uniform([-29, -29, 0], [29, 29, 153], (200, 3)):
        ir, iphi = (
            math.hypot(x, y) // (41.85 / n_r),
            (math.pi + math.atan2(y, x)) // (2 * math.pi / n_phi),
        )
        layer = int(z // 3.4)
        index = detector.layers[layer].cells.index(x, y) + geometry.layer_starts[layer]
        assert index == layer * n_phi * n_r + iphi * n_r + ir


# --- files ----------------------------------------------------------------------------------------

YAML = """
name: mine
world: G4_Galactic
layers:
  - repeat: 2
    cells: {kind: xy, n: [2, 3], pitch_mm: [10, 5]}
    slices:
      - {material: steel, mm: 3}
      - repeat: 2
        slices:
          - {material: G4_Pb, mm: 1}
          - {material: G4_lAr, mm: 2, active: true}
  - cells: {kind: polar, r_mm: [0, 4, 9], n_phi: 6}
    slices:
      - {material: G4_Si, mm: 0.3, active: true}
materials:
  steel: {density_g_cm3: 7.9, fractions: {Fe: 0.98, C: 0.02}}
"""


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(YAML, encoding="utf-8")
    detector = load_detector(path)
    assert detector == load_detector(str(path))
    block = ["steel", "G4_Pb", "G4_lAr", "G4_Pb", "G4_lAr"]
    assert [s.material for s in detector.slabs()] == [*block, *block, "G4_Si"]
    assert [s.layer for s in detector.slabs()] == [0] * 5 + [1] * 5 + [2]
    assert [s.z1_mm for s in detector.slabs()] == [3, 4, 6, 7, 9, 12, 13, 15, 16, 18, 18.3]
    assert [s.active for s in detector.slabs()] == [False, False, True, False, True] * 2 + [True]
    assert detector.depth_mm == 18.3
    # rings and rectangles together: a tube around the corners, and no symmetry in common
    assert detector.envelope() == ("tube", math.hypot(10, 7.5), math.hypot(10, 7.5))
    assert detector.geometry().symmetry == "none"


def test_one_layer_of_cells_is_a_grid_others_are_layers() -> None:
    record = yaml.safe_load(YAML)
    record["layers"] = [{**record["layers"][0], "repeat": 1}]
    assert Detector.from_dict(record).geometry() == Geometry(
        "mine", (2, 3), ("x", "y"), (10.0, 5.0)
    )
    record["layers"][0]["cells"] = {"kind": "polar", "r_mm": [0, 1], "n_phi": 4}
    assert Detector.from_dict(record).geometry().axes == ("z", "phi", "r")


@pytest.mark.parametrize(
    ("cells", "slabs", "symmetry"),
    [
        ({"kind": "xy", "n": [4, 4], "pitch_mm": [5, 5]}, {}, "D4"),
        ({"kind": "xy", "n": [4, 4], "pitch_mm": [5, 6]}, {}, "none"),
        ({"kind": "xy", "n": [4, 2], "pitch_mm": [5, 5]}, {}, "none"),
        ({"kind": "polar", "r_mm": [0, 9], "n_phi": 4}, {}, "Dn"),
        ({"kind": "polar", "r_mm": [0, 9], "n_phi": 4}, {"half_width_mm": 50}, "none"),
    ],
)
def test_declared_symmetry(cells: dict, slabs: dict, symmetry: str) -> None:
    """That of the cells, if the slabs share it: discs within a square box have no turns by 2π/n."""
    entry = {"cells": cells, "slices": [{"material": "G4_Si", "mm": 1, "active": True}]}
    record = {"name": "s", "layers": [entry], **slabs}
    assert Detector.from_dict(record).geometry().symmetry == symmetry
    record["layers"] = [entry, entry]
    expected = "D2" if cells["kind"] == "xy" and symmetry == "none" else symmetry
    assert Detector.from_dict(record).geometry().symmetry == expected


def test_what_the_digest_sees() -> None:
    """What changes a simulation, and nothing else."""
    record = yaml.safe_load(YAML)
    digest = Detector.from_dict(record).digest()

    def changed(**change: object) -> str:
        return Detector.from_dict({**record, **change}).digest()

    same = {"name": "x", "about": "y", "calibration": {"factors": [2], "source": "z"}}
    assert changed(**same, radius_mm=math.hypot(10, 7.5)) == digest
    thicker = copy.deepcopy(record["layers"])
    thicker[0]["slices"][0]["mm"] = 3.01
    lighter = {"steel": {**record["materials"]["steel"], "density_g_cm3": 7.8}}
    others = [
        changed(radius_mm=13),
        changed(world="G4_AIR"),
        changed(layers=thicker),
        changed(materials=lighter),
    ]
    assert len({digest, *others}) == 5


SLICES = st.builds(
    Slice,
    material=st.sampled_from(["G4_Pb", "G4_Si", "G4_AIR"]),
    mm=st.sampled_from([0.1, 0.3, 1.7, 20.0]),
    active=st.booleans(),
)
CELLS = st.builds(
    XYCells,
    n=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pitch_mm=st.tuples(st.sampled_from([1.0, 2.5]), st.sampled_from([1.0, 2.5])),
) | st.builds(PolarCells, r_mm=st.just((0.0, 1.0, 3.0)), n_phi=st.integers(1, 5))
BLOCKS = st.lists(
    st.tuples(st.integers(1, 4), st.lists(SLICES, min_size=1, max_size=3)), min_size=1
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), BLOCKS, CELLS), min_size=1, max_size=4))
def test_any_detector_survives_its_file(drawn: list) -> None:
    """Repetitions are folded on writing and expanded on reading, whatever repeats itself."""
    layers: list[Layer] = []
    for n, blocks, cells in drawn:
        slices = [s for times, block in blocks for s in block * times]
        layers += [
            Layer(slices=(*slices, Slice(material="G4_lAr", mm=1, active=True)), cells=cells)
        ] * n
    detector = Detector(name="any", layers=tuple(layers))
    assert Detector.from_dict(yaml.safe_load(detector.to_yaml())) == detector


def test_repetitions_are_folded() -> None:
    """A file of 160 slices has a few lines. Fails if only equal single slices were folded."""
    calogan = load_detector("calogan")
    assert len(calogan.to_yaml().splitlines()) < 35
    assert calogan.to_dict()["layers"][0]["slices"][0]["repeat"] == 15
    assert load_detector("calochallenge-3").to_dict()["layers"][0]["repeat"] == 45


GOOD = yaml.safe_load(YAML)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("color", "red", "color: this entry does not exist"),
        ("name", "", "name: String should have at least 1 character"),
        ("layers", [], "layers: Tuple should have at least 1 item"),
        ("layers.0.repeat", 0, "layers.0.repeat: Input should be greater than or equal to 1 .got 0"),
        ("layers.0.repeat", 30_000, "layers.0.repeat: Input should be less than or equal to 20000"),
        ("layers.0.repeat", 20_000, "layers.0: 100000 slices; at most 20000 are allowed"),
        ("layers.0.gap_mm", 3, "layers.0.gap_mm: this entry does not exist"),
        ("layers.0.slices.0.mm", -3, r"layers.0.slices.0.mm: Input should be greater than or equal"),
        ("layers.0.slices.0.mm", math.nan, "layers.0.slices.0.mm: Input should be a finite number"),
        ("layers.0.slices.0.mm", 1e-9, "layers.0.slices.0.mm: Input should be greater than or equal"),
        ("layers.0.slices.0.mm", 1e9, "layers.0.slices.0.mm: Input should be less than or equal to"),
        ("layers.0.slices.0.thick", 1, "layers.0.slices.0.thick: this entry does not exist"),
        ("layers.0.slices.1.slices.1.mm", 0, "layers.0.slices.1.slices.1.mm: Input should be greater"),
        ("layers.0.slices.1.slices.0.repeat", 2, "slices.0.repeat: this entry does not exist"),
        ("layers.1.slices.0.active", False, "layers.1: no slice is active"),
        ("layers.0.slices.0.material", "lead", "unknown material 'lead'"),
        ("materials.steel.fractions.Fe", 0.5, "material 'steel': mass fractions add up to 0.52"),
        ("world", "nothing", "unknown material 'nothing'"),
        ("layers.0.cells.n", [0, 3], "layers.0.cells.n.0: Input should be greater than or equal"),
        ("layers.0.cells.n", [1_000_000] * 2, "cells; at most 20000000 are allowed"),
        ("layers.0.cells.pitch_mm", [1], "layers.0.cells.pitch_mm.1: Field required"),
        ("layers.0.cells.kind", "hex", "layers.0.cells: Input tag 'hex'"),
        ("layers.1.cells.r_mm", [0, 4, 3], "layers.1.cells.r_mm: the radii must grow; 3 follows 4"),
        ("layers.1.cells.r_mm", [1, 4], "layers.1.cells.r_mm: the first radius must be 0"),
        ("half_width_mm", 9, "the cells of layer 0 reach beyond the slabs .±10 mm in x"),
        ("radius_mm", 12, "the cells of layer 0 reach beyond the slabs"),
        ("radius_mm", -1, "radius_mm: Input should be greater than 0"),
        ("calibration", {"factors": [1, 2], "source": "s"}, "calibration has 2 factors; give one, or"),
        ("calibration", {"factors": [-1], "source": "s"}, "calibration.factors.0: Input should be gr"),
        ("calibration", {"factors": [1]}, "calibration.source: Field required"),
    ],
)  # fmt: skip
def test_bad_descriptions(path: str, value: object, message: str) -> None:
    """The message has the place in the file (repetitions not expanded) and what is wrong."""
    record = copy.deepcopy(GOOD)
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    node = record
    for key in way:
        node = node[key]
    node[last] = value
    with pytest.raises(ConfigError, match=message) as caught:
        Detector.from_dict(record, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml is not a valid detector:\n")


def test_one_line_for_one_mistake() -> None:
    """A wrong slice leaves its layer, and the detector, without entries: that is not said again."""
    record = copy.deepcopy(GOOD)
    record["layers"] = record["layers"][:1]
    record["layers"][0]["slices"] = [{"material": "G4_Pb", "mm": -1.0, "active": True}]
    with pytest.raises(ConfigError) as caught:
        Detector.from_dict(record)
    assert [line for line in str(caught.value).splitlines() if line.startswith("  ")] == [
        "  layers.0.slices.0.mm: Input should be greater than or equal to 0.000001 (got -1.0)"
    ]


def test_both_kinds_of_slabs_are_refused() -> None:
    with pytest.raises(ConfigError, match="give half_width_mm or radius_mm of the slabs, not both"):
        Detector.from_dict({**GOOD, "half_width_mm": 50, "radius_mm": 50})


@pytest.mark.parametrize("record", [None, 3, "text", [GOOD], {}])
def test_no_description_at_all(record: Any) -> None:
    with pytest.raises(ConfigError, match="is not a valid detector"):
        Detector.from_dict(record)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [", "is not valid YAML"),
        (b"[" * 600, "is not valid YAML"),
        (b"!!python/object/apply:os.system ['false']", "is not valid YAML"),
        (b"\xff\xfe\x00", "cannot read the detector"),
        (b"#" * (2 << 20), "is larger than 1024 KiB"),
    ],
)
def test_unreadable_files(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_detector(path)


def test_unknown_names() -> None:
    with pytest.raises(
        ConfigError, match="unknown detector 'calogn'; available: calochallenge-2, "
    ):
        load_detector("calogn")
    with pytest.raises(ConfigError, match=r"cannot read the detector nothing\.yaml"):
        load_detector("nothing.yaml")


# --- calibration ----------------------------------------------------------------------------------

TWO = Geometry.of_layers(
    "two",
    [CellLayer(XYCells(n=(1, 2), pitch_mm=(1, 1)), (k, k + 1)) for k in range(2)]
    + [CellLayer(XYCells(n=(1, 3), pitch_mm=(1, 1)), (2, 3))],
)


def toy(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Layers see r = 0.02 ± 0.004, 0.03 ± 0.002 and 0.01 ± 0.003 of E, independent and normal."""
    energy = rng.uniform(1e4, 1e5, n)
    r = rng.normal([0.02, 0.03, 0.01], [0.004, 0.002, 0.003], (n, 3)) * energy[:, None]
    cells = np.concatenate(
        [r[:, :1] * [0.25, 0.75], r[:, 1:2] * [0.5, 0.5], r[:, 2:] * [0.1, 0.2, 0.7]], axis=1
    )
    return cells, energy


def test_sampling_fraction_and_its_error() -> None:
    """Values within 4 standard errors; the quoted errors are the spread of 200 repetitions."""
    rng = np.random.default_rng(0)
    found = [sampling_fraction(*toy(300, rng), TWO) for _ in range(200)]
    spread = math.sqrt(0.004**2 + 0.002**2 + 0.003**2)
    for f in found[:20]:
        assert abs(f.value - 0.06) < 4 * f.error
        assert f.layers.sum() == pytest.approx(f.value, rel=1e-12)
        assert f.n == 300
        assert f.resolution == pytest.approx(spread / 0.06, rel=4 / math.sqrt(2 * 300))
    errors = np.mean([f.error for f in found])
    assert np.std([f.value for f in found]) == pytest.approx(errors, rel=4 / math.sqrt(400))
    assert found[0].error == pytest.approx(spread / math.sqrt(300), rel=4 / math.sqrt(600))
    layer_spread = np.std([f.layers for f in found], axis=0)
    layer_errors = np.mean([f.layer_errors for f in found], axis=0)
    assert np.allclose(layer_spread, layer_errors, rtol=4 / math.sqrt(400))


def test_one_factor_is_the_inverse_of_the_fraction() -> None:
    cells, energy = toy(400, np.random.default_rng(1))
    factors = calibration_factors(cells, energy, TWO)
    fraction = sampling_fraction(cells, energy, TWO)
    assert np.allclose(factors.values, 1 / fraction.value)
    assert np.allclose(factors.errors, fraction.error / fraction.value**2, rtol=4 / math.sqrt(200))


def test_factors_of_groups_against_the_closed_form() -> None:
    """Independent groups: c_g ∝ m_g / σ_g², so that Σ c m = 1. Errors against 100 repetitions."""
    mean, variance = np.array([0.02, 0.04]), np.array([0.004**2, 0.002**2 + 0.003**2])
    truth = mean / variance / np.sum(mean**2 / variance)
    rng = np.random.default_rng(2)
    found = [calibration_factors(*toy(500, rng), TWO, [7, 3, 3]) for _ in range(100)]
    values = np.stack([f.values for f in found])
    errors = np.mean([f.errors for f in found], axis=0)
    assert np.array_equal(values[:, 1], values[:, 2])
    assert np.all(np.abs(values.mean(axis=0) - truth[[0, 1, 1]]) < 4 * errors / 10)
    assert np.allclose(values.std(axis=0), errors, rtol=4 / math.sqrt(200))
    cells, energy = toy(500, rng)
    response = TWO.layer_sums(cells) @ calibration_factors(cells, energy, TWO, [7, 3, 3]).values
    assert np.mean(response / energy) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 1}, "1 showers are too few to measure a sampling fraction"),
        ({"energy": [0.0] * 50}, "incident energies also positive"),
        ({"energy": [1e4] * 49}, "50 showers but 49 incident energies"),
        ({"groups": [0, 1]}, "2 groups are given, but there are 3 layers"),
        ({"groups": [0, 1, 2], "n": 29}, "29 showers are too few for 3 factors"),
        ({"cells": np.zeros((50, 7))}, "the layers of group 0 see no energy at all"),
        ({"cells": np.full((50, 7), np.nan)}, "energies must be finite"),
    ],
)
def test_bad_input_of_a_calibration(change: dict, message: str) -> None:
    cells, energy = toy(change.get("n", 50), np.random.default_rng(3))
    cells, energy = change.get("cells", cells), change.get("energy", energy)
    with pytest.raises(DataError, match=message):
        calibration_factors(cells, energy, TWO, change.get("groups"))


def test_a_factor_below_zero_is_refused() -> None:
    """A noisy group that rises with the leakage of the other would be subtracted."""
    rng = np.random.default_rng(4)
    lost = rng.normal(0, 0.002, 500)
    r = np.stack([0.05 + lost, 0 * lost, 0.002 + 0.2 * lost + rng.normal(0, 1e-5, 500)], axis=1)
    cells = np.repeat(r, [2, 2, 3], axis=1) * 1e4
    with pytest.raises(DataError, match="which is no calibration; join the group to another one"):
        calibration_factors(cells, np.full(500, 1e4), TWO, [0, 0, 1])


def calibrated(name: str, factors: tuple[float, ...]) -> Detector:
    calibration = Calibration(factors=factors, source="a test")
    return load_detector(name).model_copy(update={"calibration": calibration})


def test_calibrated_showers() -> None:
    """Each layer times its factor, once."""
    detector = calibrated("calogan", (10.0, 20.0, 30.0))
    rng = np.random.default_rng(5)
    cells = rng.gamma(0.5, size=(4, 504)).astype("f4")
    raw = Showers.from_arrays(cells, np.full(4, 1e3), geometry=detector.geometry())
    out = detector.calibrated(raw)
    truth = np.concatenate(
        [cells[:, :288] * 10, cells[:, 288:432] * 20, cells[:, 432:] * 30], axis=1
    )
    assert out.cells.dtype == np.float32
    assert np.allclose(out.cells, truth, rtol=2e-7)
    assert out.meta["calibration"] == "a test"
    with pytest.raises(DataError, match=r"are calibrated already \(a test\)"):
        detector.calibrated(out)
    with pytest.raises(DataError, match="detector 'calogan' has no calibration"):
        load_detector("calogan").calibrated(raw)
    with pytest.raises(DataError, match="the showers have geometry 'calogan'"):
        calibrated("squirels", (2.0,)).calibrated(raw)
    one = Showers.from_arrays(cells[:, :100], np.full(4, 1e3))
    assert np.allclose(calibrated("squirels", (2.0,)).calibrated(one).cells, 2 * one.cells)


# --- command line ---------------------------------------------------------------------------------


def test_list() -> None:
    words = run(app, ["detectors"]).stdout
    assert [line.split()[0] for line in words.splitlines()] == NAMES
    assert "3 layers, 504 cells: 3 × 96 (x × y) of 160 × 5 mm, 12 × 12" in words
    assert list(json.loads(run(app, ["detectors", "--json"]).stdout)) == NAMES


def test_words_of_a_detector() -> None:
    words = run(app, ["detectors", "ild-ecal"]).stdout
    assert "30 layers, 27000 cells: 30 of 30 × 30 (x × y) of 5 × 5 mm" in words
    assert "500 × 500 mm, in G4_AIR" in words
    assert Detector.from_dict(yaml.safe_load(words)) == load_detector("ild-ecal")
    record = json.loads(run(app, ["detectors", "calochallenge-2", "--json"]).stdout)
    assert Geometry.from_dict(record["geometry"]) == load_detector("calochallenge-2").geometry()
    assert (record["cells"], record["depth_mm"]) == (6480, 153.0)


def test_binning_file(tmp_path: Path) -> None:
    out = str(tmp_path / "b.xml")
    command = ["detectors", "calochallenge-2", "--binning", out]
    assert run(app, command).exit_code == 0
    assert (tmp_path / "b.xml").read_text(encoding="utf-8").count("<Layer") == 45
    assert run(app, command).exit_code == 6
    assert run(app, [*command, "--overwrite", "--particle", "photon"]).exit_code == 0
    assert 'pid="22" name="photon"' in (tmp_path / "b.xml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["calogn"], 5, "unknown detector 'calogn'"),
        (["calogan", "--binning", "b.xml"], 3, "can only hold rings and sectors"),
        (["--binning", "b.xml"], 2, "--binning needs the name of a detector"),
    ],
)
def test_usage_errors(words: list[str], code: int, message: str) -> None:
    result = run(app, ["detectors", *words])
    assert result.exit_code == code
    assert message in result.stderr
