"""The refiner on a bigger calorimeter: docs/results/cylinder.md.

    python tools/results/cylinder.py [--data data] [--work results-work/cylinder] [--from-json]

Electrons of 1–10 GeV in the second detector of the CaloChallenge (6,480 voxels): GFLASH, refined to
Geant4 with and without a network. The GFLASH showers are made here, of the same particles. What is
finished is kept in the work folder.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from cylinder_page import page
from generation import tests_of

import hepbridge as hb
from hepbridge.core.files import write_text
from hepbridge.data.showers import Showers
from hepbridge.deploy.machine import on_one_core, state
from hepbridge.deploy.timer import interleaved
from hepbridge.metrics.classifier import ClassifierSettings
from hepbridge.report.plate import write_picture
from hepbridge.report.profiles import profiles
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.detector import load_detector
from hepbridge.simulate.engines import GFLASH
from hepbridge.simulate.gflash import simulate
from hepbridge.simulate.gun import Gun
from hepbridge.simulate.produce import produce
from hepbridge.systems.inference import refine_cells
from hepbridge.systems.model_file import Model
from hepbridge.systems.train import train

ROOT = Path(__file__).parents[2]
SAMPLE, DETECTOR, ENERGIES = "cylinder-eminus", "calochallenge-2", "uniform:1-10"
SEEDS = {"train": 2001, "test": 2002}  # of data/README.md
STEPS = 1_500
SPEED_N = 256
SETTINGS = ClassifierSettings(seeds=3, curve=())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--work", type=Path, default=Path("results-work/cylinder"))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--from-json", action="store_true", help="write the page, measure nothing")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    kept = args.work / "results.json"
    if not args.from_json:
        record, shown = measure(args.data, args.work)
        write_picture(lambda: profiles(shown), args.docs / "cylinder-showers.png", overwrite=True)
        write_text(kept, json.dumps(record, indent=1))
    write_text(args.docs / "cylinder.md", page(json.loads(kept.read_text("utf-8"))))


def measure(data: Path, work: Path) -> tuple[dict[str, Any], dict[str, Showers]]:
    full = {part: hb.load(data / f"{SAMPLE}-{part}.h5") for part in ("train", "test", "test2")}
    fast = {part: _fast(part, len(full[part]), work) for part in SEEDS}
    models = trained(fast["train"], full["train"], work)
    test = full["test"]
    made = {name: model.refine(fast["test"]) for name, model in models.items()}
    found = hb.evaluate(
        test,
        {"gflash": fast["test"], **made},
        full["test2"],
        classifier_settings=SETTINGS,
        command="make results-cylinder",
    )
    record = found.sets[0]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "n": record["n"],
        "train": len(full["train"]),
        "steps": STEPS,
        "cells": test.geometry.n_cells,
        "hit": float((test.cells > 0).mean()),
        "simulation": str(test.meta.get("simulation", "")),
        "models": {
            name: {
                "ratio": record["ratio_geometric_mean"][name],
                "verdict": found.verdict[name],
                "auc": tests_of(record, name),
                "seconds": models[name].provenance["training_seconds"] if name in models else 0,
                "worst": _worst(record["rows"], name),
            }
            for name in ("gflash", *made)
        },
        "speed": speed(models, fast["test"]),
    }, {"Geant4": test, "gflash": fast["test"], **made}


def _fast(part: str, n: int, work: Path) -> Showers:
    """GFLASH showers of the same particles."""
    detector, path = load_detector(DETECTOR), work / f"{SAMPLE}-{part}-fast.h5"
    gun = Gun.of(detector, ENERGIES, seed=SEEDS[part])
    produce(GFLASH, detector, gun, n, path, seed=SEEDS[part])
    return hb.load(path)


def trained(fast: Showers, full: Showers, work: Path) -> dict[str, Model]:
    """The refiners, from their files, or trained and written there."""
    return {
        name: train(
            fast,
            full,
            recipe=name,
            overrides=changes,
            output=work / f"{name}.safetensors",
            resume=True,
            device="cpu",
        )
        for name, changes in (("quantile", []), ("squirels", [f"training.steps={STEPS}"]))
    }


def _worst(rows: list[dict[str, Any]], name: str) -> list[tuple[str, float]]:
    """The three rows that are farthest above their floor, and how far."""
    far = [(r["observable"], r["candidates"][name]["ratio"]) for r in rows]
    return sorted(far, key=lambda row: -row[1])[:3]


def speed(models: dict[str, Model], fast: Showers) -> dict[str, Any]:
    """µs of CPU time per shower of each chain on one core, in turn."""
    detector, some = load_detector(DETECTOR), fast[:SPEED_N]
    beam = Beam.of(some.incident_energy, event_ids=some.event_ids)

    def gflash() -> np.ndarray:
        return np.asarray(simulate(detector, beam, seed=0, threads=1), dtype=np.float32)

    def refined() -> None:
        refine_cells(models["squirels"], gflash(), some.incident_energy, some.event_ids)

    calls = {"GFLASH": gflash, "GFLASH and squirels": refined}
    with on_one_core():
        found = interleaved(calls, 7)
    return {
        "machine": state(),
        "us": {name: 1e6 * t.cpu_median / SPEED_N for name, t in found.items()},
    }


if __name__ == "__main__":
    main()
