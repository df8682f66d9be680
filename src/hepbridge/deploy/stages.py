"""What `hepbridge.deploy.bench` times: refiners, the paper's network as their competitor, GFLASH."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from hepbridge.core.errors import ConfigError, MissingExtraError, ModelFileError
from hepbridge.data import sample
from hepbridge.data.geometry import SQUIRELS
from hepbridge.data.showers import Showers
from hepbridge.deploy.onnx.export import export_onnx
from hepbridge.deploy.onnx.refiner import OnnxRefiner
from hepbridge.deploy.paper_network import disagreement, in_onnxruntime, untrained
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.detector import load_detector
from hepbridge.systems import SYSTEMS
from hepbridge.systems.checks import wrong_geometry
from hepbridge.systems.inference import refine_cells
from hepbridge.systems.model_file import Domain, Model, load, locate
from hepbridge.systems.recipe import load_recipe
from hepbridge.systems.squirels_paper import SquirelsPaper

__all__ = ["DEFAULT", "Stage", "competitors", "refiners", "simulations"]

log = logging.getLogger(__name__)

DEFAULT = "squirels"  # the shipped model that is timed if none is named

_TORCH, _ORT = "paper, torch", "paper, ONNX Runtime"
_GFLASH = "GFLASH"
_CHUNK = 128  # rows at a time through the paper's networks: where they are fastest per shower
_FIT_ROWS = 500  # pairs that teach the transforms of an untrained refiner
_FEWER = (16, 8, 4, 2, 1)  # steps that are tried besides a model's own
_FEWER_NOTE = "fewer integration steps than its own: faster, but not what was judged"
_AGREE = 3e-5  # of a standard deviation: float32 leaves 1e-6, 1 % of one layer is 4e-4


@dataclass(frozen=True)
class Stage:
    """Something that refines or makes showers, and how it is named.

    Attributes:
        name: in the table; different for all.
        kind: ``refiner``, ``generator``, ``paper`` or ``simulation``.
        nfe: network evaluations per shower.
        note: what a reader has to know about it.
        call: refines the showers, or makes as many others.
    """

    name: str
    kind: str
    nfe: int
    note: str
    call: Callable[[Showers], object]


def refiners(models: Sequence[str | Path]) -> Iterator[Stage]:
    """A stage for each model, one for it exported to ONNX (with the extra ``onnx``), and one for each
    smaller number of evaluations that it can run with."""
    given = [(Path(name).stem, load(name), "trained model") for name in models]
    for label, model, note in given or [_default()]:
        if model.geometry.digest() != SQUIRELS.digest():
            raise wrong_geometry(model, SQUIRELS)
        yield _refiner(label, model, note)
        yield from _exported(label, model)
        for fewer in _with_fewer_steps(model):
            nfe = fewer.members[0].nfe
            yield _refiner(f"{label}, NFE {nfe}", fewer, _FEWER_NOTE)


def _refiner(label: str, model: Model, note: str) -> Stage:
    def call(showers: Showers) -> object:
        return refine_cells(
            model,
            showers.cells,
            showers.incident_energy,
            showers.event_ids,
            conditions=showers.conditions,
        )

    return Stage(label, "refiner", model.members[0].nfe, note, call)


def _exported(label: str, model: Model) -> Iterator[Stage]:
    """The model as `hepbridge export` writes it, in ONNX Runtime, its noise keyed by event id too."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            _, agreement = export_onnx(model, path)
        except (ConfigError, MissingExtraError) as reason:  # a method that ONNX cannot hold
            log.info("%s is not timed in ONNX Runtime: %s", label, reason)
            return
        refiner = OnnxRefiner(path)

    def call(showers: Showers) -> object:
        return refiner.refine(showers).cells

    note = f"as exported; agrees with torch within {agreement.worst:.1e} of a shower's energy"
    yield Stage(f"{label}, ONNX Runtime", "refiner", model.members[0].nfe, note, call)


def _default() -> tuple[str, Model, str]:
    """The shipped model; without one, the recipe of its name, untrained."""
    try:
        path = locate(DEFAULT)
    except ModelFileError:
        return f"{DEFAULT} (untrained)", _untrained(), "no model is shipped: the recipe, untrained"
    return DEFAULT, load(path), "shipped model"


def _untrained() -> Model:
    """The default recipe with random networks; its transforms know the bundled sample."""
    fast, full = _taught()
    recipe = load_recipe(DEFAULT)
    system = SYSTEMS[recipe.system]
    config = system.resolve(recipe.system_config(), fast, full)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        refiner = system(config, fast.geometry)
    refiner.fit(fast, full, 0)
    refiner.eval().requires_grad_(False)
    low, high = float(fast.incident_energy.min()), float(fast.incident_energy.max())
    return Model([refiner], recipe, fast.geometry, Domain(low, high))


def _with_fewer_steps(model: Model) -> Iterator[Model]:
    """The first member with fewer integration steps, if its transport has that option."""
    seen = {model.members[0].nfe}
    for steps in _FEWER:
        options = {**(model.recipe.model.get("options") or {}), "steps": steps}
        recipe = model.recipe.model_copy(
            update={"model": {**model.recipe.model, "options": options}}
        )
        try:
            refiner = SYSTEMS[recipe.system](recipe.system_config(), model.geometry)
            refiner.load_state_dict(model.members[0].state_dict())
        except (ConfigError, RuntimeError):  # no such option, or other weights for other steps
            return
        if refiner.nfe not in seen and refiner.nfe < model.members[0].nfe:
            seen.add(refiner.nfe)
            refiner.eval().requires_grad_(False)
            yield Model([refiner], recipe, model.geometry, model.domain)


def competitors() -> tuple[list[Stage], list[dict[str, str]]]:
    """The paper's network in torch and in ONNX Runtime, and what cannot be timed here."""
    fast, full = _taught()
    paper = untrained(fast, full)
    note = f"both bridges, 20 steps each, random weights, {_CHUNK} rows at a time"
    stages = [_paper(_TORCH, paper, note)]
    absent = []
    try:
        ort = in_onnxruntime(paper)
    except MissingExtraError as error:
        absent.append({"name": _ORT, "reason": str(error)})
    else:
        apart = disagreement(paper, ort, *_tensors(fast[:_CHUNK]))
        if apart <= _AGREE:
            words = f"{note}; agrees with torch within {apart:.1e} standard deviations"
            stages.append(_paper(_ORT, ort, words))
        else:
            reason = f"not timed: differs from torch by {apart:.1e} standard deviations of a cell"
            absent.append({"name": _ORT, "reason": reason})
    return stages, absent


def simulations() -> tuple[list[Stage], list[dict[str, str]]]:
    """Our fast simulation of the same particles, and what cannot be timed here."""
    here = "geant4_pybind is installed, but this command runs no full simulation"
    reason = here if find_spec("geant4_pybind") else "not installed"
    absent = [{"name": "Geant4", "reason": reason}]
    try:
        from hepbridge.simulate.gflash import simulate
    except MissingExtraError as error:
        return [], [*absent, {"name": _GFLASH, "reason": str(error)}]
    detector = load_detector(SQUIRELS.name)

    def call(showers: Showers) -> object:
        beam = Beam.of(showers.incident_energy, event_ids=showers.event_ids)
        return simulate(detector, beam, seed=0, threads=1)

    call(sample.load("train_fast")[:1])  # compiles
    note = "the fast showers themselves, at the same incident energies"
    return [Stage(_GFLASH, "simulation", 0, note, call)], absent


def _paper(name: str, system: SquirelsPaper, note: str) -> Stage:
    generator = torch.Generator().manual_seed(0)

    def call(showers: Showers) -> object:
        cells, energy = _tensors(showers)
        out = []
        with torch.inference_mode():
            for start in range(0, len(cells), _CHUNK):
                x, e = cells[start : start + _CHUNK], energy[start : start + _CHUNK]
                noise = torch.randn(len(x), system.noise_dim, generator=generator)
                out.append(system.refine(x, {"incident_energy": e}, noise))
        return torch.cat(out)

    return Stage(name, "paper", system.nfe, note, call)


def _taught() -> tuple[Showers, Showers]:
    return sample.load("train_fast")[:_FIT_ROWS], sample.load("train_full")[:_FIT_ROWS]


def _tensors(showers: Showers) -> tuple[torch.Tensor, torch.Tensor]:
    energy = showers.incident_energy.astype(np.float32)
    return torch.from_numpy(showers.cells), torch.from_numpy(energy)
