"""Simulate 500 electrons of 20 GeV in every detector with both engines, and draw the gallery.

    python tools/gallery.py [DETECTOR …] [--work FOLDER] [--n 500] [--workers 1]

Samples are kept in FOLDER (default results-work/gallery; extras gflash and geant4,
GEANT4_DATA_DIR) and finished ones are not made again; an interrupted run goes on. With names of
detectors only those are simulated; the page shows all that are there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from textwrap import fill

import numpy as np
from PIL import Image

from hepbridge.core.files import write_text
from hepbridge.data import Showers, io
from hepbridge.report.display import event_display
from hepbridge.report.plate import write_picture
from hepbridge.report.profiles import profiles
from hepbridge.simulate.detector import Detector, detectors, load_detector
from hepbridge.simulate.detector_text import parsed
from hepbridge.simulate.engines import GEANT4, GFLASH
from hepbridge.simulate.gun import Gun
from hepbridge.simulate.pairs import names, produce_pairs

DOCS = Path(__file__).resolve().parents[1] / "docs"
EVENT = 0  # never hand-picked
DPI = 140
SLICED = "squirels-sliced"
ORDER = ("squirels", SLICED, "calogan", "ild-ecal", "calochallenge-2", "calochallenge-3")


SLICES = """\
```yaml
name: squirels-sliced
layers:
  - repeat: 24
    cells: {kind: xy, n: [10, 10], pitch_mm: [30, 30]}
    slices:
      - {material: G4_PbWO4, mm: 10, active: true}
```"""


def sliced() -> Detector:
    """The crystals of SQuIRELS cut into 24 slices of 10 mm, to see along them."""
    text = SLICES.removeprefix("```yaml\n").removesuffix("```")
    return Detector.from_dict(parsed(text, SLICED))


def detector(name: str) -> Detector:
    return sliced() if name == SLICED else load_detector(name)


def simulate(name: str, work: Path, n: int, workers: int) -> None:
    described = detector(name)
    gun = Gun.of(described, "fixed:20", seed=1)
    produce_pairs(
        described, gun, n, work / name, fast=GFLASH, full=GEANT4, workers=workers, chunk=100
    )


def small(path: Path) -> None:
    """The picture with 256 colours, chosen to span all that it has: a third of the bytes."""
    palette = Image.Quantize.MAXCOVERAGE
    Image.open(path).convert("RGB").quantize(256, method=palette).save(path, optimize=True)


def draw(name: str, samples: dict[str, Showers]) -> str:
    """Two pictures, and their part of the page."""
    words = [f"## {name}\n", *heading(name), ""]
    folder = DOCS / "images"
    for kind, drawing in (
        ("display", lambda: event_display(samples, EVENT)),
        ("profiles", lambda: profiles(samples)),
    ):
        path = folder / f"gallery-{name}-{kind}.png"
        plate = write_picture(drawing, path, dpi=DPI, overwrite=True)
        small(path)
        words.append(
            f"![{plate.alt} Detector {name}.](images/{path.name})\n\n{fill(plate.caption, 100)}\n"
        )
    return "\n".join(words)


def heading(name: str) -> list[str]:
    described = detector(name)
    geometry, depth = described.geometry(), described.depth_x0()
    size = f"{len(described.layers)} layers" if len(described.layers) > 1 else "1 layer"
    text = f"{size}, {geometry.n_cells:,} cells, {described.depth_mm:g} mm = {depth:.1f} X0 deep."
    if name == SLICED:
        text += f" The same crystals, cut to see along them:\n\n{SLICES}"
    return [text]


def numbers(name: str, samples: dict[str, Showers]) -> list[str]:
    """Rows of the table: response, resolution, depth and radius of both engines."""
    rows = []
    for engine, s in samples.items():
        response = s.e_sum / s.incident_energy
        n = len(s)
        geometry, cells = s.geometry, s.cells.sum(axis=0, dtype=np.float64)
        width = response.std(ddof=1) / response.mean()
        root = 100 * width * np.sqrt(s.incident_energy.mean() / 1000)
        r = np.hypot(geometry.x_mm, geometry.y_mm)
        order = np.argsort(r, kind="stable")
        r90 = r[order][np.searchsorted(np.cumsum(cells[order]), 0.9 * cells.sum())]
        centre = "–"
        if len(geometry.planes()) > 1:
            each = (s.cells @ geometry.z_mm) / s.e_sum
            centre = f"{each.mean():.1f} ± {each.std(ddof=1) / n**0.5:.1f}"
        rows.append(
            f"| `{name}` | {engine} | {100 * response.mean():.3f} ± "
            f"{100 * response.std(ddof=1) / n**0.5:.3f} | {root:.2f} ± {root / (2 * n) ** 0.5:.2f} | "
            f"{centre} | {r90:.0f} | {(s.cells > 0.1).sum(axis=1).mean():.0f} |"
        )
    return rows


def page(parts: list[str], table: list[str], n: int) -> str:
    return "\n".join(
        [
            "# Gallery",
            "",
            fill(
                f"{n} electrons of 20 GeV on the axis of every [detector](detectors.md), with GFLASH "
                "and with Geant4 (electromagnetic physics, production cut 0.7 mm), as deposited in "
                "the active slices. Each event display is the first event of its sample.",
                100,
            ),
            "",
            "```console",
            "$ python tools/gallery.py",
            "```",
            "",
            "Pictures of files of your own:",
            "",
            "```console",
            "$ hepbridge simulate pairs ild-ecal --n 500 --energies fixed:20 --seed 1 -o ild",
            "$ hepbridge show Geant4=ild_full.h5 GFLASH=ild_fast.h5 -o display.png",
            "$ hepbridge show Geant4=ild_full.h5 GFLASH=ild_fast.h5 --profiles -o profiles.png",
            "```",
            "",
            "| detector | engine | visible, % of E | σ, % · √(E/GeV) | centre of gravity, mm | r90, mm "
            "| cells above 0.1 MeV |",
            "|---|---|---|---|---|---|---|",
            *table,
            "",
            fill(
                "σ is the spread of the plain sum of all cells; in crystals it is leakage and does not "
                "fall with √E. r90 is the distance from the axis of the cell centres within which "
                "90 % of the energy lie. GFLASH is a formula with the same constants for all "
                "media, in which the visible part (e/mip) and the [sampling "
                "fluctuations](gflash.md#sampling-fluctuations) are estimates: what it misses is "
                "what a refiner learns.",
                100,
            ),
            "",
            *parts,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("detectors", nargs="*", metavar="DETECTOR", help=", ".join(ORDER))
    parser.add_argument("--work", type=Path, default=Path("results-work/gallery"))
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    if unknown := set(args.detectors) - set(ORDER):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; allowed: {', '.join(ORDER)}")
    if missing := set(detectors()) - set(ORDER):
        raise SystemExit(f"no place in the gallery for {', '.join(sorted(missing))}")
    args.work.mkdir(parents=True, exist_ok=True)
    for name in args.detectors or ORDER:
        simulate(name, args.work, args.n, args.workers)
    parts, table = [], []
    for name in ORDER:
        fast, full = names(args.work / name)
        if not (fast.exists() and full.exists()):
            print(f"{name} has no samples yet and is left out")
            continue
        samples = {"Geant4": io.load(full), "GFLASH": io.load(fast)}
        parts.append(draw(name, samples))
        table += numbers(name, samples)
    write_text(DOCS / "gallery.md", page(parts, table, args.n), overwrite=True)


if __name__ == "__main__":
    main()
