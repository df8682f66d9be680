"""What is measured of the methods of unfolding: tables, pseudo-experiments, calibration, prior, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from unfolding_figures import spectra
from unfolding_samples import NAMES, STUDIES, Sample

from hepbridge.core.rng import stream
from hepbridge.data.tables import Table
from hepbridge.metrics.distance import wasserstein
from hepbridge.metrics.unfolding.distances import EMD_SCALE, TRIANGULAR_SCALE, triangular
from hepbridge.metrics.unfolding.evaluation import evaluate_posteriors, evaluate_unfolding
from hepbridge.metrics.unfolding.observables import PUBLISHED, values_of
from hepbridge.systems.unfolding.apply import posterior, reweight, unfold
from hepbridge.systems.unfolding.data import Data
from hepbridge.systems.unfolding.model_file import UnfoldingModel, load_unfolding
from hepbridge.systems.unfolding.omnifold import OmniFoldSettings, omnifold
from hepbridge.systems.unfolding.recipe import load_unfolding_recipe
from hepbridge.systems.unfolding.response import Response
from hepbridge.systems.unfolding.train import train_unfolding

GENERATIVE = ["cinn", "fpcd", "sbunfold-paper", "sbunfold"]
ITERATED = ["sbunfold"]
METHODS = {"a14": GENERATIVE, "a14-nompi": ["cinn", "fpcd", "sbunfold"]}  # by response
ITERATIONS = 5
STEP1 = "omnifold-step1"
PAPER_ROWS = 20_000  # of the published bridge: 999 evaluations for each
CALIBRATED, DRAWS = 10_000, 50
EXPERIMENTS, FEW = 20, 1_000
FOR_FEW = {"members": 3, "depth": 1}  # classifiers of a thousand events
CANDIDATES = 16
SEED = 11


def models(work: Path) -> None:
    """Train every generative method on both responses, once."""
    for name in dict.fromkeys(response for response, _ in STUDIES.values()):
        for recipe in METHODS[name]:
            model(work, name, recipe)


def model(work: Path, response: str, recipe: str) -> UnfoldingModel:
    file = work / "models" / f"{response}-{recipe}.safetensors"
    file.parent.mkdir(exist_ok=True)
    if file.exists():
        return load_unfolding(file)
    return train_unfolding(Sample(work, response).whole, recipe=recipe, output=file, resume=True)


# -- the tables -------------------------------------------------------------------------------


def many(work: Path, docs: Path, study: str) -> dict[str, Any]:
    """All pseudo-data of a study: every method, once and iterated, against the truth of the pairs."""
    response, measured = (Sample(work, name) for name in STUDIES[study])
    truth = measured.level("particle")
    candidates = dict(_all(work, study, response, measured.data(), measured))
    baselines = {"prior": response.level("particle"), "data": measured.level("detector")}
    spectra(truth, {**baselines, **candidates}, docs / f"unfolding-{study}.png")
    return evaluate_unfolding(
        truth,
        candidates,
        NAMES,
        baselines=baselines,
        bootstraps=100,
        splits=20,
        seed=SEED,
    )


def _all(
    work: Path, study: str, response: Sample, data: Data, measured: Sample
) -> Iterator[tuple[str, Table]]:
    simulated = response.level("particle")
    yield STEP1, replace(simulated, weights=step1(response.pairs, data))
    for recipe in METHODS[STUDIES[study][0]]:
        rows = slice(PAPER_ROWS if recipe == "sbunfold-paper" else None)
        trained = model(work, STUDIES[study][0], recipe)
        yield recipe, drawn(trained, measured.level("detector")[rows])
    for recipe in ITERATED:
        trained = iterated(work, STUDIES[study][0], recipe, response.pairs, data, ITERATIONS)
        if recipe == ITERATED[0]:  # the spectrum of all of them is OmniFold's
            yield f"omnifold ×{ITERATIONS}", weighted(trained, response)
        yield f"{recipe} ×{ITERATIONS}", drawn(trained, measured.level("detector"))


def drawn(trained: UnfoldingModel, table: Table) -> Table:
    """One truth for every measured event."""
    data = Data.from_table(replace(table, flags={}), trained.observables)
    return as_table(posterior(trained, data, seed=SEED, samples=1)[0], table)


def as_table(values: NDArray[np.float64], like: Table) -> Table:
    units = {"mass": "GeV"}
    return Table.from_columns(
        dict(zip(NAMES, values.T, strict=True)),
        {name: units.get(name, "1") for name in NAMES},
        defined=dict(zip(NAMES, ~np.isnan(values.T), strict=True)),
        event_ids=like.event_ids,
    )


def iterated(
    work: Path,
    name: str,
    recipe: str,
    pairs: Response,
    data: Data,
    iterations: int,
    classifier: Mapping[str, int] | None = None,
) -> UnfoldingModel:
    return train_unfolding(
        pairs,
        data,
        recipe=recipe,
        overrides=[
            f"iterations={iterations}",
            f"candidates={CANDIDATES}",
            *(f"classifier.{key}={value}" for key, value in (classifier or {}).items()),
        ],
        start=model(work, name, recipe),
        seed=SEED,
    )


def weighted(trained: UnfoldingModel, response: Sample) -> Table:
    """The simulated pairs with the weights that OmniFold has found."""
    return reweight(trained, replace(response.level("particle"), flags={}), seed=SEED)


def step1(
    pairs: Response, data: Data, classifier: Mapping[str, int] | None = None
) -> NDArray[np.float64]:
    """Weights of one classifier at detector level."""
    frame = UnfoldingModel.empty(load_unfolding_recipe("cinn"), pairs.observables).seen
    frame.fit(pairs.seen, NAMES)
    found = omnifold(
        frame.features(pairs.seen),
        frame.features(pairs.seen),
        frame.features(data.seen),
        seed=SEED,
        data_weights=data.weights,
        settings=OmniFoldSettings(
            iterations=1, second_step=False, classifier=dict(classifier or {})
        ),
    )
    return found.weights


# -- pseudo-experiments -----------------------------------------------------------------------


def few(work: Path, study: str) -> dict[str, Any]:
    """Twenty times a thousand events: mean and spread of the distances to the truth of all."""
    response, measured = (Sample(work, name) for name in STUDIES[study])
    detector, particle = measured.level("detector"), measured.level("particle")
    found: dict[str, list[list[list[float]]]] = {}
    for k in range(EXPERIMENTS):
        rows = slice(k * FEW, (k + 1) * FEW)
        tables: dict[str, Table] = {"truth": particle[rows]}
        data = measured.data(rows)
        tables[STEP1] = replace(
            response.level("particle"), weights=step1(response.pairs, data, FOR_FEW)
        )
        for recipe in METHODS[STUDIES[study][0]]:
            tables[recipe] = drawn(model(work, STUDIES[study][0], recipe), detector[rows])
        trained = iterated(work, STUDIES[study][0], "sbunfold", response.pairs, data, 2, FOR_FEW)
        tables["omnifold ×2"] = weighted(trained, response)
        tables["sbunfold ×2"] = drawn(trained, detector[rows])
        for name, table in tables.items():
            found.setdefault(name, []).append(
                [_distances(particle, table, observable) for observable in NAMES]
            )
    return {
        name: {
            observable: {
                key: {"mean": float(np.mean(column)), "std": float(np.std(column, ddof=1))}
                for key, column in zip(("emd", "triangular"), np.array(values)[:, k].T, strict=True)
            }
            for k, observable in enumerate(NAMES)
        }
        for name, values in found.items()
    }


def _distances(truth: Table, table: Table, name: str) -> list[float]:
    """EMD × 10 and triangular discriminator × 1000 of the defined values."""
    observable = PUBLISHED[name]
    u, v = (values_of(t, observable, "a sample") for t in (truth, table))
    return [
        EMD_SCALE * wasserstein(u.x, v.x, u.weights, v.weights),
        TRIANGULAR_SCALE * triangular(u, v, observable.edges),
    ]


# -- posteriors, prior, acceptance, time ------------------------------------------------------


def calibration(work: Path) -> dict[str, Any]:
    """Coverage of the posteriors in closure."""
    measured = Sample(work, STUDIES["closure"][1])
    out: dict[str, Any] = {}
    for recipe in GENERATIVE:
        n, k = (2_000, 20) if recipe == "sbunfold-paper" else (CALIBRATED, DRAWS)
        trained = model(work, "a14", recipe)
        draws = posterior(trained, measured.data(slice(n)), seed=SEED, samples=k)
        own = {name: draws[:, :, i].T for i, name in enumerate(NAMES)}
        out |= evaluate_posteriors(measured.level("particle")[:n], {recipe: own}, seed=SEED)
    return out


def prior(work: Path) -> dict[str, Any]:
    """Pseudo-data that the simulated spectrum is wrong for: iteration by iteration.

    Of the pseudo-data of the closure study, events are kept with a probability in proportion to
    exp(0.5 z) in the standardised logarithms of mass and multiplicity alike, cut at exp(±1.5): heavier and
    fuller jets than those of the response, in the same detector.
    """
    response, measured = (Sample(work, name) for name in STUDIES["closure"])
    tilt = np.zeros(len(measured.pairs))
    for column in (NAMES.index("mass"), NAMES.index("multiplicity")):
        z = np.log(np.maximum(measured.pairs.true[:, column], 1.0))
        tilt += 0.5 * (z - z.mean()) / z.std()
    chance = np.exp(np.clip(tilt, -1.5, 1.5) - 1.5)
    kept = np.flatnonzero(stream(SEED, "tilt").random(len(tilt)) < chance)
    truth, seen = measured.level("particle")[kept], measured.level("detector")[kept]
    data = Data.from_table(replace(seen, flags={}), measured.whole.observables)
    trained = model(work, "a14", "sbunfold")
    out: dict[str, Any] = {"sbunfold": {}, "omnifold": {}, "n": len(kept)}

    def keep(name: str, iterations: int, table: Table) -> None:
        out[name][str(iterations)] = {o: _distances(truth, table, o) for o in NAMES}

    for name in ("sbunfold", "omnifold"):
        keep(name, -1, response.level("particle"))
    keep("sbunfold", 0, drawn(trained, seen))
    for iterations in (1, 2, 4, 8):
        changed = train_unfolding(
            response.pairs,
            data,
            recipe="sbunfold",
            overrides=[f"iterations={iterations}", f"candidates={2 * CANDIDATES}"],
            start=trained,
            seed=SEED,
        )
        keep("sbunfold", iterations, drawn(changed, seen))
        keep("omnifold", iterations, weighted(changed, response))
    half = len(truth) // 2
    by_chance = {o: _distances(truth[:half], truth[half:], o)[0] / 2**0.5 for o in NAMES}
    return {**out, "floor": by_chance}


def acceptance(work: Path) -> dict[str, Any]:
    """Everything that passes, misses and fakes included: the number of events, and the distances."""
    out: dict[str, Any] = {}
    for study, (name, other) in STUDIES.items():
        if not (work / f"{other}.h5").exists():
            continue
        response, measured = Sample(work, name), Sample(work, other)
        truth = measured.level("particle", passing=True)
        events = measured.level("detector", passing=True)
        data = Data.from_table(events, response.whole.observables)
        found = unfold(model(work, name, "sbunfold"), events, seed=SEED)
        moved = {n: found.column(f"unfolded_{n}") for n in NAMES}
        folded = train_unfolding(response.whole, data, recipe="omnifold", seed=SEED)
        tables = {
            "sbunfold": replace(
                as_table(np.stack(list(moved.values()), axis=1), found), weights=found.weights
            ),
            "omnifold": reweight(folded, response.tables["particle"], seed=SEED),
        }
        out[study] = {"truth": len(truth), "data": len(events)}
        for method, table in tables.items():
            assert table.weights is not None
            out[study][method] = {
                "sum": float(table.weights.sum()),
                "error": float(np.square(table.weights).sum()) ** 0.5,
                "distances": {o: _distances(truth, table, o) for o in NAMES},
            }
    return out


def speed(work: Path, *, rounds: int = 5) -> dict[str, Any]:
    """Milliseconds for each jet, from detector-level columns to unfolded ones, on one thread."""
    torch.set_num_threads(1)
    measured = Sample(work, STUDIES["closure"][1])
    trained = {recipe: model(work, "a14", recipe) for recipe in GENERATIVE}
    times: dict[str, list[float]] = {recipe: [] for recipe in GENERATIVE}
    for _ in range(rounds):
        for recipe, one in trained.items():
            n = 500 if recipe == "sbunfold-paper" else 20_000
            data = measured.data(slice(n))
            times[recipe].append(_timed(lambda one=one, data=data: _draw(one, data)) / n)  # type: ignore[misc]
    return {
        recipe: {
            "ms": 1e3 * float(np.median(values)),
            "low": 1e3 * min(values),
            "high": 1e3 * max(values),
            "evaluations": trained[recipe].unfolder.transport.nfe,  # type: ignore[union-attr]
            "training_seconds": trained[recipe].summary["training_seconds"],
        }
        for recipe, values in times.items()
    }


def _draw(trained: UnfoldingModel, data: Data) -> None:
    assert trained.unfolder is not None
    trained.unfolder.sample(data.seen, data.event_ids, seed=SEED)


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
