"""Peak resident memory of one worker: python tools/results/simulators_memory.py gflash|refined|geant4

Prints MB. Each is measured in a process of its own that does nothing else.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from hepbridge.simulate.beam import Beam
from hepbridge.simulate.detector import load_detector

WORKERS = {"gflash": 10_000, "refined": 10_000, "geant4": 50}  # showers, a piece of work of each
MODEL = "squirels"


def peaks() -> dict[str, float]:
    """MB of every worker."""
    return {
        name: float(
            subprocess.run(
                [sys.executable, __file__, name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for name in WORKERS
    }


def main(name: str) -> None:
    detector = load_detector("squirels")
    beam = Beam.of(np.linspace(1e4, 1e5, WORKERS[name]))
    if name == "geant4":
        from hepbridge.simulate.geant4 import simulate as geant4

        geant4(detector, beam, seed=0, physics="em")
        kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    else:
        from hepbridge.simulate.gflash import simulate

        cells = simulate(detector, beam, seed=0, threads=1)
        if name == "refined":
            from hepbridge.systems.inference import refine_cells
            from hepbridge.systems.model_file import load, locate

            refine_cells(load(locate(MODEL)), cells, beam.energy_mev, beam.event_ids)
        # of this process alone: ru_maxrss of a new process begins with its parent's
        status = Path("/proc/self/status").read_text(encoding="ascii")
        kb = int(status.partition("VmHWM:")[2].split()[0])
    print(kb / 1024)


if __name__ == "__main__":
    main(sys.argv[1])
