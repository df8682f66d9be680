"""Where Geant4 takes its production cut from: printed by a Geant4 of its own.

    python tools/results/simulators_cut.py before|after|never CUT_MM

Sets the default cut of a modular physics list before or after ``Initialize`` (or not at all), runs
one photon, and prints Geant4's table of cuts in range.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hepbridge.simulate.detector import load_detector
from hepbridge.simulate.geant4.datasets import find_datasets, worker_environment
from hepbridge.simulate.geant4.geometry import construction
from hepbridge.simulate.geant4.physics import physics_list

WHEN = ("before", "after", "never")
_MM = {"um": 1e-3, "mm": 1.0}
_CRYSTALS = re.compile(r"Material : G4_PbWO4\s+Range cuts .*? e-\s+([\d.]+) (um|mm)")


def cuts(cut_mm: float) -> dict[str, float]:
    """When the cut was set -> cut of the crystals in mm. Needs geant4-pybind and its data."""
    found = {}
    for when in WHEN:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, __file__, when, str(cut_mm)],
                env=worker_environment(find_datasets(), Path(folder)),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
                check=True,
            )
        match = _CRYSTALS.search(done.stdout)
        if match is None:
            raise SystemExit(f"Geant4 printed no cut of G4_PbWO4:\n{done.stdout[-2000:]}")
        found[when] = float(match[1]) * _MM[match[2]]
    return found


def main(when: str, cut_mm: float) -> None:
    import geant4_pybind as g4

    manager = g4.G4RunManagerFactory.CreateRunManager(g4.G4RunManagerType.Serial)
    volumes = construction(g4, load_detector("squirels"))
    physics = physics_list(g4, "em")
    manager.SetUserInitialization(volumes)
    if when == "before":
        physics.SetDefaultCutValue(cut_mm)
    manager.SetUserInitialization(physics)
    manager.Initialize()
    if when == "after":
        physics.SetDefaultCutValue(cut_mm)

    class Gun(g4.G4VUserPrimaryGeneratorAction):  # type: ignore[misc]  # untyped library
        def __init__(self) -> None:
            super().__init__()
            self.gun = g4.G4ParticleGun(1)

        def GeneratePrimaries(self, event: Any) -> None:
            self.gun.SetParticleDefinition(
                g4.G4ParticleTable.GetParticleTable().FindParticle("gamma")
            )
            self.gun.SetParticleEnergy(1.0)
            self.gun.SetParticleMomentumDirection(g4.G4ThreeVector(0, 0, 1))
            self.gun.GeneratePrimaryVertex(event)

    gun = Gun()
    manager.SetUserAction(gun)
    manager.BeamOn(1)
    g4.G4ProductionCutsTable.GetProductionCutsTable().DumpCouples()
    sys.stdout.flush()
    os._exit(0)  # tearing Geant4 down can crash


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
