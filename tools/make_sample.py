"""Cut the bundled sample out of the full shower files, or measure what its rounding does.

    python tools/make_sample.py SOURCE             writes src/hepbridge/data/bundled/*.h5
    python tools/make_sample.py SOURCE --measure   prints the effect of the rounding

SOURCE is the folder with squirels_{full,full2,gflash}_*.h5.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from hepbridge.core.rng import stream
from hepbridge.data import Showers, io, sample
from hepbridge.data.formats.calochallenge import open_calochallenge_writer

MANTISSA_BITS = 12
TRAIN_ROWS = 6000
FIXED_ROWS = 1000
LIMIT_BYTES = 10_000_000
EXTRA_META: dict[str, dict[str, str | float]] = {
    "full": {
        "particle": "e-",
        "physics_list": "G4EmStandardPhysics (the electromagnetic part of FTFP_BERT)",
        "production_cut_mm": 0.7,
    },
    "gflash": {"particle": "e-"},
}


def round_mantissa(values: NDArray[np.float32], bits: int = MANTISSA_BITS) -> NDArray[np.float32]:
    """Round to the nearest number with ``bits`` explicit mantissa bits, ties to even."""
    drop = 23 - bits
    raw = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    last_kept = (raw >> np.uint32(drop)) & np.uint32(1)
    raw = raw + np.uint32((1 << (drop - 1)) - 1) + last_kept
    return (raw & ~np.uint32((1 << drop) - 1)).view(np.float32)


def parts() -> list[tuple[Path, str, int]]:
    """(file of the sample, name of its source, rows)."""
    train = [("train_fast", "gflash_train"), ("train_full", "full_train")]
    chosen = [(sample.path(kind), f"squirels_{src}.h5", TRAIN_ROWS) for kind, src in train]
    for kind in sample.FIXED:
        for energy in sample.ENERGIES:
            chosen.append((sample.path(kind, energy), f"squirels_{kind}_e{energy}.h5", FIXED_ROWS))
    return chosen


def make(source: Path) -> None:
    sample.FOLDER.mkdir(exist_ok=True)
    total = 0
    for target, name, rows in parts():
        showers = io.load(source / name, rows=rows)  # event ids stay those of the source file
        kind = "gflash" if "gflash" in name else "full"
        meta = {
            **{f"source_{k}" if k == "geometry" else k: v for k, v in showers.meta.items()},
            **EXTRA_META[kind],
            "source_file": name,
            "source_rows": f"0:{rows}",
            "rounding": f"cell energies rounded to nearest, {MANTISSA_BITS} mantissa bits",
        }
        rounded = showers.with_cells(round_mantissa(showers.cells))
        with open_calochallenge_writer(
            target, meta=meta, n=rows, overwrite=True, level=9
        ) as writer:
            writer.append(rounded)
        total += target.stat().st_size
        print(f"{target.name:<16} {rows:>6} showers {target.stat().st_size:>9} bytes")
    print(f"total {total} bytes")
    if total > LIMIT_BYTES:
        sys.exit(f"the sample is larger than {LIMIT_BYTES} bytes: reduce TRAIN_ROWS")


Distance = Callable[[Showers, Showers], float]


def _plain(observable: Callable[[Showers], NDArray[np.float64]]) -> Distance:
    return lambda a, b: float(wasserstein_distance(observable(a), observable(b)))


def _log_cells(showers: Showers) -> NDArray[np.float64]:
    cells = showers.cells[showers.cells > 0.1].astype(np.float64)
    return np.log10(cells)


def _profile(axis: str) -> Distance:
    def distance(a: Showers, b: Showers) -> float:
        centre = a.geometry.centres(axis)
        sums = [s.cells.sum(axis=0, dtype=np.float64) for s in (a, b)]
        return float(wasserstein_distance(centre, centre, *sums))

    return distance


OBSERVABLES: dict[str, Distance] = {
    "e_sum": _plain(lambda s: s.e_sum / 1e3),
    "e_max": _plain(lambda s: s.cells.max(axis=1) / 1e3),
    "n_hit": _plain(lambda s: (s.cells > 1.0).sum(axis=1)),
    "e_spec": _plain(lambda s: np.where(s.cells < 0.1, 0, s.cells)[:1000].ravel() / 1e3),
    "e_spec_log": _plain(_log_cells),
    "profile_x": _profile("x"),
    "profile_y": _profile("y"),
}


def measure(source: Path, splits: int = 20) -> None:
    """EMD(full, rounded full) against the mean EMD of two full samples, at the sample's n."""
    rng = stream(0, "make_sample measure")
    print(f"{'':>15}" + "".join(f"{name:>12}" for name in OBSERVABLES))
    for energy in sample.ENERGIES:
        full, full2 = (io.load(source / f"squirels_{k}_e{energy}.h5") for k in ("full", "full2"))
        pool = Showers.from_arrays(
            np.concatenate([full.cells, full2.cells]),
            np.concatenate([full.incident_energy, full2.incident_energy]),
        )
        part = full[:FIXED_ROWS]
        rounded = part.with_cells(round_mantissa(part.cells))
        effect = np.array([d(part, rounded) for d in OBSERVABLES.values()])
        floors = []
        for _ in range(splits):
            rows = rng.permutation(len(pool))[: 2 * FIXED_ROWS]
            a, b = pool[rows[:FIXED_ROWS]], pool[rows[FIXED_ROWS:]]
            floors.append([d(a, b) for d in OBSERVABLES.values()])
        floor = np.mean(floors, axis=0)
        for title, row in (("rounding", effect), ("floor", floor), ("ratio", effect / floor)):
            print(f"{energy} GeV {title:>8}" + "".join(f"{value:12.2e}" for value in row))
        flips = {t: int(((part.cells > t) != (rounded.cells > t)).sum()) for t in (0.1, 1.0)}
        print(f"{'':>7}cells across a threshold {flips} (MeV: count) of {part.cells.size}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path, nargs="?", default=Path("../shared/showers"))
    parser.add_argument("--measure", action="store_true")
    arguments = parser.parse_args()
    (measure if arguments.measure else make)(arguments.source)
