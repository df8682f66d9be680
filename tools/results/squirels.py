"""Train on real showers, judge on held-out ones, and write docs/results/squirels.md.

    python tools/results/squirels.py --showers FOLDER [--work results-work]

The folder holds ``squirels_{full,full2,gflash}_{train,e20,e50,e80,test}.h5``. Models are kept in the
work folder and not trained again (`models.py`); the study of the training size is a command of its
own (`training_size.py`). The final samples (e20, e50, e80, test) are read here only, never for a
choice; every run appends date, model hashes and figures to ``docs/results/squirels.jsonl``.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import figures
import judge
import torch
from models import MODELS, showers, trained
from page import page

from hepbridge.core.files import file_digest, write_text

DOCS = Path(__file__).parents[2] / "docs" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--showers", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("results-work"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    args = parser.parse_args()
    args.work.mkdir(exist_ok=True)
    args.docs.mkdir(parents=True, exist_ok=True)
    found = measure(args.showers, args.work)
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "models": {name: file_digest(args.work / f"{name}.safetensors") for name in MODELS},
        "sets": {label: e.to_dict()["sets"] for label, e in found["evaluations"].items()},
        "verdict": {label: e.verdict for label, e in found["evaluations"].items()},
        **{key: found[key] for key in ("frontier", "speed", "coupling")},
    }
    with open(args.docs / "squirels.jsonl", "a", encoding="utf-8") as handle:
        handle.write(json.dumps(record, sort_keys=True) + "\n")
    figures.pareto(found["frontier"], args.docs / "pareto.png")
    if found["training_size"]:
        figures.training_size(found["training_size"], args.docs / "training-size.png")
    write_text(args.docs / "squirels.md", page(found))


def measure(folder: Path, work: Path) -> dict[str, Any]:
    """Everything that the page shows; what does not need a quiet core runs on two at once."""
    fast, full = (showers(folder, kind, "train") for kind in ("gflash", "full"))
    models = {name: trained(name, work, fast, full) for name in MODELS}
    fast = fast[: len(full)]
    runs = judge.variants(models)
    out: dict[str, Any] = {
        "models": models,
        "fast": fast.meta,
        "full": full.meta,
        "evaluations": {},
        "moved": {},
        "convergence": convergence(work / "squirels-paper.safetensors.log.jsonl"),
    }
    with ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        parts = {"fixed": judge.FIXED, "mixed": judge.MIXED}
        networks = {
            label: pool.submit(judge.networks, folder, models, some, work / f"report-{label}")
            for label, some in parts.items()
        }
        frontier = pool.submit(judge.frontier, folder, runs)
        distances = {
            label: pool.submit(judge.distances, folder, models, some)
            for label, some in parts.items()
        }
        slices = pool.submit(judge.slices, fast, full, models["squirels"])
        coupling = pool.submit(judge.coupling, fast, full, models["squirels"])
        for label in parts:
            evaluation, out["moved"][label] = distances[label].result()
            judge.merge(evaluation, networks[label].result())
            out["evaluations"][label] = evaluation
        out["slices"], out["coupling"] = slices.result(), coupling.result()
        out["frontier"] = frontier.result()
    some = showers(folder, "gflash", "test")
    exported = {label: judge.in_onnxruntime(models[name]) for label, name in judge.EXPORTED.items()}
    timed = {label: judge.in_torch(model) for label, model in (models | runs).items()}
    out["speed"] = judge.timings(timed | exported, some, batches=(10_000,))
    timed = {name: timed[name] for name in models}
    out["speed"] |= judge.timings(timed | exported, some, batches=(100, 1))
    for label, point in out["frontier"].items():
        point["ms"] = out["speed"]["10000"][label]["ms"]
    study = work / "training-size.json"
    out["training_size"] = json.loads(study.read_text("utf-8")) if study.exists() else None
    return out


def convergence(log: Path) -> list[dict[str, Any]]:
    """The last record of every phase of a training log."""
    last: dict[str, dict[str, Any]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        last[record["phase"]] = record
    return list(last.values())


if __name__ == "__main__":
    main()
