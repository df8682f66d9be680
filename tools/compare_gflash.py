"""Compare hepbridge's GFLASH with showers of Geant4's GFLASH, or time it.

    python tools/compare_gflash.py SAMPLE.h5 [--n 10000] [--seed 0]   table and classifier test
    python tools/compare_gflash.py --speed                            microseconds per shower
    python tools/compare_gflash.py --media [MEDIUM …] [--n 40]       against full simulation

SAMPLE.h5 holds showers of Geant4's GFLASH in the SQuIRELS detector at many incident energies. The
floor is between real showers: the sample is sorted by incident energy and neighbours are dealt to
two halves, cells scaled by the ratio of their energies (about 1e-4). ``--media`` simulates showers
of 20 GeV with Geant4 (extra geant4, GEANT4_DATA_DIR) in calorimeters of four media.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from hepbridge.core.rng import stream
from hepbridge.data import Showers, io
from hepbridge.metrics import evaluate
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.detector import Detector, load_detector
from hepbridge.simulate.gflash import simulate


def halves(showers: Showers, n: int, seed: int) -> tuple[Showers, Showers]:
    """Two samples of ``n`` real showers, row i of both at the energy of row i of the first."""
    rng = stream(seed, "halves")
    rows = rng.permutation(len(showers))[: 2 * n]
    pairs = rows[np.argsort(showers.incident_energy[rows])].reshape(n, 2)
    pairs = rng.permuted(pairs, axis=1)[rng.permutation(n)]
    ref, other = showers[pairs[:, 0]], showers[pairs[:, 1]]
    scale = ref.incident_energy / other.incident_energy
    cells = (other.cells * scale[:, None]).astype(np.float32)
    return ref, ref.with_cells(cells)


def compare(path: str, n: int, seed: int) -> None:
    ref, ref2 = halves(io.load(path), n, seed)
    ours = simulate(load_detector("squirels"), Beam.of(ref.incident_energy), seed=seed)
    result = evaluate(ref, {"ours": ref.with_cells(ours)}, ref2, seed=seed)
    (found,) = result.sets
    print(f"n = {n}, incident energies 10 to 100 GeV\n")
    print(
        "| observable | EMD | floor | EMD / floor | above the floor's 95 % |\n|---|---|---|---|---|"
    )
    for row in found["rows"]:
        cell, floor = row["candidates"]["ours"], row["floor"]
        print(
            f"| `{row['observable']}` | {cell['emd_sample']:.3g} | {floor['mean']:.3g} | "
            f"{cell['ratio']:.2f} | {'yes' if cell['above_q95'] else 'no'} |"
        )
    for name, levels in found["classifier"]["ours"].items():
        for level, c in levels.items():
            print(
                f"\n{name}, {level} level: AUC {c['auc']:.4f} ± {c['se']:.4f}, "
                f"floor {c['floor_auc']:.4f} ± {c['floor_se']:.4f}"
            )


def whole(path: str, seed: int) -> None:
    """Every real shower against one of ours at its energy: differences in standard errors."""
    real = io.load(path)
    energy = real.incident_energy
    ours = simulate(load_detector("squirels"), Beam.of(energy), seed=seed)
    print(f"\nn = {len(real)}\n\n| observable | Geant4's GFLASH | ours | difference / error |")
    print("|---|---|---|---|")
    for name, quantity in {
        "energy sum / E": lambda c: c.sum((1, 2)) / energy,
        "largest cell / E": lambda c: c.max((1, 2)) / energy,
        "central 4 cells / E": lambda c: c[:, 4:6, 4:6].sum((1, 2)) / energy,
        "central 16 cells / E": lambda c: c[:, 3:7, 3:7].sum((1, 2)) / energy,
        "cells above 1 MeV": lambda c: (c > 1).sum((1, 2)) + 0.0,
        "cells above 100 MeV": lambda c: (c > 100).sum((1, 2)) + 0.0,
    }.items():
        a, b = (quantity(c.astype(float).reshape(-1, 10, 10)) for c in (real.cells, ours))
        error = (a - b).std() / len(a) ** 0.5
        print(f"| {name} | {a.mean():.5f} | {b.mean():.5f} | {(b - a).mean() / error:+.1f} |")


def speed(n: int = 1000, repeats: int = 10) -> None:
    """Median and least CPU and wall time of a single thread."""
    detector = load_detector("squirels")
    beams = {f"{e} GeV": Beam.of(np.full(n, 1e3 * e)) for e in (10, 50, 100)}
    beams["10 to 100 GeV"] = Beam.of(stream(0, "speed").uniform(1e4, 1e5, n))
    simulate(detector, beams["10 GeV"], seed=0, threads=1)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in beams}
    for _ in range(repeats):
        for name, beam in beams.items():
            wall, cpu = time.perf_counter(), time.process_time()
            simulate(detector, beam, seed=0, threads=1)
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    print("| energy | CPU µs (median, least) | wall µs (median, least) |\n|---|---|---|")
    for name, times in taken.items():
        (wall, cpu), (least, least_cpu) = np.median(times, 0), np.min(times, 0)
        each = 1e6 / n
        print(
            f"| {name} | {cpu * each:.0f}, {least_cpu * each:.0f} | "
            f"{wall * each:.0f}, {least * each:.0f} |"
        )


def media() -> dict[str, Detector]:
    """Calorimeters with small cells and many layers."""
    layers = {
        "PbWO4": (40, 60, 5, [("G4_PbWO4", 8.92, True)]),
        "CsI": (40, 40, 10, [("G4_CESIUM_IODIDE", 15.0, True)]),
        "Pb-LAr": (80, 40, 10, [("G4_Pb", 2.0, False), ("G4_lAr", 4.0, True)]),
    }
    found = {}
    for name, (repeat, n, pitch, slices) in layers.items():
        layer = {
            "repeat": repeat,
            "cells": {"kind": "xy", "n": [n, n], "pitch_mm": [pitch, pitch]},
            "slices": [{"material": m, "mm": mm, "active": a} for m, mm, a in slices],
        }
        found[name] = Detector.from_dict({"name": name, "half_width_mm": 500, "layers": [layer]})
    return {**found, "ild-ecal": load_detector("ild-ecal")}


def against_geant4(names: list[str], n: int, seed: int) -> None:
    from hepbridge.simulate.geant4 import simulate as geant4

    print("| medium | engine | visible, % | centre of gravity, layers | r50, r90, mm | σ, %/√E |")
    print("|---|---|---|---|---|---|")
    for name in names:
        detector = media()[name]
        few, many = (Beam.of(np.full(k, 2e4)) for k in (n, 400))
        found = {
            "Geant4": geant4(detector, few, seed=seed),
            "GFLASH": simulate(detector, many, seed=seed),
            "GFLASH, published": simulate(detector, many, seed=seed, published=True),
        }
        x, y = detector.layers[0].cells.centres_mm()
        order = np.argsort(np.hypot(x, y))
        for engine, cells in found.items():
            c = cells.astype(float).reshape(len(cells), len(detector.layers), -1)
            total, depth = c.sum((1, 2)), np.arange(c.shape[1]) + 0.5
            centre = c.sum(2) @ depth / total
            inside = np.cumsum(c.sum((0, 1))[order]) / c.sum()
            r50, r90 = (np.hypot(x, y)[order][np.searchsorted(inside, q)] for q in (0.5, 0.9))
            width = total.std() / total.mean() * 20**0.5
            print(
                f"| {name} | {engine} | {100 * total.mean() / 2e4:.1f} | {centre.mean():.2f} ± "
                f"{centre.std() / len(c) ** 0.5:.2f} | {r50:.0f}, {r90:.0f} | {100 * width:.1f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("sample", nargs="?")
    parser.add_argument("--n", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--media", nargs="*", metavar="MEDIUM", help=f"of {', '.join(media())}")
    args = parser.parse_args()
    if args.speed:
        speed()
    if args.sample:
        compare(args.sample, args.n or 10_000, args.seed)
        whole(args.sample, args.seed)
    if args.media is not None:
        against_geant4(args.media or list(media()), args.n or 40, args.seed)


if __name__ == "__main__":
    main()
