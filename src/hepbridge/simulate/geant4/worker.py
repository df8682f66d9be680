"""One block of showers in a process of its own: ``python -m hepbridge.simulate.geant4.worker``.

The arguments are a request (``.npz``), the output (``.npy``) and a status file, to which a line is
appended for every step done: ``geant4 VERSION``, ``ready``, ``event``, ``done``; ``error TEXT`` if the
request cannot be. The process ends by ``os._exit``, because tearing Geant4 down can crash.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError
from hepbridge.core.files import save_array
from hepbridge.simulate.detector import Detector
from hepbridge.simulate.geant4.geometry import construction, scorer_names
from hepbridge.simulate.geant4.physics import physics_list

__all__ = ["event_seed", "main"]

BACK_MM = 0.01  # a particle starts this much before the front face
_SEED_BITS = 8 * struct.calcsize("l") - 1  # Geant4 takes a C long: 63 bits, on Windows 31


def event_seed(seed: int, event_id: NDArray[np.uint64]) -> int:
    """The state from which Geant4's generator (MixMax) starts an event: a hash of seed and id.

    As in Geant4's own multi-threaded runs, a shower then depends on no event before it.
    """
    text = f"geant4\x1f{seed}\x1f{int(event_id[0])}\x1f{int(event_id[1])}"
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    return (number >> (64 - _SEED_BITS)) or 1


def main(arguments: list[str]) -> int:
    """Run a request. Returns 0, or 3 with ``error TEXT`` in the status file."""
    request, output, status = (Path(a) for a in arguments)
    with open(status, "a", encoding="utf-8", buffering=1) as lines:

        def say(text: str) -> None:
            lines.write(text.replace("\n", " ") + "\n")

        try:
            with np.load(request, allow_pickle=False) as stored:
                job = dict(stored)
            settings = json.loads(str(job.pop("settings")))
            g4 = _geant4(say)
            if settings["detector"] is not None:
                cells = _simulate(g4, settings, job, say)
                save_array(output, cells)
        except ConfigError as error:
            say(f"error {error}")
            return 3
        say("done")
    return 0


def _geant4(say: Callable[[str], None]) -> Any:
    import geant4_pybind as g4

    version = re.search(r"geant4-(\d+)-(\d+)(?:-patch-(\d+))?", str(g4.G4Version))
    numbers = [str(int(part)) for part in version.groups() if part] if version else ["unknown"]
    say(f"geant4 {'.'.join(numbers)}")
    return g4


def _simulate(
    g4: Any, settings: dict[str, Any], job: dict[str, NDArray[Any]], say: Callable[[str], None]
) -> NDArray[np.float32]:
    detector = Detector.from_dict(settings["detector"])
    # pybind11 forgets the Python side of objects that only Geant4 holds: keep a name for each
    manager = g4.G4RunManagerFactory.CreateRunManager(g4.G4RunManagerType.Serial)
    volumes = construction(g4, detector)
    physics = physics_list(g4, settings["physics"])
    manager.SetUserInitialization(volumes)
    manager.SetUserInitialization(physics)
    manager.Initialize()
    physics.SetDefaultCutValue(settings["cut_mm"])  # before, Geant4 would forget it
    cells = np.zeros((len(job["particle"]), detector.geometry().n_cells), np.float32)
    gun, readout = _gun(g4, settings, job), _readout(g4, detector, cells, say)
    manager.SetUserAction(gun)
    manager.SetUserAction(readout)
    say("ready")
    manager.BeamOn(len(cells))
    g4.G4ProductionCutsTable.GetProductionCutsTable().DumpCouples()  # for the log
    return cells


def _gun(g4: Any, settings: dict[str, Any], job: dict[str, NDArray[Any]]) -> Any:
    """The primary of each event, from its row of the job; there the event's random numbers start."""
    table = g4.G4ParticleTable.GetParticleTable()
    known = {str(name): table.FindParticle(str(name)) for name in np.unique(job["particle"])}
    if unknown := [name for name, found in known.items() if found is None]:
        raise ConfigError(f"Geant4 knows no particle {', '.join(map(repr, unknown))}")

    class Gun(g4.G4VUserPrimaryGeneratorAction):  # type: ignore[misc]  # untyped library
        def __init__(self) -> None:
            super().__init__()
            self.gun = g4.G4ParticleGun(1)

        def GeneratePrimaries(self, event: Any) -> None:
            if os.name == "posix" and os.getppid() != settings["parent"]:
                os._exit(4)  # nobody waits for the result any more
            row = event.GetEventID()
            g4.G4Random.setTheSeed(event_seed(settings["seed"], job["event_ids"][row]))
            direction = job["direction"][row]
            start = job["impact_mm"][row] - BACK_MM * direction
            self.gun.SetParticleDefinition(known[str(job["particle"][row])])
            self.gun.SetParticleEnergy(float(job["energy_mev"][row]))
            self.gun.SetParticleMomentumDirection(g4.G4ThreeVector(*direction.tolist()))
            self.gun.SetParticlePosition(g4.G4ThreeVector(*start.tolist()))
            self.gun.GeneratePrimaryVertex(event)

    return Gun()


def _readout(
    g4: Any, detector: Detector, cells: NDArray[np.float32], say: Callable[[str], None]
) -> Any:
    """Copies the scorers into a row of ``cells`` at the end of each event."""
    scorers = g4.G4SDManager.GetSDMpointer()
    collections = [scorers.GetCollectionID(name) for name in scorer_names(detector)]
    first = np.cumsum([0, *(layer.cells.n_cells for layer in detector.layers)]).tolist()

    class Readout(g4.G4UserEventAction):  # type: ignore[misc]  # untyped library
        def EndOfEventAction(self, event: Any) -> None:
            row, hits = event.GetEventID(), event.GetHCofThisEvent()
            for collection, offset in zip(collections, first, strict=False):
                for cell, deposit in hits.GetHC(collection):
                    cells[row, offset + cell] = deposit
            say("event")

    return Readout()


def run() -> None:
    """Entry point of the process."""
    code = 1
    try:
        code = main(sys.argv[1:])
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
