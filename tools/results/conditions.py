"""Oblique electrons on any point of a crystal: made, refined, and judged in bins of every condition.

    python tools/results/conditions.py [--work results-work/conditions] [--n 20000] [--n-test 4000]
        [--recipe squirels-flow] [--set KEY=VALUE]...

Electrons of 1–100 GeV (uniform logarithm) hit the SQuIRELS crystals uniformly over one crystal, at
angles up to 10 degrees, in GFLASH and in Geant4. The samples are made by the commands that the page
shows (`hepbridge simulate`), resumably; a second full simulation of the same test particles is the
floor. Every candidate is compared with the full simulation as a whole and in five bins of equal
content of each condition: by the geometric mean over the observables of distance / floor, and by the
AUC of small boosted trees. Besides the refiner there are two without a network, `quantile` with all
conditions and ``energy only`` with none but the energy. Writes ``conditions.md`` into the folder of
the results and ``conditions.json`` into the work folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hepbridge as hb
from hepbridge.core.files import write_text
from hepbridge.data.showers import Showers
from hepbridge.metrics.classifier import QUICK, classifier_test
from hepbridge.simulate.detector import load_detector
from hepbridge.simulate.engines import GEANT4, GFLASH
from hepbridge.simulate.gun import Gun
from hepbridge.simulate.pairs import produce_pairs
from hepbridge.simulate.produce import produce
from hepbridge.systems.train import train

DETECTOR, ENERGIES, THETA, IMPACT = "squirels", "log:1-100", "uniform:0-10", "cell"
SEEDS = {"train": 1, "test": 2, "test-2": 3}
BINS = 5
# name -> (unit, factor from the unit of the file)
UNITS = {
    "incident_energy": ("GeV", 1e-3),
    "theta_rad": ("degrees", 180 / np.pi),
    "phi_rad": ("degrees", 180 / np.pi),
    "x_mm": ("mm", 1.0),
    "y_mm": ("mm", 1.0),
}
DOCS = Path(__file__).parents[2] / "docs" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("results-work/conditions"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--n-test", type=int, default=4_000)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--recipe", default="squirels-flow")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    make(args.work, args.n, args.n_test, args.workers, gun, SEEDS["test-2"])
    part = {name: hb.load(args.work / f"{name}.h5", geometry=None) for name in files()}
    candidates = {"gflash": part["test_fast"]}
    for name, recipe, overrides in (
        ("energy only", "quantile", ["model.conditions=[]"]),
        ("quantile", "quantile", []),
        ("refined", args.recipe, args.overrides),
    ):
        model = train(
            part["train_fast"],
            part["train_full"],
            recipe=recipe,
            overrides=overrides,
            output=args.work / f"{name.replace(' ', '-')}.safetensors",
            resume=True,
        )
        candidates[name] = model.refine(part["test_fast"])
    found = judge(part["test_full"], candidates, part["test_full_2"])
    write_text(args.work / "conditions.json", json.dumps(found, indent=1) + "\n")
    command = f"python tools/results/conditions.py --n {args.n} --n-test {args.n_test}"
    command += f" --recipe {args.recipe}" + "".join(f" --set {o}" for o in args.overrides)
    write_text(args.docs / "conditions.md", page(found, command, args.n, args.n_test))


def files() -> tuple[str, ...]:
    return "train_fast", "train_full", "test_fast", "test_full", "test_full_2"


def gun(part: str) -> Gun:
    detector = load_detector(DETECTOR)
    return Gun.of(detector, ENERGIES, theta=THETA, impact=IMPACT, seed=SEEDS[part])


def make(
    work: Path, n: int, n_test: int, workers: int | None, gun: Callable[[str], Gun], seed: int
) -> None:
    """The pairs for training and test, and the second full simulation of the test particles."""
    detector, how = load_detector(DETECTOR), {"workers": workers}
    for part, rows in (("train", n), ("test", n_test)):
        produce_pairs(detector, gun(part), rows, work / part, fast=GFLASH, full=GEANT4, **how)
    produce(
        GEANT4, detector, gun("test"), n_test, work / "test_full_2.h5", seed=seed, workers=workers
    )


def commands(n: int, n_test: int) -> list[str]:
    """The same on the command line."""
    beam = f"--energies {ENERGIES} --theta {THETA} --impact {IMPACT}"
    train_seed, seed, other = SEEDS.values()
    return [
        f"hepbridge simulate pairs {DETECTOR} --n {n} {beam} --seed {train_seed} -o train",
        f"hepbridge simulate pairs {DETECTOR} --n {n_test} {beam} --seed {seed} -o test",
        f"hepbridge simulate geant4 --n {n_test} {beam} --seed {other} --beam-seed {seed} -o test_full_2.h5",
    ]


def bins(full: Showers) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """(condition, range in words, rows) of all bins, the whole sample first."""
    yield "all", "", np.arange(len(full))
    for name, (unit, factor) in UNITS.items():
        order = np.argsort(full.conditions[name], kind="stable")
        for rows in np.array_split(order, BINS):
            low, high = full.conditions[name][rows[[0, -1]]] * factor
            yield name, f"{low:.3g} to {high:.3g} {unit}", np.sort(rows)


def judge(full: Showers, candidates: dict[str, Showers], second: Showers) -> list[dict[str, Any]]:
    """Per bin and candidate: distance / floor, geometric mean over the observables; rows above it; AUC.

    The AUC is the mean of those with low- and with high-level inputs; the second full sample is a
    candidate there, too.
    """
    out = []
    for name, span, rows in bins(full):
        some = {c: showers[rows] for c, showers in candidates.items()}
        found = hb.evaluate(full[rows], some, second[rows], classifiers=()).sets[0]
        auc, error = {}, {}
        for c, showers in {**some, "full": second[rows]}.items():
            test = classifier_test(full[rows], showers, settings=QUICK)
            auc[c] = 0.5 * (test["low"]["auc"] + test["high"]["auc"])
            error[c] = max(test["low"]["se"], test["high"]["se"])
        out.append(
            {
                "condition": name,
                "range": span,
                "n": len(rows),
                "ratio": found["ratio_geometric_mean"],
                "above": {c: found["verdict"][c]["above"] for c in candidates},
                "distances": {r["observable"]: r["candidates"] for r in found["rows"]},
                "auc": auc,
                "auc_error": error,
                "of": len(found["rows"]),
            }
        )
    return out


def page(found: list[dict[str, Any]], command: str, n: int, n_test: int) -> str:
    names = list(found[0]["ratio"])
    lines = [
        "# Oblique electrons on any point of a crystal",
        "",
        f"{n} pairs for training, {n_test} for the test: electrons of 1–100 GeV, uniform over one",
        "crystal, angles up to 10 degrees. Geometric mean over the observables of the distance to full",
        "simulation in units of the floor (two full simulations of the same particles: 1); in brackets",
        "how many observables lie above the 95 % quantile of the floor.",
        "",
        "```console",
        *(f"$ {line}" for line in commands(n, n_test)),
        f"$ {command}",
        "```",
        "",
        f"| condition | range | n | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    for row in found:
        values = [f"{row['ratio'][c]:.2f} ({row['above'][c]}/{row['of']})" for c in names]
        lines.append(f"| {row['condition']} | {row['range']} | {row['n']} | {' | '.join(values)} |")
    names.append("full")
    lines += [
        "",
        "AUC of small boosted trees that tell a candidate from full simulation, the mean of low- and",
        "high-level inputs (0.5: they cannot; `full`: the second full simulation); the error is the",
        "largest in the row.",
        "",
        f"| condition | range | {' | '.join(names)} | error |",
        f"|---|---|{'---|' * (len(names) + 1)}",
    ]
    for row in found:
        values = [f"{row['auc'][c]:.3f}" for c in names]
        worst = max(row["auc_error"].values())
        lines.append(
            f"| {row['condition']} | {row['range']} | {' | '.join(values)} | {worst:.3f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
