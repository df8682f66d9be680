"""How many training pairs a user needs: writes training-size.json into the work folder.

    python tools/results/training_size.py --showers FOLDER [--work results-work]

Trains recipe `squirels` on growing parts of `train` and judges each model on the same held-out
pairs of `train`, together with `squirels-paper` trained on all (`models.py`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from judge import PAPER, geometric_mean, twin
from models import showers, trained

import hepbridge as hb
from hepbridge.core.files import write_text
from hepbridge.core.rng import stream
from hepbridge.data.showers import Showers
from hepbridge.metrics.classifier import ClassifierSettings
from hepbridge.systems.model_file import Model
from hepbridge.systems.train import split, train

SIZES = (300, 1_000, 3_000, 10_000, 22_050)
STEPS = 4_000  # of teacher and student together, for every size
WIDTH = 256  # of the teacher
HOLDOUT = 0.1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--showers", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("results-work"))
    args = parser.parse_args()
    args.work.mkdir(exist_ok=True)
    fast, full = (showers(args.showers, kind, "train") for kind in ("gflash", "full"))
    fast = fast[: len(full)]  # no fast showers beyond the pairs, at any size
    training, held = split(len(full), HOLDOUT, 0)
    order = stream(0, "training size").permutation(training)
    models = {PAPER: trained(PAPER, args.work, fast, full)}
    for size in SIZES:
        models[str(size)] = refiner(size, args.work, fast, full, order)
    candidates = {f"m{k}": model.refine(fast[held]) for k, model in enumerate(models.values())}
    found = hb.evaluate(
        full[held],
        candidates,
        twin(full, training, held),
        classifier_settings=ClassifierSettings(seeds=5, curve=()),
    )
    points = []
    for (name, model), label in zip(models.items(), candidates, strict=True):
        tests = found.sets[0]["classifier"][label]["trees"].values()
        points.append(
            {
                "name": name,
                "pairs": model.provenance["training_pairs"],
                "ratio": geometric_mean(found, label),
                "auc": float(np.mean([test["auc"] for test in tests])),
                "se": float(np.mean([test["se"] for test in tests])),
                "seconds": model.provenance["training_seconds"],
            }
        )
    record: dict[str, Any] = {
        "n": len(held),
        "steps": STEPS,
        "paper": points[0],
        "points": points[1:],
    }
    write_text(args.work / "training-size.json", json.dumps(record, indent=1) + "\n")


def part_of(order: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """The rows of a training of that size, and what part of them it holds out."""
    part = np.sort(order[: min(round(size / (1 - HOLDOUT)), len(order))])
    return part, HOLDOUT if len(part) < len(order) else 0.0005


def refiner(size: int, work: Path, fast: Showers, full: Showers, order: np.ndarray) -> Model:
    """Recipe `squirels` on ``size`` pairs: from its file, or trained and written there."""
    part, holdout = part_of(order, size)
    return train(
        fast[part],
        full[part],
        overrides=[
            f"training.steps={STEPS}",
            f"model.options.teacher_options.then.width={WIDTH}",
            f"holdout={holdout}",
        ],
        output=work / f"size-{size}.safetensors",
        resume=True,
    )


if __name__ == "__main__":
    main()
