"""The binning files of the CaloChallenge: which voxels a layer has, as XML.

A file is ``<Bins>`` with one ``<Bin>`` per particle (``pid``, ``name``, and for data set 1
``etaMin``, ``etaMax``) and in it, for the layers 0, 1, 2, …, ``<Layer id="…" r_edges="0,5,…"
n_bin_alpha="…"/>``. Radii are in mm; ``r_edges="0"`` is a layer without voxels. A shower holds the
layers in order, each ``reshape(n_alpha, n_r)`` (r fastest), α from -π: as `PolarCells` does.
The format says nothing of the depth of a layer. (arXiv:2410.21611; CaloChallenge/homepage on GitHub.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from pydantic import ValidationError

from hepbridge.core.errors import DataError
from hepbridge.core.files import write_text
from hepbridge.data.cells import CellLayer, PolarCells
from hepbridge.data.geometry import Geometry

__all__ = ["PIDS", "Binning", "read_binning", "write_binning"]

PIDS = {"photon": 22, "electron": 11, "positron": -11, "pion": 211}
"""Names of particles in binning files, with their numbers of the Particle Data Group."""

MAX_BYTES = 4 << 20  # the official files have 2 to 9 kB
MAX_LAYERS = 10_000


@dataclass(frozen=True)
class Binning:
    """The voxels of one particle.

    Attributes:
        particle: its name in the file (photon, pion, electron, …).
        geometry: the layers that have voxels.
        layer_ids: the number of each of them in the file (data set 1 has 0, 1, 2, 3, 12).
        pid: its number (Particle Data Group), if the file has it.
    """

    particle: str
    geometry: Geometry
    layer_ids: tuple[int, ...]
    pid: int | None = None


def read_binning(
    path: str | Path,
    particle: str | None = None,
    *,
    layer_mm: float | Sequence[float] | None = None,
) -> Binning:
    """The voxels in a binning file.

    Args:
        path: the file.
        particle: whose voxels, if the file has those of several.
        layer_mm: thickness of the layers (of all, or of each that has voxels), which the file does
            not know; without it the geometry has no depths.

    Raises DataError if the file is not such XML (document type definitions and entities are
    refused), if its numbers cannot be voxels, or if ``particle`` does not select one.
    """
    path = Path(path)
    found = _parsed(path)
    names = [bin_.particle for bin_ in found]
    if particle is None and len(found) != 1:
        raise DataError(f"{path}: has the binning of {', '.join(names)}; say which (particle=…)")
    chosen = [bin_ for bin_ in found if particle in (None, bin_.particle)]
    if len(chosen) != 1:
        raise DataError(f"{path}: has no single binning of {particle!r}; it has {', '.join(names)}")
    return chosen[0].binning(path, layer_mm)


def write_binning(
    path: str | Path,
    geometry: Geometry,
    particle: str,
    *,
    pid: int | None = None,
    layer_ids: Sequence[int] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the layers of a geometry as a binning file for one particle.

    Public tools take the place of a layer in the file as its number, so that numbers that
    ``layer_ids`` leaves out become layers without voxels.

    Raises DataError for layers that are not `PolarCells`, an unknown particle without ``pid``, or
    layer numbers that do not grow; OutputError if the file exists (unless ``overwrite``).
    """
    if pid is None and particle not in PIDS:
        raise DataError(f"particle {particle!r} has no known number; pass pid=… ({PIDS})")
    cells = [layer.cells for layer in geometry.planes()]
    ids = list(range(len(cells))) if layer_ids is None else list(layer_ids)
    if len(ids) != len(cells) or ids[0] < 0 or any(b <= a for a, b in pairwise(ids)):
        raise DataError(f"layer numbers {ids} must be {len(cells)} growing numbers from 0 up")
    if ids[-1] >= MAX_LAYERS:
        raise DataError(f"layer number {ids[-1]} is too large; at most {MAX_LAYERS - 1}")
    lines = [
        "<Bins>",
        f'  <Bin pid="{PIDS[particle] if pid is None else pid}" name={quoteattr(particle)}>',
    ]
    for number, c in zip(ids, cells, strict=True):
        if not isinstance(c, PolarCells):
            raise DataError(
                f"geometry {geometry.name!r}: layer {number} is a grid of x and y; a binning file "
                "of the CaloChallenge can only hold rings and sectors"
            )
        lines += [_layer(k, "0", 1) for k in range(len(lines) - 2, number)]
        lines.append(_layer(number, ",".join(f"{r:.15g}" for r in c.r_mm), c.n_phi))
    lines += ["  </Bin>", "</Bins>", ""]
    write_text(path, "\n".join(lines), overwrite=overwrite)


def _layer(number: int, r_edges: str, n_alpha: int) -> str:
    return f'    <Layer id="{number}" r_edges="{r_edges}" n_bin_alpha="{n_alpha}" />'


@dataclass
class _Bin:
    """A ``<Bin>`` element: its attributes, and those of its layers with their lines."""

    attributes: dict[str, str]
    layers: list[tuple[int, dict[str, str]]] = field(default_factory=list)

    @property
    def particle(self) -> str:
        return self.attributes.get("name", "")

    def binning(self, path: Path, layer_mm: float | Sequence[float] | None) -> Binning:
        ids: list[int] = []
        cells: list[PolarCells] = []
        for place, (line, attributes) in enumerate(self.layers):
            where = f"{path}, line {line}"
            try:
                number = int(attributes["id"])
                edges = tuple(float(r) for r in attributes["r_edges"].split(","))
                n_alpha = int(attributes["n_bin_alpha"])
            except KeyError as error:
                raise DataError(f"{where}: the layer has no attribute {error}") from error
            except ValueError as error:
                raise DataError(f"{where}: not a number ({error})") from error
            if number != place:
                raise DataError(
                    f"{where}: layer {number} stands at place {place}; layers must be numbered "
                    "0, 1, 2, … in order"
                )
            if edges == (0.0,):
                continue
            try:
                cells.append(PolarCells(r_mm=edges, n_phi=n_alpha))
            except ValidationError as error:
                first = error.errors()[0]
                names = {"r_mm": "r_edges", "n_phi": "n_bin_alpha"}
                raise DataError(
                    f"{where}: {names.get(str(first['loc'][0]))}: "
                    f"{first['msg'].removeprefix('Value error, ')}"
                ) from error
            ids.append(number)
        if not cells:
            raise DataError(f"{path}: no layer of {self.particle!r} has voxels")
        depths = _depths(path, len(cells), layer_mm)
        layers = [CellLayer(c, z) for c, z in zip(cells, depths, strict=True)]
        try:
            pid = int(self.attributes["pid"]) if "pid" in self.attributes else None
        except ValueError as error:
            raise DataError(f"{path}: pid is not a number ({error})") from error
        geometry = Geometry.of_layers(path.stem, layers, "Dn")
        return Binning(self.particle, geometry, tuple(ids), pid)


def _depths(
    path: Path, n: int, layer_mm: float | Sequence[float] | None
) -> list[tuple[float, float] | None]:
    if layer_mm is None:
        return [None] * n
    thick = [float(layer_mm)] * n if isinstance(layer_mm, int | float) else list(layer_mm)
    if len(thick) != n or not all(0 < t < math.inf for t in thick):
        raise DataError(f"{path}: layer_mm must be one or {n} positive numbers, got {layer_mm}")
    edges = [round(math.fsum(thick[:k]), 9) for k in range(n + 1)]
    return list(pairwise(edges))


def _parsed(path: Path) -> list[_Bin]:
    """The ``<Bin>`` elements of a file. Entities are never expanded: a DTD ends the reading."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: larger than {MAX_BYTES >> 20} MiB; no binning file")
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    found: list[_Bin] = []
    open_tags: list[str] = []
    expected = {(): "Bins", ("Bins",): "Bin", ("Bins", "Bin"): "Layer"}
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        line = parser.CurrentLineNumber
        if expected.get(tuple(open_tags)) != tag:
            raise DataError(
                f"{path}, line {line}: <{tag}> does not belong here; a binning file is <Bins> with "
                "<Bin> with <Layer>"
            )
        open_tags.append(tag)
        if tag == "Bin":
            found.append(_Bin(attributes))
        elif tag == "Layer":
            if len(found[-1].layers) >= MAX_LAYERS:
                raise DataError(f"{path}, line {line}: more than {MAX_LAYERS} layers")
            found[-1].layers.append((line, attributes))

    def refuse(*_: object) -> None:
        raise DataError(
            f"{path}, line {parser.CurrentLineNumber}: has a document type definition, which "
            "hepbridge does not read (it could make a small file huge)"
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: open_tags.pop()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(raw, True)
    except (expat.ExpatError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: is not XML ({error})") from error
    if not found:
        raise DataError(f"{path}: holds no <Bin>; it is no binning file")
    return found
