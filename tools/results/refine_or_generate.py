"""Does refining a fast simulation beat generating from noise? Writes docs/results/refine-or-generate.md.

    python tools/results/refine_or_generate.py --showers FOLDER [--work results-work] [--from-json]

Refiners (those of `make training-size`) and generators are trained on the same parts of `train` and judged on
the same held-out showers. Finished trainings are kept in the work folder.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generation_models import QUANTILE
from judge import geometric_mean, twin
from models import showers
from refine_or_generate_page import figure, page
from training_size import HOLDOUT, SIZES, part_of, refiner

import hepbridge as hb
from hepbridge.core.files import write_text
from hepbridge.core.rng import event_normal, stream
from hepbridge.data.showers import Showers
from hepbridge.deploy.machine import on_one_core, state
from hepbridge.deploy.timer import interleaved
from hepbridge.metrics.classifier import ClassifierSettings
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.detector import load_detector
from hepbridge.simulate.gflash import simulate
from hepbridge.systems.generation.draw import generate
from hepbridge.systems.generation.model_file import GeneratorModel
from hepbridge.systems.generation.train import train_generator
from hepbridge.systems.inference import refine_cells
from hepbridge.systems.train import split

DOCS = Path(__file__).parents[2] / "docs" / "results"
GENERATORS = {  # name -> recipe, overrides
    "calo-cfm": (
        "calo-cfm",
        ["model.cells.options.teacher_options.width=256", "model.cells.options.width=256"],
    ),
    "caloflow": ("caloflow-student", ["model.cells.options.train_steps=800"]),
    "caloflow-quantile": (
        "caloflow-student",
        [*QUANTILE, "model.cells.options.train_steps=800"],
    ),
}
KEYS = ("squirels", *(name.replace("-", "_") for name in GENERATORS))
SPEED_N = 1000
SHIFT_N, SHIFT = 2000, 0.02  # showers, and by how much their energy is changed
ENERGY = 50_000.0  # MeV


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--showers", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("results-work"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--from-json", action="store_true", help="write the page, measure nothing")
    args = parser.parse_args()
    kept = args.work / "refine-or-generate.json"
    if not args.from_json:
        write_text(kept, json.dumps(measure(args.showers, args.work), indent=1))
    found = json.loads(kept.read_text("utf-8"))
    figure(found, args.docs / "refine-or-generate.png")
    write_text(args.docs / "refine-or-generate.md", page(found))


def measure(source: Path, work: Path) -> dict[str, Any]:
    fast, full = (showers(source, kind, "train") for kind in ("gflash", "full"))
    fast = fast[: len(full)]
    training, held = split(len(full), HOLDOUT, 0)
    order = stream(0, "training size").permutation(training)
    candidates: dict[str, Showers] = {"gflash": fast[held]}
    about: dict[str, dict[str, Any]] = {"gflash": {"method": "gflash", "showers": 0, "seconds": 0}}
    last: dict[str, Any] = {}
    for size in SIZES:
        refined = refiner(size, work, fast, full, order)
        candidates[f"squirels_{size}"] = refined.refine(fast[held])
        about[f"squirels_{size}"] = _about("squirels", refined, "training_pairs")
        last["squirels"] = refined
        for name in GENERATORS:
            model = generator(name, size, work, full, order)
            key = f"{name.replace('-', '_')}_{size}"
            candidates[key] = generate(model, full[held].conditions, full[held].event_ids, seed=1)
            about[key] = _about(name, model, "training_showers")
            last[name] = model
    found = hb.evaluate(
        full[held],
        candidates,
        twin(full, training, held),
        classifier_settings=ClassifierSettings(seeds=3, curve=()),
        command="make results-refine-or-generate",
    )
    for key, record in about.items():
        tests = found.sets[0]["classifier"][key]["trees"]
        record["ratio"] = geometric_mean(found, key)
        record["auc"] = {k: [t["auc"], t["se"], t["floor_auc"]] for k, t in tests.items()}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "n": len(held),
        "tiny": {k: tiny(candidates[k]) for k in ("gflash", *(f"{k}_{size}" for k in KEYS))}
        | {"Geant4": tiny(full[held])},
        "models": about,
        "speed": speed(last, fast[held]),
        "common": common(last),
    }


def tiny(showers: Showers) -> float:
    """Part of the cells with an energy below 10 keV, but not zero."""
    return float(((showers.cells > 0) & (showers.cells < 0.01)).mean())


def generator(name: str, size: int, work: Path, full: Showers, order: np.ndarray) -> GeneratorModel:
    """The generator trained on ``size`` showers; the rows held out are those of the refiners."""
    recipe, overrides = GENERATORS[name]
    part, holdout = part_of(order, size)
    return train_generator(
        full[part],
        recipe=recipe,
        overrides=[*overrides, f"holdout={holdout}"],
        output=work / f"{name}-{size}.safetensors",
        resume=True,
        device="cpu",
    )


def _about(method: str, model: Any, rows: str) -> dict[str, Any]:
    return {
        "method": method,
        "showers": model.provenance[rows],
        "seconds": model.provenance["training_seconds"],
    }


def speed(models: dict[str, Any], fast: Showers) -> dict[str, Any]:
    """µs of CPU time per shower on one core; the refiner with the fast simulation that it needs."""
    some, detector = fast[:SPEED_N], load_detector("squirels")
    beam = Beam.of(some.incident_energy, event_ids=some.event_ids)

    def simulated() -> None:
        cells = simulate(detector, beam, seed=0, threads=1)
        refine_cells(
            models["squirels"], cells.astype(np.float32), some.incident_energy, some.event_ids
        )

    calls = {"GFLASH and squirels": simulated}
    calls |= {n: _draws(m, some) for n, m in models.items() if n != "squirels"}
    with on_one_core():
        found = interleaved(calls, 10)
    times = {n: 1e6 * t.cpu_median / SPEED_N for n, t in found.items()}
    return {"machine": state(), "us": times, "batch": SPEED_N}


def _draws(model: GeneratorModel, like: Showers) -> Any:
    def call() -> None:
        noise = event_normal(0, "time", like.event_ids, model.generator.noise_dim)
        named = {k: torch.from_numpy(v) for k, v in like.conditions.items()}
        with torch.inference_mode():
            model.generator.generate(named, torch.from_numpy(noise).float())

    return call


def common(models: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Variance of the difference between two simulations with common random numbers, as a part of
    that with independent ones: (observable, method) -> Var(a - b) / (Var a + Var b).

    Two samples of the same events, one of 2 % more energy. GFLASH and the noise of all models draw the
    same random numbers for the same event.
    """
    detector, geometry = load_detector("squirels"), load_detector("squirels").geometry()
    one = Beam.of(np.full(SHIFT_N, ENERGY))
    beams = [one, replace(one, energy_mev=one.energy_mev * (1 + SHIFT))]
    cells: dict[str, list[np.ndarray]] = {"GFLASH": [], "GFLASH and squirels": []}
    for beam in beams:
        raw = simulate(detector, beam, seed=0, threads=1).astype(np.float32)
        cells["GFLASH"].append(raw)
        cells["GFLASH and squirels"].append(
            refine_cells(models["squirels"], raw, beam.energy_mev, beam.event_ids)
        )
        for name, model in models.items():
            if name != "squirels":
                conditions = {"incident_energy": beam.energy_mev}
                made = generate(model, conditions, beam.event_ids, seed=0)
                cells.setdefault(name, []).append(made.cells)
    radius = np.hypot(geometry.x_mm, geometry.y_mm)
    observables = {
        "e_sum": lambda x: x.sum(axis=1),
        "n_hit": lambda x: (x > 1).sum(axis=1),
        "e_max / e_sum": lambda x: x.max(axis=1) / x.sum(axis=1),
        "radius": lambda x: (x @ radius) / x.sum(axis=1),
    }
    out: dict[str, dict[str, float]] = {}
    for name, (a, b) in cells.items():
        values = {
            k: (f(a.astype(np.float64)), f(b.astype(np.float64))) for k, f in observables.items()
        }
        out[name] = {
            k: float(np.var(v - u) / (np.var(u) + np.var(v))) for k, (u, v) in values.items()
        }
    return out


if __name__ == "__main__":
    main()
