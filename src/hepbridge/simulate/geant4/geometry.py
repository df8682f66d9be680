"""The volumes of a detector in Geant4 and their scorers in C++. Runs in a worker only.

geant4-pybind is handed in as ``g4``: importing it in the main process could ask on standard input.
Lengths and energies are in Geant4's units, millimetre and MeV, which are ours.

A slab is one volume. In an active slab, the grid of cells is made of real volumes of the same
material: rectangles are replicas in x, and in those replicas in y; sectors are replicas in φ, and
in those a tube segment for each ring (Geant4 allows nothing inside replicas in r, and these would
have equal widths). The scorer of a layer, `G4PSEnergyDeposit3D`, reads the cell off the two copy
numbers, so that no Python runs between the steps of an event.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hepbridge.core.errors import ConfigError
from hepbridge.simulate.detector import Detector, PolarCells, XYCells
from hepbridge.simulate.materials import material

__all__ = ["MARGIN_MM", "construction", "scorer_names"]

MARGIN_MM = 10.0  # of world around the slabs


def scorer_names(detector: Detector) -> list[str]:
    """The hits collections, one per layer."""
    return [f"layer{number}/deposit" for number in range(len(detector.layers))]


def construction(g4: Any, detector: Detector) -> Any:
    """A `G4VUserDetectorConstruction` of the detector.

    Its ``Construct`` raises ConfigError for a material that Geant4 does not know.
    """

    class Construction(g4.G4VUserDetectorConstruction):  # type: ignore[misc]  # untyped library
        def Construct(self) -> Any:
            self.volumes = _Volumes(g4, detector)
            return self.volumes.world

        def ConstructSDandField(self) -> None:
            manager = g4.G4SDManager.GetSDMpointer()
            self.scorers = []
            for number, layer in enumerate(detector.layers):
                score = g4.G4MultiFunctionalDetector(f"layer{number}")
                manager.AddNewDetector(score)
                n = layer.cells.n if isinstance(layer.cells, XYCells) else _polar_shape(layer.cells)
                deposit = g4.G4PSEnergyDeposit3D("deposit", 1, *n, 2, 1, 0)
                score.RegisterPrimitive(deposit)
                for cell in self.volumes.cells[number]:
                    self.SetSensitiveDetector(cell, score)
                self.scorers += [score, deposit]

    return Construction()


def _polar_shape(cells: PolarCells) -> tuple[int, int]:
    return cells.n_phi, cells.n_r


class _Volumes:
    """Makes all volumes; Geant4 does not own them, so they stay here.

    Attributes:
        world: the physical volume of the world.
        cells: layer -> logical volumes of its cells.
    """

    def __init__(self, g4: Any, detector: Detector) -> None:
        self.g4, self.detector = g4, detector
        self.kept: list[Any] = []
        self.cells: list[list[Any]] = [[] for _ in detector.layers]
        outline, slabs = detector.envelope(), detector.slabs()
        world = self.logical(
            "world",
            g4.G4Box(
                "world",
                outline.x_mm + MARGIN_MM,
                outline.y_mm + MARGIN_MM,
                slabs[-1].z1_mm + MARGIN_MM,  # centred on z = 0, the front face
            ),
            detector.world,
        )
        self.world = self.place("world", world, None, 0.0)
        made: dict[tuple[Any, ...], Any] = {}  # equal slabs are one logical volume, placed often
        for slab in slabs:
            mm = slab.z1_mm - slab.z0_mm
            key = (slab.material, round(mm, 9), slab.layer if slab.active else None)
            if key not in made:
                made[key] = self.slab(slab.material, mm, slab.layer if slab.active else None)
            self.place("slab", made[key], world, slab.z0_mm + mm / 2)

    def slab(self, name: str, mm: float, layer: int | None) -> Any:
        outline = self.detector.envelope()
        if outline.shape == "tube":
            solid = self.g4.G4Tubs("slab", 0.0, outline.x_mm, mm / 2, 0.0, 2 * math.pi)
        else:
            solid = self.g4.G4Box("slab", outline.x_mm, outline.y_mm, mm / 2)
        slab = self.logical("slab", solid, name)
        if layer is not None:
            cells = self.detector.layers[layer].cells
            fill: Callable[..., None] = (
                self.fill_xy if isinstance(cells, XYCells) else self.fill_polar
            )
            fill(slab, cells, name, mm, self.cells[layer])
        return slab

    def fill_xy(self, slab: Any, cells: XYCells, name: str, mm: float, found: list[Any]) -> None:
        """Replicas in x, and in each of those replicas in y."""
        g4, (nx, ny), (px, py) = self.g4, cells.n, cells.pitch_mm
        half_x, half_y = cells.half_width_mm
        grid = self.logical("grid", g4.G4Box("grid", half_x, half_y, mm / 2), name)
        self.place("grid", grid, slab, 0.0)
        column = self.logical("column", g4.G4Box("column", px / 2, half_y, mm / 2), name)
        cell = self.logical("cell", g4.G4Box("cell", px / 2, py / 2, mm / 2), name)
        self.kept.append(g4.G4PVReplica("column", column, grid, g4.kXAxis, nx, px))
        self.kept.append(g4.G4PVReplica("cell", cell, column, g4.kYAxis, ny, py))
        found.append(cell)

    def fill_polar(
        self, slab: Any, cells: PolarCells, name: str, mm: float, found: list[Any]
    ) -> None:
        """Replicas in φ from -π, and in each of those the segments of the rings."""
        g4, turn = self.g4, 2 * math.pi / cells.n_phi
        disc = g4.G4Tubs("grid", 0.0, cells.radius_mm, mm / 2, 0.0, 2 * math.pi)
        mother = self.logical("grid", disc, name)
        self.place("grid", mother, slab, 0.0)
        if cells.n_phi > 1:  # a replica's own axis x is the middle of its sector
            solid = g4.G4Tubs("sector", 0.0, cells.radius_mm, mm / 2, -turn / 2, turn)
            sector = self.logical("sector", solid, name)
            self.kept.append(
                g4.G4PVReplica("sector", sector, mother, g4.kPhi, cells.n_phi, turn, -math.pi)
            )
            mother = sector
        for ring, (low, high) in enumerate(zip(cells.r_mm, cells.r_mm[1:], strict=False)):
            solid = g4.G4Tubs("cell", low, high, mm / 2, -turn / 2, turn)
            cell = self.logical("cell", solid, name)
            self.place("cell", cell, mother, 0.0, ring)
            found.append(cell)

    def logical(self, name: str, solid: Any, of: str) -> Any:
        volume = self.g4.G4LogicalVolume(solid, self.material(of), name)
        self.kept += [solid, volume]
        return volume

    def place(self, name: str, volume: Any, mother: Any, z_mm: float, copy: int = 0) -> Any:
        at = self.g4.G4ThreeVector(0.0, 0.0, z_mm)
        placed = self.g4.G4PVPlacement(None, at, volume, name, mother, False, copy)
        self.kept.append(placed)
        return placed

    def material(self, name: str) -> Any:
        """Geant4's own material of that name, or one made of the detector's composition."""
        g4, own = self.g4, self.detector.materials
        known = g4.G4NistManager.Instance()
        if name not in own:
            found = known.FindOrBuildMaterial(name)
            if found is None:
                raise ConfigError(
                    f"material {name!r} of detector {self.detector.name!r} is neither one of the "
                    "detector's 'materials' nor a NIST material of Geant4"
                )
            return found
        made = g4.G4Material.GetMaterial(f"own {name}", False)
        if made is None:
            mixture = material(name, own)
            made = g4.G4Material(
                f"own {name}", mixture.density_g_cm3 * g4.g / g4.cm3, len(mixture.fractions)
            )
            for z, fraction in mixture.fractions.items():
                made.AddElementByMassFraction(known.FindOrBuildElement(z), fraction)
            self.kept.append(made)
        return made
