"""Detectors: a stack of slabs of absorber and active material, and the cells that read it out.

>>> from hepbridge.simulate.detector import load_detector
>>> calogan = load_detector("calogan")
>>> calogan.geometry().n_cells
504
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field, ValidationError, model_validator

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.yaml_text import parse_yaml
from hepbridge.data.cells import CellLayer, Length, PolarCells, XYCells
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.simulate.calibration import Calibration
from hepbridge.simulate.detector_text import dumped, read_text
from hepbridge.simulate.envelope import Envelope, envelope_of
from hepbridge.simulate.materials import material
from hepbridge.simulate.slices import MAX_SLICES, Layer, LayerEntry, Name, Slice, Strict, folded

__all__ = [
    "Calibration",
    "Detector",
    "Layer",
    "PolarCells",
    "Slab",
    "Slice",
    "XYCells",
    "detectors",
    "load_detector",
]

MAX_CELLS = 20_000_000  # more would be 80 MB per shower


class Slab(NamedTuple):
    """A slice at its place: depth in mm from the front face, and the number of its layer."""

    z0_mm: float
    z1_mm: float
    material: str
    layer: int
    active: bool


class _Common(Strict):
    """What a detector has besides its layers."""

    name: Name
    about: str = ""
    world: Name = "G4_AIR"
    half_width_mm: Length | None = None
    radius_mm: Length | None = None
    materials: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    calibration: Calibration | None = None


class Detector(_Common):
    """A calorimeter made of flat slabs, from the front face at z = 0 towards +z.

    Attributes:
        name, about: what it is called, and where its numbers come from.
        world: material around the slabs.
        layers: tuple of `Layer`, in the order of the beam, without gaps.
        half_width_mm, radius_mm: the slabs are squares of that half width or discs of that radius;
            without either they are as wide as the cells.
        materials: own compositions, name -> as `hepbridge.simulate.materials.material` takes them.
        calibration: factors of `calibrated`; the engines never apply them.

    The flat cell index of a shower runs over the layers in order and inside a layer as `XYCells`
    and `PolarCells` say. A cell's energy is the deposit in the active slices of its layer, in MeV.

    Raises pydantic's ValidationError (a ValueError) for dimensions that are not positive, cells
    beyond the slabs, layers without active slices, unknown materials; `from_dict` and
    `load_detector` raise ConfigError.
    """

    layers: Annotated[tuple[Layer, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits_together(self) -> Detector:
        if (slices := sum(len(layer.slices) for layer in self.layers)) > MAX_SLICES:
            raise ValueError(f"{slices} slices; at most {MAX_SLICES} are allowed")
        if (cells := sum(layer.cells.n_cells for layer in self.layers)) > MAX_CELLS:
            raise ValueError(f"{cells} cells; at most {MAX_CELLS} are allowed")
        if self.half_width_mm is not None and self.radius_mm is not None:
            raise ValueError("give half_width_mm or radius_mm of the slabs, not both")
        slabs = self.envelope()
        for number, layer in enumerate(self.layers):
            if not slabs.holds(layer.cells):
                raise ValueError(
                    f"the cells of layer {number} reach beyond the slabs ({_reach(layer.cells)}, "
                    f"but the slabs are a {slabs.shape} of {slabs.x_mm:g} mm); make half_width_mm "
                    "or radius_mm larger, or leave it out"
                )
        factors = self.calibration.factors if self.calibration else (1.0,)
        if len(factors) not in (1, len(self.layers)):
            raise ValueError(
                f"calibration has {len(factors)} factors; give one, or one for each of the "
                f"{len(self.layers)} layers"
            )
        for name in sorted({self.world} | {s.material for x in self.layers for s in x.slices}):
            if not name.startswith("G4_"):  # others are looked up by the engine that needs them
                material(name, self.materials)
        for name in self.materials:
            material(name, self.materials)
        return self

    @property
    def depth_mm(self) -> float:
        """Thickness of all layers together."""
        return self.slabs()[-1].z1_mm

    def depth_x0(self) -> float:
        """Thickness of all layers together in radiation lengths.

        Raises ConfigError if a material is not known.
        """
        x0 = {s.material: material(s.material, self.materials).x0_mm for s in self.slabs()}
        return math.fsum((s.z1_mm - s.z0_mm) / x0[s.material] for s in self.slabs())

    def slabs(self) -> list[Slab]:
        """All slices with their places, from the front face at z = 0."""
        found, z = [], 0.0
        for number, layer in enumerate(self.layers):
            for s in layer.slices:
                edge = round(z + s.mm, 9)  # a sum of decimal numbers without its dust
                found.append(Slab(z, edge, s.material, number, s.active))
                z = edge
        return found

    def envelope(self) -> Envelope:
        """Outline of the slabs: as given, or just around the cells."""
        if self.radius_mm is not None:
            return Envelope("tube", self.radius_mm, self.radius_mm)
        if self.half_width_mm is not None:
            return Envelope("box", self.half_width_mm, self.half_width_mm)
        return envelope_of([layer.cells for layer in self.layers])

    def geometry(self) -> Geometry:
        """The cells, for files and for the rest of the package.

        One layer of `XYCells` gives the regular grid (x, y); anything else layers. The declared
        symmetry is the largest that cells and slabs share: it holds for a beam on the axis.
        """
        if len(self.layers) == 1 and isinstance(only := self.layers[0].cells, XYCells):
            return Geometry(
                self.name, only.n, ("x", "y"), only.pitch_mm, symmetry=self._symmetry(grid=True)
            )
        edges: dict[int, tuple[float, float]] = {}
        for slab in self.slabs():
            edges[slab.layer] = edges.get(slab.layer, (slab.z0_mm,))[0], slab.z1_mm
        layers = [CellLayer(x.cells, edges[number]) for number, x in enumerate(self.layers)]
        return Geometry.of_layers(self.name, layers, self._symmetry(grid=False))

    def _symmetry(self, *, grid: bool) -> str:
        cells, slabs = [layer.cells for layer in self.layers], self.envelope()
        if all(c.has("Dn") for c in cells):
            return "Dn" if slabs.shape == "tube" else "none"
        if all(c.has("D4") for c in cells) and slabs.x_mm == slabs.y_mm:
            return "D4"
        return "D2" if not grid and all(c.has("D2") for c in cells) else "none"

    def calibrated(self, showers: Showers) -> Showers:
        """The showers with every layer multiplied by its factor.

        Raises DataError if the detector has no calibration, if the showers are of another geometry
        or calibrated already.
        """
        geometry = self.geometry()
        if self.calibration is None:
            raise DataError(
                f"detector {self.name!r} has no calibration; add one to its description "
                "(hepbridge.simulate.calibration measures it)"
            )
        if showers.geometry.digest() != geometry.digest():
            raise DataError(
                f"the showers have geometry {showers.geometry.name!r} {showers.geometry.shape}, "
                f"detector {self.name!r} has {geometry.shape}"
            )
        if "calibration" in showers.meta:
            raise DataError(f"the showers are calibrated already ({showers.meta['calibration']})")
        factors = np.array(self.calibration.factors) * np.ones(len(self.layers))
        cells = (showers.cells * factors[geometry.layer_index]).astype(np.float32)
        return showers.with_cells(cells, calibration=self.calibration.source)

    def equal_layers(self) -> tuple[int, ...]:
        """For every layer the number of the first layer that is made of the same slices.

        Layers with equal numbers sample alike: the groups of `calibration_factors`.
        """
        first: dict[tuple[Slice, ...], int] = {}
        return tuple(first.setdefault(x.slices, k) for k, x in enumerate(self.layers))

    def digest(self) -> str:
        """Hash of what matters to a simulation: all but name, text and calibration."""
        unimportant = {"name", "about", "calibration", "half_width_mm", "radius_mm"}
        record = self.model_dump(mode="json", exclude=unimportant)
        record["envelope"] = self.envelope()
        text = json.dumps(record, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """A plain record, repetitions folded, that `from_dict` takes back."""
        record = self.model_dump(mode="json", exclude_defaults=True, exclude={"layers"})
        record["layers"] = folded(self.layers)
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], where: str = "the detector") -> Detector:
        """The detector of a record. Raises ConfigError that names every wrong entry."""
        return _checked(record, where)

    def to_yaml(self) -> str:
        """The text of a detector file."""
        return dumped(self.to_dict())


def detectors() -> list[str]:
    """The detectors that ship with the package."""
    folder = resources.files("hepbridge.simulate").joinpath("detectors")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load_detector(name: str | Path) -> Detector:
    """The detector of a name (see `detectors`) or of a YAML file.

    Raises ConfigError on an unknown name, an unreadable file, or a description that is not valid.
    """
    if isinstance(name, str) and name in detectors():
        folder = resources.files("hepbridge.simulate").joinpath("detectors")
        text = folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        return _checked(parse_yaml(text, f"detector {name!r}"), f"detector {name!r}")
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        raise ConfigError(
            f"unknown detector {str(name)!r}; available: {', '.join(detectors())}, or the path of "
            "a YAML file"
        )
    return _checked(parse_yaml(read_text(path), str(path)), str(path))


class _File(_Common):
    layers: Annotated[tuple[LayerEntry, ...], Field(min_length=1)]

    def detector(self) -> Detector:
        if (n := sum(entry.n_slices for entry in self.layers)) > MAX_SLICES:
            raise ConfigError(f"{self.name}: {n} slices; at most {MAX_SLICES} are allowed")
        common = {name: getattr(self, name) for name in _Common.model_fields}
        layers = tuple(layer for entry in self.layers for layer in entry.layers())
        return Detector(**common, layers=layers)


_TAGS = ("slice", "group", "xy", "polar")  # of pydantic, not of the file


def _checked(record: Any, where: str) -> Detector:
    try:
        if not isinstance(record, Mapping):
            raise ConfigError(
                f"{where} is not a valid detector: expected entries such as name and layers, got "
                f"{type(record).__name__}"
            )
        return _File.model_validate(record).detector()
    except ValidationError as error:
        lines, found = [], error.errors()
        for item in found:
            if item["type"] == "too_short" and any(
                other["loc"][: len(item["loc"])] == item["loc"] for other in found if other != item
            ):
                continue  # entries are missing because they are wrong, which has a line of its own
            path = ".".join(str(p) for p in item["loc"] if p not in _TAGS)
            words = item["msg"].removeprefix("Value error, ")
            if item["type"] == "extra_forbidden":
                words = "this entry does not exist"
            if item["type"] not in ("value_error", "missing"):
                words += f" (got {item['input']!r:.60})"
            lines.append(f"{path}: {words}" if path else words)
        raise ConfigError(
            f"{where} is not a valid detector:\n  "
            + "\n  ".join(lines)
            + "\ndocs/detectors.md describes the entries"
        ) from error


def _reach(cells: XYCells | PolarCells) -> str:
    if isinstance(cells, PolarCells):
        return f"a radius of {cells.radius_mm:g} mm"
    return "±{:g} mm in x and ±{:g} mm in y".format(*cells.half_width_mm)
