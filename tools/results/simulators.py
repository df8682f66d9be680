"""Judge and time the simulators, and write docs/results/simulators.md.

    python tools/results/simulators.py --showers FOLDER [--only PART | --speed-only | --from-json]

The folder holds ``squirels_{full,full2}_{e20,e50,e80,test}.h5`` and ``squirels_gflash_*.h5``. Geant4
(extra geant4, GEANT4_DATA_DIR) makes its showers in the work folder, resumably, in about twenty
minutes of one core. What was measured is kept in ``WORK/simulators.json``: ``--only gflash`` or
``geant4`` measures that part again, ``--speed-only`` speed and memory (ten minutes; leave the machine
alone), ``--from-json`` nothing; all write the page anew.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import simulators_figures as figures
import simulators_judge as judge
from models import showers
from simulators_cut import cuts
from simulators_memory import peaks
from simulators_page import RECORDED_MS, page
from simulators_speed import speed

from hepbridge.core.files import write_text
from hepbridge.simulate.geant4 import geant4_version

DOCS = Path(__file__).parents[2] / "docs" / "results"
PARTS = ("gflash", "geant4", "speed")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--showers", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("results-work"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--fixed", type=int, default=500, help="Geant4 showers per energy and cut")
    parser.add_argument("--mixed", type=int, default=4000, help="Geant4 showers of 10 to 100 GeV")
    parser.add_argument("--repeats", type=int, default=10, help="rounds of the timing")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--only", choices=PARTS, help="measure one part again")
    some.add_argument("--speed-only", dest="only", action="store_const", const="speed")
    some.add_argument("--from-json", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.docs.mkdir(parents=True, exist_ok=True)
    kept = args.work / "simulators.json"
    found = json.loads(kept.read_text("utf-8")) if kept.exists() else {}

    def keep(**measured: Any) -> None:
        """Every part is on disk as soon as it is known."""
        found.update(measured, date=datetime.now(UTC).isoformat(timespec="seconds"))
        write_text(kept, json.dumps(found, indent=1))

    todo = () if args.from_json else (args.only,) if args.only else PARTS
    if "gflash" in todo:
        keep(gflash=measure_gflash(args.showers, args.docs))
    if "geant4" in todo:
        keep(geant4=measure_geant4(args))
    if "speed" in todo:
        keep(speed=speed(args.repeats), memory=peaks())
    if "speed" in found:
        figures.times(found["speed"], RECORDED_MS, args.docs / "simulators-speed.png")
    write_text(args.docs / "simulators.md", page(found))


def measure_gflash(folder: Path, docs: Path) -> dict[str, Any]:
    compared, means = judge.gflash(folder)
    figures.comparisons(compared, docs / "simulators-gflash", "Geant4's GFLASH")
    return {
        "about": showers(folder, "gflash", "test").meta,
        "evaluations": {name: c.evaluation.to_dict() for name, c in compared.items()},
        "means": means,
    }


def measure_geant4(args: argparse.Namespace) -> dict[str, Any]:
    compared, means = judge.geant4(args.showers, args.work / "simulators", args.fixed, args.mixed)
    figures.comparisons(compared, args.docs / "simulators-geant4", "full simulation")
    return {
        "about": showers(args.showers, "full", "test").meta,
        "n": [args.fixed, args.mixed],
        "version": geant4_version(),
        "cuts": cuts(0.7),
        "evaluations": {name: c.evaluation.to_dict() for name, c in compared.items()},
        "means": means,
    }


if __name__ == "__main__":
    main()
