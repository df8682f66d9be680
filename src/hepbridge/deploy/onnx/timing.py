"""How long an ONNX file and torch take for the same showers, in turn, on one core."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from hepbridge.deploy.machine import on_one_core
from hepbridge.deploy.onnx.check import session_of, trial
from hepbridge.deploy.onnx.contract import Contract
from hepbridge.deploy.onnx.generator_check import by_torch as generated
from hepbridge.deploy.onnx.generator_check import trial_conditions
from hepbridge.deploy.onnx.generator_contract import GeneratorContract
from hepbridge.deploy.onnx.generator_export import host_of
from hepbridge.deploy.onnx.generator_form import kept_inside, trained
from hepbridge.deploy.onnx.refiner import OnnxRefiner
from hepbridge.deploy.onnx.targets import target_of
from hepbridge.systems.generation.model_file import GeneratorModel
from hepbridge.systems.model_file import Model

__all__ = ["BATCHES", "GENERATOR_BATCHES", "generator_timings", "overhead", "timings"]

BATCHES = (1, 37, 1000, 10_000)
GENERATOR_BATCHES = (1, 37, 256)
_SECONDS = 1.5  # for each batch size and runtime
_LEAST, _MOST = 5, 3000  # calls
_SHOWERS = 200  # different ones, at least
_RUN = 100  # showers of one runtime before it is the turn of the other


def timings(
    model: Model, member: int, path: str, contract: Contract, batches: Sequence[int] = BATCHES
) -> list[dict[str, Any]]:
    """Times of a call in microseconds, by batch size: 5 % quantile, median and 95 % quantile.

    Both get their inputs as they need them, tensors or bound arrays. They take turns, so that what
    else the machine does hits both; small batches are other showers in every call, so that no cache
    holds what a table says of them. A file for a fixed number of showers is timed with that only.
    """

    def calls(n: int, k: int) -> dict[str, Callable[[], object]]:
        some = trial(model, contract, n, seed=k)
        return {"onnxruntime": _bound(session, some), "torch": _torch(model, member, some)}

    with on_one_core():
        session = session_of(path)
        return _rows(contract.inputs[0].shape[0], batches, calls)


def generator_timings(
    model: GeneratorModel,
    path: str,
    contract: GeneratorContract,
    batches: Sequence[int] = GENERATOR_BATCHES,
) -> list[dict[str, Any]]:
    """`timings` of a generator; ``unoptimised``: with the graph as it is written, as Par04 and DDML
    run it unless they are told otherwise."""
    host = host_of(model, target_of(contract.target, generator=True), contract.file)
    original = kept_inside(model.generator, trained(model.domain))

    def calls(n: int, k: int) -> dict[str, Callable[[], object]]:
        conditions, noise = trial_conditions(model, n, seed=k)
        packed = host.pack(conditions, noise)
        return {
            "onnxruntime": _bound(sessions[0], packed),
            "unoptimised": _bound(sessions[1], packed),
            "torch": lambda: generated(original, conditions, noise),
        }

    with on_one_core():
        sessions = session_of(path), session_of(path, optimised=False)
        return _rows(contract.inputs[0].shape[0], batches, calls)


def _rows(
    fixed: int | str, batches: Sequence[int], calls: Callable[[int, int], dict[str, Any]]
) -> list[dict[str, Any]]:
    """One row of figures for each batch size; ``calls`` by kind, of a batch size and a seed."""
    rows: list[dict[str, Any]] = []
    for n in batches if isinstance(fixed, str) else (fixed,):
        some = [calls(n, k) for k in range(max(1, _SHOWERS // n))]
        kinds = list(some[0])
        spent = _alternating([[one[kind] for one in some] for kind in kinds], max(1, _RUN // n))
        row: dict[str, Any] = {"batch": n, "calls": len(spent[0])}
        for kind, seconds in zip(kinds, spent, strict=True):
            low, median, high = (1e6 * float(q) for q in np.quantile(seconds, [0.05, 0.5, 0.95]))
            row[kind] = {"p05_us": low, "median_us": median, "p95_us": high}
        rows.append(row)
    return rows


def overhead(model: Model, path: str) -> float:
    """Microseconds that a call of `OnnxRefiner` adds to ONNX Runtime, for one shower.

    All of the call but the runtime itself, which is many times slower and would hide it; the quickest
    of several rounds, as whatever else the machine does can only add.
    """
    refiner = OnnxRefiner(path)
    inputs = trial(model, refiner.contract, 1, seed=0)
    refiner._session = _Silent(refiner(inputs))
    with on_one_core():
        return 1e6 * min(timeit.repeat(lambda: refiner(inputs), number=500, repeat=9)) / 500


class _Silent:
    """A session that has its answer already."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def run(self, names: None, inputs: object) -> object:
        return self.answer


def _bound(session: Any, inputs: dict[str, Any]) -> Callable[[], object]:
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_cpu_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding)


def _torch(model: Model, member: int, inputs: dict[str, Any]) -> Callable[[], object]:
    refiner = model.members[member].eval()
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    cells = tensors.pop("cells")
    noise = tensors.pop("noise", cells[:, :0])

    def call() -> object:
        with torch.inference_mode():
            return refiner.refine(cells, tensors, noise)

    return call


def _alternating(calls: Sequence[Sequence[Callable[[], object]]], run: int) -> list[list[float]]:
    """Seconds of the calls of each kind, one call after the other; after a run, the next kind."""
    for kind in calls:
        kind[0]()
    spent: list[list[float]] = [[] for _ in calls]
    until = time.perf_counter() + _SECONDS * len(calls)
    while len(spent[0]) < _MOST and (len(spent[0]) < _LEAST or time.perf_counter() < until):
        for kind, seconds in zip(calls, spent, strict=True):
            for _ in range(run):
                call = kind[len(seconds) % len(kind)]
                began = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - began)
    return spent
