"""Binning files of the CaloChallenge, against a reader written from the description of the format."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hepbridge.core.errors import DataError, OutputError
from hepbridge.data import Geometry
from hepbridge.data.binning_xml import read_binning, write_binning
from hepbridge.data.cells import CellLayer, PolarCells, XYCells
from hepbridge.simulate.detector import load_detector

# Data set 1 (arXiv:2410.21611): rings and sectors of the layers 0, 1, 2, 3, 12, …; edges of our own
PHOTONS = {0: (8, 1), 1: (16, 10), 2: (19, 10), 3: (5, 1), 12: (5, 1)}
PIONS = {0: (8, 1), 1: (10, 10), 2: (10, 10), 3: (5, 1), 12: (15, 10), 13: (16, 10), 14: (10, 1)}


def document(layers: dict[int, tuple[int, int]], head: str) -> str:
    """A file in the form of data set 1: 24 layers, most of them without voxels."""
    lines = ["<Bins>", f"   <Bin {head}>"]
    for k in range(24):
        n_r, n_alpha = layers.get(k, (0, 1))
        edges = ",".join(f"{5 * i + i * i / 4:g}" for i in range(n_r + 1))
        end = " /> " if k % 2 else "/>"
        lines.append(f'      <Layer id="{k}"  r_edges="{edges}" n_bin_alpha="{n_alpha}"{end}')
    return "\n".join([*lines, "   </Bin> ", "</Bins>", ""])


PHOTON_FILE = document(PHOTONS, 'pid="22" etaMin="0" etaMax="130" name="photon"')
PION_FILE = document(PIONS, 'pid="211" etaMin="0" etaMax="80" name="pion"')


def voxels(path: Path) -> list[tuple[int, float, float]]:
    """(place of the layer, x, y) of all voxels in their order, as public tools read them."""
    found = []
    for bin_ in ElementTree.parse(path).getroot():
        for place, layer in enumerate(bin_):
            edges = [float(r) for r in layer.attrib["r_edges"].split(",")]
            n = int(layer.attrib["n_bin_alpha"])
            for i in range(n):
                alpha = -math.pi + (i + 0.5) * 2 * math.pi / n
                for low, high in pairwise(edges):
                    r = low + (high - low) / 2
                    found.append((place, r * math.cos(alpha), r * math.sin(alpha)))
    return found


def same(path: Path, geometry: Geometry, ids: tuple[int, ...]) -> None:
    layer, x, y = zip(*voxels(path), strict=True)
    assert np.array_equal(np.array(ids)[geometry.layer_index], layer)
    assert np.allclose(geometry.x_mm, x) and np.allclose(geometry.y_mm, y)


@pytest.mark.parametrize(
    ("text", "name", "pid", "layers", "n"),
    [(PHOTON_FILE, "photon", 22, PHOTONS, 368), (PION_FILE, "pion", 211, PIONS, 533)],
    ids=["photons", "pions"],
)
def test_data_set_1(text: str, name: str, pid: int, layers: dict, n: int, tmp_path: Path) -> None:
    """The numbers of voxels are the published ones. Fails if φ ran fastest instead of r."""
    path = tmp_path / "binning_dataset_1.xml"
    path.write_text(text, encoding="utf-8")
    found = read_binning(path)
    assert (found.particle, found.pid, found.layer_ids) == (name, pid, tuple(layers))
    assert found.geometry.name == "binning_dataset_1"
    assert found.geometry.n_cells == n
    assert [(c.n_r, c.n_phi) for c, _ in found.geometry.layers] == list(layers.values())
    assert len(found.geometry.permutations()) == 20
    same(path, found.geometry, found.layer_ids)
    with pytest.raises(DataError, match="does not say how deep its layers are"):
        _ = found.geometry.z_mm
    deep = read_binning(path, layer_mm=2.5).geometry
    assert deep.z_mm[-1] == 2.5 * (len(layers) - 0.5)


@pytest.mark.parametrize(("k", "n_r", "n_alpha", "step"), [(2, 9, 16, 4.65), (3, 18, 50, 2.325)])
def test_data_sets_2_and_3_are_the_detectors(
    k: int, n_r: int, n_alpha: int, step: float, tmp_path: Path
) -> None:
    """The file of the detector has the voxels of the official one, and comes back as the detector."""
    detector = load_detector(f"calochallenge-{k}")
    path = tmp_path / "b.xml"
    write_binning(path, detector.geometry(), "electron")
    (bin_,) = ElementTree.parse(path).getroot()
    assert bin_.attrib == {"pid": "11", "name": "electron"}
    assert [layer.attrib["id"] for layer in bin_] == [str(i) for i in range(45)]
    for layer in bin_:
        assert layer.attrib["n_bin_alpha"] == str(n_alpha)
        edges = [float(r) for r in layer.attrib["r_edges"].split(",")]
        assert np.allclose(edges, step * np.arange(n_r + 1), atol=1e-9)
    same(path, detector.geometry(), tuple(range(45)))
    again = read_binning(path, layer_mm=3.4)
    assert again.geometry.digest() == detector.geometry().digest()


def test_left_out_layers_keep_their_place(tmp_path: Path) -> None:
    """Public tools count places, so that layers 0, 1, 2, 3, 12 need 4 to 11 without voxels."""
    first, second = tmp_path / "a.xml", tmp_path / "b.xml"
    first.write_text(PHOTON_FILE, encoding="utf-8")
    found = read_binning(first)
    write_binning(second, found.geometry, "photon", layer_ids=found.layer_ids)
    assert voxels(second) == voxels(first)
    assert read_binning(second).layer_ids == found.layer_ids
    with pytest.raises(OutputError, match="exists already"):
        write_binning(second, found.geometry, "photon", layer_ids=found.layer_ids)


def test_several_particles_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "both.xml"
    inner = [t.removeprefix("<Bins>\n").removesuffix("</Bins>\n") for t in (PHOTON_FILE, PION_FILE)]
    path.write_text(f"<Bins>{inner[0]}{inner[1]}</Bins>", encoding="utf-8")
    assert read_binning(path, "pion").geometry.n_cells == 533
    with pytest.raises(DataError, match="has the binning of photon, pion; say which"):
        read_binning(path)
    with pytest.raises(DataError, match="no single binning of 'muon'; it has photon, pion"):
        read_binning(path, "muon")


ROUND = Geometry.of_layers("g", [CellLayer(PolarCells(r_mm=(0, 1, 2), n_phi=2))] * 2, "Dn")
SQUARE = Geometry.of_layers("g", [CellLayer(XYCells(n=(2, 2), pitch_mm=(1, 1)))])


@pytest.mark.parametrize(
    ("geometry", "options", "message"),
    [
        (SQUARE, {}, "layer 0 is a grid of x and y"),
        (ROUND, {"particle": "muon"}, "particle 'muon' has no known number; pass pid="),
        (ROUND, {"layer_ids": [0]}, "must be 2 growing numbers from 0 up"),
        (ROUND, {"layer_ids": [1, 1]}, "must be 2 growing numbers from 0 up"),
        (ROUND, {"layer_ids": [-1, 1]}, "must be 2 growing numbers from 0 up"),
        (ROUND, {"layer_ids": [0, 10**9]}, "layer number 1000000000 is too large"),
    ],
)
def test_what_cannot_be_written(
    geometry: Geometry, options: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        write_binning(tmp_path / "b.xml", geometry, **{"particle": "photon", **options})
    assert not list(tmp_path.iterdir())


def test_names_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "b.xml"
    write_binning(path, ROUND, 'a"<&', pid=1)
    assert read_binning(path).particle == 'a"<&'


# --- what is no binning file ----------------------------------------------------------------------

LAYER = '<Layer id="0" r_edges="0,5" n_bin_alpha="2"/>'
BOMB = (
    '<!DOCTYPE Bins [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefghij"))
    + "]><Bins><Bin name='&j;'/></Bins>"
)
OUTSIDE = '<!DOCTYPE Bins SYSTEM "file:///etc/passwd"><Bins/>'


def one(layer: str, attributes: str = 'name="x"') -> str:
    return f"<Bins><Bin {attributes}>{layer}</Bin></Bins>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "has a document type definition"),
        (BOMB.encode("utf-16"), "has a document type definition"),
        (OUTSIDE, "has a document type definition"),
        ("", "is not XML"),
        ("no xml", "is not XML"),
        (b"\xff\x00\x12", "is not XML"),
        ("<Bins><Bin></Bins>", "is not XML"),
        ("<Bins><Bin name='&a;'/></Bins>", "is not XML"),
        ("<Bins/>", "holds no <Bin>"),
        ("<html/>", "line 1: <html> does not belong here"),
        ("<Bins>\n<Layer/></Bins>", "line 2: <Layer> does not belong here"),
        (one(f"<Bin>{LAYER}</Bin>"), "<Bin> does not belong here"),
        (one(""), "no layer of 'x' has voxels"),
        (one('<Layer id="0" r_edges="0" n_bin_alpha="1"/>'), "no layer of 'x' has voxels"),
        (one('<Layer r_edges="0,1" n_bin_alpha="1"/>'), "the layer has no attribute 'id'"),
        (one('<Layer id="0" r_edges="0,a" n_bin_alpha="1"/>'), "line 1: not a number"),
        (one('<Layer id="0" r_edges="" n_bin_alpha="1"/>'), "line 1: not a number"),
        (one('<Layer id="1" r_edges="0,1" n_bin_alpha="1"/>'), "layer 1 stands at place 0"),
        (one('<Layer id="0" r_edges="0,1,1" n_bin_alpha="1"/>'), "r_edges: the radii must grow"),
        (one('<Layer id="0" r_edges="0,nan" n_bin_alpha="1"/>'), "r_edges: Input should be"),
        (one('<Layer id="0" r_edges="2,3" n_bin_alpha="1"/>'), "r_edges: the first radius must be 0"),
        (one('<Layer id="0" r_edges="0,3" n_bin_alpha="0"/>'), "n_bin_alpha: Input should be"),
        (one(LAYER, 'name="x" pid="e"'), "pid is not a number"),
        (one("<Layer/>" * 10_001), "more than 10000 layers"),
        (" " * (5 << 20), "larger than 4 MiB"),
    ],
)  # fmt: skip
def test_refused(content: str | bytes, message: str, tmp_path: Path) -> None:
    """One message that names the file; no entity is expanded and no other file is opened."""
    path = tmp_path / "bad.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        read_binning(path)
    assert "bad.xml" in str(caught.value)


def test_missing_file_and_bad_depths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*no\.xml: No such file"):
        read_binning(tmp_path / "no.xml")
    path = tmp_path / "b.xml"
    path.write_text(PHOTON_FILE, encoding="utf-8")
    for wrong in (0.0, math.nan, [1.0, 2.0], [1, 1, 1, 1, -1]):
        with pytest.raises(DataError, match="layer_mm must be one or 5 positive numbers"):
            read_binning(path, layer_mm=wrong)
    ends = [z[1] for _, z in read_binning(path, layer_mm=[1, 2, 3, 4, 5]).geometry.layers if z]
    assert ends == [1, 3, 6, 10, 15]


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(at=st.integers(0, 400), cut=st.integers(0, 20), put=st.binary(max_size=6))
def test_damaged_files_end_in_one_message(at: int, cut: int, put: bytes, tmp_path: Path) -> None:
    raw = PHOTON_FILE.encode()
    path = tmp_path / "d.xml"
    path.write_bytes(raw[:at] + put + raw[at + cut :])
    try:
        assert read_binning(path).geometry.n_cells > 0
    except DataError as error:
        assert "d.xml" in str(error) or "geometry" in str(error)
