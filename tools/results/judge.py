"""What is measured: distances, classifiers, displacements, speed, and slices of the hold-out."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from models import showers
from numpy.typing import NDArray

import hepbridge as hb
from hepbridge.core.rng import stream
from hepbridge.data.join import join
from hepbridge.data.showers import Showers
from hepbridge.deploy.machine import on_one_core, state
from hepbridge.deploy.onnx.export import export_onnx
from hepbridge.deploy.onnx.refiner import OnnxRefiner
from hepbridge.deploy.timer import interleaved, ratio
from hepbridge.metrics.classifier import ClassifierSettings
from hepbridge.metrics.distance import Pool, bootstrap_counts
from hepbridge.metrics.fidelity import fidelity
from hepbridge.metrics.observables import table_rows
from hepbridge.metrics.sets import make_sets
from hepbridge.systems.inference import refine_cells
from hepbridge.systems.model_file import Model
from hepbridge.systems.train import split
from hepbridge.transports.couplings import assign

FIXED, MIXED = ("e20", "e50", "e80"), ("test",)
SLICES = ((10, 12), (30, 40), (60, 70), (95, 100))  # GeV
PAPER, BEST = "squirels-paper", "squirels"
WITH_MLP = ("squirels",)
COMMAND = "make results"
SETTINGS = ClassifierSettings(seeds=5, curve=(0.25, 0.5))
EXPORTED = {f"{name}, ONNX Runtime": name for name in ("squirels", "squirels-small")}
LEAST = 0.05  # s that a repeat of a small batch lasts
BUDGET = 30.0  # s that the repeats of one refiner may take at the largest batch
# Heun or bridge steps at which the multi-step models are run for the figure
STEPS = {"squirels-flow": (1, 2, 4, 8), "squirels-i2sb": (5, 20)}


def samples(
    folder: Path, models: dict[str, Model], parts: tuple[str, ...]
) -> tuple[Showers, dict[str, Showers], Showers]:
    """Full simulation, GFLASH and what the models make of it, and the second full simulation."""
    ref, ref2 = (join([showers(folder, k, p) for p in parts]) for k in ("full", "full2"))
    gflash = join([showers(folder, "gflash", p)[: len(ref) // len(parts)] for p in parts])
    return ref, {"gflash": gflash, **{n: m.refine(gflash) for n, m in models.items()}}, ref2


def distances(folder: Path, models: dict[str, Model], parts: tuple[str, ...]) -> Any:
    """Evaluation of all models on final samples, with trees, and their displacements."""
    ref, candidates, ref2 = samples(folder, models, parts)
    found = hb.evaluate(
        ref, candidates, ref2, classifier_settings=SETTINGS, command=COMMAND
    )  # fmt: skip
    return found, {name: fidelity(candidates["gflash"], candidates[name]) for name in models}


def networks(folder: Path, models: dict[str, Model], parts: tuple[str, ...], report: Path) -> Any:
    """The same with the MLP, which is too slow for all models; writes the report."""
    chosen = {name: models[name] for name in WITH_MLP}
    ref, candidates, ref2 = samples(folder, chosen, parts)
    found = hb.evaluate(
        ref, candidates, ref2, classifiers=("trees", "mlp"), classifier_settings=SETTINGS,
        command=COMMAND,
    )  # fmt: skip
    hb.write_report(
        found, ref, candidates, ref2, report, fast="gflash", refined="squirels", overwrite=True
    )
    return found


def merge(evaluation: Any, other: Any) -> None:
    """Put the MLP's results of ``other`` beside the trees' of ``evaluation``."""
    for record, more in zip(evaluation.sets, other.sets, strict=True):
        for name, tests in more["classifier"].items():
            record["classifier"][name]["mlp"] = tests["mlp"]


def twin(full: Showers, training: NDArray[np.int64], rows: NDArray[np.int64]) -> Showers:
    """For each of the rows the training shower nearest in energy, scaled to its energy.

    Each serves once, and is scaled by less than 0.2 %: a second full simulation of held-out rows.
    """
    wanted = full.incident_energy[rows]
    free = training.copy()
    near = np.empty(len(rows), dtype=np.int64)
    for k, energy in enumerate(wanted):
        j = int(np.argmin(np.abs(full.incident_energy[free] - energy)))
        near[k], free = free[j], np.delete(free, j)
    scale = wanted / full.incident_energy[near]
    if np.abs(scale - 1).max() > 2e-3:
        raise ValueError(f"the nearest training shower is {np.abs(scale - 1).max():.1%} away")
    cells = (full.cells[near] * scale[:, None]).astype(np.float32)
    return Showers.from_arrays(cells, wanted, geometry=full.geometry)


def slices(fast: Showers, full: Showers, model: Model) -> list[dict[str, Any]]:
    """The model on energy slices of the pairs that its training held out."""
    training, held = split(len(full), model.recipe.holdout, 0)
    out = []
    for low, high in SLICES:
        energy = full.incident_energy[held]
        rows = held[(energy >= 1000 * low) & (energy < 1000 * high)]
        candidates = {"gflash": fast[rows], "squirels": model.refine(fast[rows])}
        found = hb.evaluate(
            full[rows], candidates, twin(full, training, rows), classifiers=(), command=COMMAND
        )
        out.append({"slice": [low, high], "n": len(rows), "evaluation": found})
    return out


def coupling(fast: Showers, full: Showers, model: Model, window: int = 128) -> dict[str, float]:
    """Root mean square displacement per coordinate in normal space, held-out pairs.

    ``refiner``: of the model; ``assigned``: of the optimal assignment in windows of neighbours in
    energy; ``random``: of partners that share only their energy.
    """
    _, held = split(len(full), model.recipe.holdout, 0)
    held = held[np.argsort(full.incident_energy[held])]
    held = held[: len(held) // window * window]
    refiner: Any = model.members[0]
    start, end = refiner.normal(fast[held], full[held], seed=0)
    c = refiner.conditions(fast[held])
    with torch.inference_mode():
        moved = refiner.transport.apply(start, c, start.new_zeros(len(start), 0))
    best = [b[assign(a, b)] for a, b in zip(start.split(window), end.split(window), strict=True)]
    return {
        "window": window,
        "refiner": float((moved - start).square().mean().sqrt()),
        "assigned": float((torch.cat(best) - start).square().mean().sqrt()),
        "random": float((end - start).square().mean().sqrt()),
    }


def variants(models: dict[str, Model]) -> dict[str, Model]:
    """Every model, those of many steps with several numbers of them."""
    runs: dict[str, Model] = {}
    for name, model in models.items():
        for steps in STEPS.get(name, (None,)):
            label = name if steps is None else f"{name} @ {steps}"
            runs[label] = model if steps is None else with_steps(model, steps)
    return runs


def frontier(folder: Path, runs: dict[str, Model]) -> dict[str, dict[str, Any]]:
    """Per run: network evaluations, and the geometric-mean floor ratio over the 21 rows.

    ``error`` is its standard error, and ``against`` that of its logarithm's difference from `BEST`.
    """
    ref, candidates, ref2 = samples(folder, runs, FIXED)
    names = {label: f"c{k}" for k, label in enumerate(runs)}
    found = hb.evaluate(
        ref, {names[label]: candidates[label] for label in runs}, ref2, classifiers=()
    )  # fmt: skip
    logs = {label: resampled(ref, candidates[label], ref2) for label in runs}
    return {
        label: {
            "model": label.partition(" @ ")[0],
            "nfe": run.members[0].nfe,
            "ratio": geometric_mean(found, names[label]),
            "error": geometric_mean(found, names[label]) * float(logs[label].std(ddof=1)),
            "against": float((logs[label] - logs[BEST]).std(ddof=1)),
        }
        for label, run in runs.items()
    }


def resampled(
    ref: Showers, candidate: Showers, ref2: Showers, replicas: int = 100
) -> NDArray[np.float64]:
    """Mean logarithmic distance (replicas,) over the rows, for resampled candidate showers.

    All rows of a set and all candidates see the same draws: rows that say the same count once, and
    differences between refiners of the same fast showers are known better than their values.
    """
    logs = []
    for part in make_sets(ref, {"candidate": candidate}, ref2):
        drawn = bootstrap_counts(part.n, replicas, stream(0, "frontier", part.label))
        for observable in table_rows(mixed=part.mixed):
            use = observable.rows(part.n, part.ref.geometry, 0)
            showers = (part.ref, part.candidates["candidate"])
            pool = Pool(*(observable.entries(s[use]) for s in showers))
            logs.append(np.log(pool.bootstrap(drawn[:, use])))
    return np.asarray(np.mean(logs, axis=0))


def with_steps(model: Model, steps: int) -> Model:
    """The same weights, integrated in another number of steps."""
    member: Any = copy.deepcopy(model.members[0])
    stages = [getattr(member.transport, part, None) for part in ("first", "then")]
    for part in [stage for stage in stages if stage is not None] or [member.transport]:
        part.steps = steps
    return dataclasses.replace(model, members=[member])


def geometric_mean(evaluation: Any, name: str) -> float:
    ratios = [row["candidates"][name]["ratio"] for s in evaluation.sets for row in s["rows"]]
    return float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-9)))))


def timings(
    refiners: Mapping[str, Callable[[Showers], object]],
    fast: Showers,
    batches: tuple[int, ...] = (10_000, 100, 1),
) -> dict[str, Any]:
    """ms/shower on one core, end to end in memory, competitors in turn; median of ten rounds."""
    out: dict[str, Any] = {"machine": state()}
    with on_one_core():
        for batch in batches:
            some = fast[:batch]
            found = interleaved(
                {name: partial(refine, some) for name, refine in refiners.items()},
                10,
                budget_s=dict.fromkeys(refiners, BUDGET) if batch > 1000 else None,
                least_s=0.0 if batch > 1000 else LEAST,
            )
            out[str(batch)] = {
                name: {
                    "ms": 1e3 * t.median / batch,
                    "cpu_over_wall": t.cpu_over_wall,
                    "repeats": t.repeats,
                    "faster": ratio(found[PAPER], t).median if PAPER in found else None,
                }
                for name, t in found.items()
            }
    return out


def in_torch(model: Model) -> Callable[[Showers], object]:
    return lambda showers: refine_cells(
        model, showers.cells, showers.incident_energy, showers.event_ids
    )


def in_onnxruntime(model: Model) -> Callable[[Showers], object]:
    """The model as `hepbridge export` writes it, on arrays, as a framework runs it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, path)
        refiner = OnnxRefiner(path)
    columns = next(t.columns for t in refiner.contract.inputs if t.name == "noise")
    rng = stream(0, "results", "onnx")

    def refine(showers: Showers) -> object:
        noise = rng.standard_normal((len(showers), columns), dtype=np.float32)
        energy = showers.incident_energy.astype(np.float32)
        return refiner({"cells": showers.cells, "incident_energy": energy, "noise": noise})

    return refine
