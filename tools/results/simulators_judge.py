"""The simulators against samples of Geant4: distances with floors, classifiers, means."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from judge import FIXED, SETTINGS
from models import showers
from numpy.typing import NDArray

import hepbridge as hb
from hepbridge.data.join import join
from hepbridge.data.showers import Showers
from hepbridge.metrics.evaluation import Evaluation
from hepbridge.report.samples import Samples
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.detector import load_detector
from hepbridge.simulate.gflash import simulate

sys.path.append(str(Path(__file__).parents[1]))
from compare_gflash import halves

COMMAND = "make results-simulators"
OURS = "hepbridge"
CUTS = ("0.7", "1.0")  # mm
HALF = 10_000  # showers in a sample of the comparisons at mixed energies
# Every sample has random numbers of its own: seed of GFLASH, and of Geant4 for each cut.
SEEDS = {"e20": 20, "e50": 50, "e80": 80, "test": 1, "train": 0}
SHIFT = {"0.7": 0, "1.0": 100}

QUANTITIES: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "energy sum / E": lambda c, e: c.sum((1, 2)) / e,
    "largest cell / E": lambda c, e: c.max((1, 2)) / e,
    "central 4 cells / E": lambda c, e: c[:, 4:6, 4:6].sum((1, 2)) / e,
    "central 16 cells / E": lambda c, e: c[:, 3:7, 3:7].sum((1, 2)) / e,
    "cells above 0.1 MeV": lambda c, e: (c > 0.1).sum((1, 2)) + 0.0,
    "cells above 1 MeV": lambda c, e: (c > 1).sum((1, 2)) + 0.0,
    "cells above 100 MeV": lambda c, e: (c > 100).sum((1, 2)) + 0.0,
}


@dataclass(frozen=True)
class Compared:
    """An evaluation and the showers that it is of, for the figures."""

    evaluation: Evaluation
    samples: Samples


def gflash(folder: Path) -> tuple[dict[str, Compared], dict[str, Any]]:
    """Our GFLASH against Geant4's: fixed energies, test and train; and means of all showers.

    The floor is between real showers: each fixed-energy sample is split in half by `evaluate`, the
    others by `halves`. ``train, all`` has half of all showers, and no classifier.
    """
    real = {part: showers(folder, "gflash", part) for part in SEEDS}
    ours = {part: _ours(sample, SEEDS[part]) for part, sample in real.items()}
    found = {
        "fixed": _compared(
            join([real[p] for p in FIXED]), {OURS: join([ours[p] for p in FIXED])}, None
        )
    }
    for part, name, n, classifiers in (
        ("test", "test", HALF, ("trees",)),
        ("train", "train", HALF, ("trees",)),
        ("train", "train, all", None, ()),
    ):
        most = len(real[part]) // 2
        ref, ref2 = halves(real[part], most if n is None else min(n, most), 0)
        found[name] = _compared(ref, {OURS: _ours(ref, SEEDS[part])}, ref2, classifiers)
    return found, {part: _means(sample, ours[part]) for part, sample in real.items()}


def _ours(real: Showers, seed: int) -> Showers:
    """Our GFLASH at the incident energies of a sample."""
    beam = Beam.of(real.incident_energy)
    return real.with_cells(simulate(load_detector("squirels"), beam, seed=seed))


def geant4(
    folder: Path, work: Path, n_fixed: int, n_mixed: int
) -> tuple[dict[str, Compared], dict[str, Any]]:
    """Our Geant4 against the full samples, with two production cuts at fixed energies."""
    made = {name: hb.load(path) for name, path in produce(folder, work, n_fixed, n_mixed).items()}
    full = {p: [showers(folder, kind, p) for kind in ("full", "full2")] for p in (*FIXED, "test")}
    ref, ref2 = (join([full[p][k] for p in FIXED]) for k in (0, 1))
    candidates = {label(cut): join([made[cut, p] for p in FIXED]) for cut in CUTS}
    found = {
        "fixed": _compared(ref, candidates, ref2),
        "test": _compared(full["test"][0], {label(CUTS[0]): made[CUTS[0], "test"]}, full["test"][1]),
    }  # fmt: skip
    means = {
        p: {label(c): _means(join(full[p]), made[c, p]) for c in CUTS if (c, p) in made}
        for p in FIXED
    }
    mixed = made[CUTS[0], "test"]
    means["test"] = {label(CUTS[0]): _means(full["test"][0][: len(mixed)], mixed)}
    return found, means


def label(cut: str) -> str:
    return f"cut {cut} mm"


def produce(folder: Path, work: Path, n_fixed: int, n_mixed: int) -> dict[tuple[str, str], Path]:
    """(cut, part) -> file, made by `commands`; a finished file is not made again."""
    work.mkdir(parents=True, exist_ok=True)
    out = {}
    for (cut, part), command in commands(folder, work, n_fixed, n_mixed).items():
        subprocess.run([sys.executable, "-m", *command], stdin=subprocess.DEVNULL, check=True)
        out[cut, part] = Path(command[-1])
    return out


def commands(
    folder: Path, work: Path, n_fixed: int, n_mixed: int
) -> dict[tuple[str, str], list[str]]:
    """The command line of every sample."""
    wanted = [(cut, part) for part in FIXED for cut in CUTS] + [(CUTS[0], "test")]
    out = {}
    for cut, part in wanted:
        mixed = part == "test"
        energies = f"file:{folder / 'squirels_full_test.h5'}" if mixed else f"fixed:{part[1:]}"
        n, seed = (n_mixed if mixed else n_fixed), SEEDS[part] + SHIFT[cut]
        out[cut, part] = [
            "hepbridge", "simulate", "geant4", "--energies", energies, "--n", str(n),
            "--seed", str(seed), "--physics", "em", "--cut-mm", cut,
            "-o", str(work / f"cut{cut}_{part}.h5"),
        ]  # fmt: skip
    return out


def _compared(
    ref: Showers,
    candidates: dict[str, Showers],
    ref2: Showers | None,
    classifiers: tuple[str, ...] = ("trees",),
) -> Compared:
    evaluation = hb.evaluate(
        ref, candidates, ref2, classifiers=classifiers, classifier_settings=SETTINGS,
        command=COMMAND,
    )  # fmt: skip
    return Compared(evaluation, (ref, candidates, ref2))


def _means(ref: Showers, ours: Showers) -> dict[str, Any]:
    """Relative difference of means, and in standard errors, with all showers of both.

    Rows of equal incident energy are compared in pairs, other samples as they are.
    """
    paired = len(ref) == len(ours) and np.array_equal(ref.incident_energy, ours.incident_energy)
    out: dict[str, Any] = {"n": [len(ref), len(ours)], "rows": {}}
    for name, quantity in QUANTITIES.items():
        a, b = (
            quantity(s.cells.astype(np.float64).reshape(-1, 10, 10), s.incident_energy)
            for s in (ref, ours)
        )
        if paired:
            error = (b - a).std(ddof=1) / len(a) ** 0.5
        else:
            error = np.hypot(a.std(ddof=1) / len(a) ** 0.5, b.std(ddof=1) / len(b) ** 0.5)
        difference = b.mean() - a.mean()
        out["rows"][name] = {
            "mean": float(a.mean()),
            "difference": float(difference / a.mean()),
            "sigma": float(difference / error),
        }
    return out
