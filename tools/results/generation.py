"""Train the generators, judge them on showers of Geant4, and write docs/results/generation.md.

    python tools/results/generation.py [--data data] [--work results-work/generation] [--again PART]
        [--from-json]

Every part is kept in ``WORK/results.json`` as soon as it is known and not measured again, unless
``--again`` names it: ``fidelity:SAMPLE``, ``speed``.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generation_models import MODELS, showers, trained
from generation_page import figures, page

import hepbridge as hb
from hepbridge.core.files import write_text
from hepbridge.core.rng import event_normal
from hepbridge.data.showers import Showers
from hepbridge.deploy.machine import on_one_core, state
from hepbridge.deploy.timer import interleaved, ratio
from hepbridge.metrics.classifier import ClassifierSettings
from hepbridge.systems.generation.draw import generate
from hepbridge.systems.generation.model_file import GeneratorModel

ROOT = Path(__file__).parents[2]
SETTINGS = ClassifierSettings(seeds=3, curve=())
FIRST = "calogan-eplus"
FEW = ("marginals", "calo-cfm-teacher", "calo-cfm")
BATCHES = (1, 100, 1000)
SLOW = 60.0  # s that one call of a generator may take to be timed at a batch size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--work", type=Path, default=Path("results-work/generation"))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--sample", action="append", help="these only")
    parser.add_argument("--again", action="append", default=[], metavar="PART")
    parser.add_argument("--from-json", action="store_true", help="write the page, measure nothing")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    kept = args.work / "results.json"
    found: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    samples = args.sample or sorted(
        p.name.removesuffix("-test2.h5") for p in args.data.glob("calogan-*-test2.h5")
    )
    parts = {f"fidelity:{s}": partial(fidelity, args.data, args.work, s) for s in samples}
    parts["speed"] = partial(speed, args.data, args.work, FIRST)
    for name, measure in parts.items():
        if args.from_json or (name in found and name not in args.again):
            continue
        found[name] = measure()
        found["date"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_text(kept, json.dumps(found, indent=1))
    figures(found, args.data, args.work, args.docs)
    write_text(args.docs / "generation.md", page(found))


def models(data: Path, work: Path, sample: str) -> dict[str, GeneratorModel]:
    """All of them on the first sample, on the others some."""
    (work / sample).mkdir(exist_ok=True)
    full = showers(data, sample, "train")
    names = MODELS if sample == FIRST else FEW
    return {name: trained(name, work / sample, full) for name in names}


def generated(model: GeneratorModel, like: Showers, path: Path) -> Showers:
    """Showers of the same energies and events, kept in a file: some generators are slow."""
    if path.exists():
        return hb.load(path)
    made = generate(model, like.conditions, like.event_ids, seed=1)
    hb.save(made, path)
    return made


def fidelity(data: Path, work: Path, sample: str) -> dict[str, Any]:
    """Distances, verdict and classifiers of all generators on showers that none has seen."""
    chosen = models(data, work, sample)
    ref, ref2 = showers(data, sample, "test"), showers(data, sample, "test2")
    folder = work / sample
    made = {n: generated(m, ref, folder / f"{n}-test.h5") for n, m in chosen.items()}
    names = {n: n.replace("-", "_") for n in made}
    found = hb.evaluate(
        ref,
        {names[n]: s for n, s in made.items()},
        ref2,
        classifiers=("trees", "mlp"),
        classifier_settings=SETTINGS,
        command="make results-generation",
    )
    record = found.sets[0]
    return {
        "n": record["n"],
        "train": len(showers(data, sample, "train")),
        "about": {k: str(v) for k, v in ref.meta.items() if k in ("simulation", "particle")},
        "energies": [float(ref.incident_energy.min()), float(ref.incident_energy.max())],
        "models": {
            n: {
                "ratio": record["ratio_geometric_mean"][names[n]],
                "verdict": found.verdict[names[n]],
                "auc": tests_of(record, names[n]),
                "nfe": m.generator.nfe,
                "parameters": sum(p.numel() for p in m.generator.parameters()),
                "seconds": m.provenance["training_seconds"],
            }
            for n, m in chosen.items()
        },
    }


def tests_of(record: dict[str, Any], name: str) -> dict[str, dict[str, dict[str, float]]]:
    """AUC, error and floor of every classifier and level, of one candidate of an evaluation."""
    return {
        classifier: {
            level: {k: test[k] for k in ("auc", "se", "floor_auc", "floor_se")}
            for level, test in levels.items()
        }
        for classifier, levels in record["classifier"][name].items()
    }


def speed(data: Path, work: Path, sample: str) -> dict[str, Any]:
    """ms of CPU time per shower on one core, generators in turn; those that would take minutes are timed once."""
    chosen, like = models(data, work, sample), showers(data, sample, "test")
    out: dict[str, Any] = {"machine": state()}
    with on_one_core():
        for batch in BATCHES:
            some = np.arange(batch) % len(like)
            calls = {n: _call(m, like[some]) for n, m in chosen.items()}
            found = interleaved(calls, 7, budget_s=dict.fromkeys(calls, SLOW))
            teacher = found["caloflow-teacher"]
            out[str(batch)] = {
                n: {
                    "ms": 1e3 * t.cpu_median / batch,
                    "repeats": t.repeats,
                    "cpu_over_wall": t.cpu_over_wall,
                    "faster": ratio(teacher, t).median,
                }
                for n, t in found.items()
            }
    return out


def _call(model: GeneratorModel, like: Showers) -> Any:
    """Numbers of the noise, networks and frame; no tiles, so that a single shower is not 256."""
    generator = model.generator

    def call() -> None:
        noise = event_normal(0, "time", like.event_ids, generator.noise_dim)
        named = {k: torch.from_numpy(v) for k, v in like.conditions.items()}
        with torch.inference_mode():
            generator.generate(named, torch.from_numpy(noise).float())

    return call


if __name__ == "__main__":
    main()
