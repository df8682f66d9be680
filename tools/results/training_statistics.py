"""Is it the number of training showers that limits `squirels` at one energy?

    python tools/results/training_statistics.py [--work results-work/statistics] [--n 30000] [--n-test 4000]

Electrons of 19 to 21 GeV in the SQuIRELS crystals, in GFLASH and in Geant4 (extra geant4,
GEANT4_DATA_DIR), made resumably: 25 minutes on two cores, and 15 more for all else. `squirels` learns
from growing parts of them and refines other showers of 20 GeV, which are compared with Geant4. A model
that is right except for what m training showers tell has floor ratios of sqrt(1 + n / 2m). Writes
``training-statistics.md``, with a figure, into the folder of the results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from conditions import DETECTOR, DOCS, make
from figures import statistics
from judge import geometric_mean, resampled
from page import table

import hepbridge as hb
from hepbridge.core.files import write_text
from hepbridge.metrics.classifier import ClassifierSettings
from hepbridge.simulate.detector import load_detector
from hepbridge.simulate.gun import Gun
from hepbridge.systems.train import train

BAND, ENERGY = "uniform:19-21", "fixed:20"
SEEDS = {"train": 11, "test": 12, "test-2": 13}
SIZES = (1_000, 3_000, 10_000, 30_000)
STEPS = 6_000  # of teacher and student together, for every size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("results-work/statistics"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--n", type=int, default=max(SIZES))
    parser.add_argument("--n-test", type=int, default=4_000)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--only", type=int, help="train the model of this size and no more")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    make(args.work, args.n, args.n_test, args.workers, gun, SEEDS["test-2"])
    if args.only is not None:
        refiner(args.work, args.only)
        return
    study = judged(args.work, [size for size in SIZES if size <= args.n])
    command = f"python tools/results/training_statistics.py --n {args.n} --n-test {args.n_test}"
    write_text(args.work / "statistics.json", json.dumps(study, indent=1) + "\n")
    statistics(study, args.docs / "training-statistics.png")
    write_text(args.docs / "training-statistics.md", page(study, command))


def gun(part: str) -> Gun:
    energy = BAND if part == "train" else ENERGY
    return Gun.of(load_detector(DETECTOR), energy, seed=SEEDS[part])


def refiner(work: Path, size: int) -> Any:
    """Recipe `squirels` on the first ``size`` pairs: from its file, or trained and written there."""
    fast, full = (hb.load(work / f"train_{kind}.h5", geometry=None) for kind in ("fast", "full"))
    return train(
        fast[:size],
        full[:size],
        overrides=[f"training.steps={STEPS}"],
        output=work / f"squirels-{size}.safetensors",
        resume=True,
    )


def judged(work: Path, sizes: list[int]) -> dict[str, Any]:
    """Of every size: floor ratio with its standard error, rows above the floor, excess, AUC."""
    fast, full, full2 = (
        hb.load(work / f"test_{kind}.h5", geometry=None) for kind in ("fast", "full", "full_2")
    )
    models = {f"m{size}": refiner(work, size) for size in sizes}
    candidates = {name: model.refine(fast) for name, model in models.items()}
    found = hb.evaluate(
        full, candidates, full2, classifier_settings=ClassifierSettings(seeds=5, curve=())
    )
    points = []
    for name, model in models.items():
        rows = [row["candidates"][name] for row in found.sets[0]["rows"]]
        tests = found.sets[0]["classifier"][name]["trees"]
        ratio = geometric_mean(found, name)
        points.append(
            {
                "pairs": model.provenance["training_pairs"],
                "ratio": ratio,
                "error": ratio * float(resampled(full, candidates[name], full2).std(ddof=1)),
                "above": found.verdict[name]["above"],
                "of": found.verdict[name]["of"],
                "excess": max(row["excess_upper95"] for row in rows),
                "auc": {level: [test["auc"], test["se"]] for level, test in tests.items()},
                "floor": {level: test["floor_auc"] for level, test in tests.items()},
                "seconds": model.provenance["training_seconds"],
            }
        )
    return {"n": len(full), "points": points}


def page(study: dict[str, Any], command: str) -> str:
    n = study["n"]
    rows = [
        [
            f"{p['pairs']:,}",
            f"{p['ratio']:.2f} ± {p['error']:.2f}",
            f"{np.sqrt(1 + n / (2 * p['pairs'])):.2f}",
            f"{p['above']} of {p['of']}",
            f"{p['excess']:.3f}",
            *(f"{p['auc'][k][0]:.3f} ± {p['auc'][k][1]:.3f}" for k in ("low", "high")),
            f"{p['seconds']:.0f}",
        ]
        for p in study["points"]
    ]
    floor = study["points"][0]["floor"]
    return (
        "\n\n".join(
            [
                "# What training showers at one energy bring",
                f"Made by `{command}`. Electrons of 19 to 21 GeV in the crystals of SQuIRELS, in "
                "hepbridge's GFLASH and in Geant4; `squirels` learns from parts of them and refines "
                f"other showers of 20 GeV, n = {n:,}, compared with {n:,} of Geant4; the floor is a second "
                f"{n:,}. Every size has {STEPS:,} steps of teacher and student together. With fewer than 2,000 "
                "pairs the recipe leaves out joint zeros and matched moments. No file of the final samples "
                "is used.",
                "m training showers fluctuate as well. A model that is right except for that has floor "
                "ratios of $\\sqrt{1 + n / 2m}$ ([why](../method.md#what-limits-the-default)).",
                "![Floor ratio against training showers](training-statistics.png)",
                table(
                    [
                        "training pairs m",
                        "geometric-mean floor ratio (7 rows)",
                        "√(1 + n/2m)",
                        "rows above the floor's 95 % quantile",
                        "largest excess, upper 95 % (σ)",
                        f"AUC of trees, cells (floor {floor['low']:.3f})",
                        f"shapes (floor {floor['high']:.3f})",
                        "training (s)",
                    ],
                    rows,
                ),
            ]
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
