"""From two samples and a recipe to a model file."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hepbridge import __version__
from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.jobs import Request
from hepbridge.core.protocols import Phase
from hepbridge.core.rng import stream
from hepbridge.data.join import join
from hepbridge.data.pairs import match_by_energy
from hepbridge.data.response import UNITS_APART, check_units, response
from hepbridge.data.showers import Showers, require_showers
from hepbridge.systems import SYSTEMS
from hepbridge.systems.gate import gate, without_network
from hepbridge.systems.inference import refine
from hepbridge.systems.model_file import Domain, Model, load, read_header
from hepbridge.systems.recipe import Recipe, load_recipe
from hepbridge.systems.refiner import Refiner, varying
from hepbridge.systems.teacher import follow, same_showers
from hepbridge.systems.tiles import forget
from hepbridge.systems.training_output import beside, provenance, wanted
from hepbridge.training import fit, leads

__all__ = ["digest_of", "split", "train"]

log = logging.getLogger(__name__)


VALIDATION_ROWS = 1024  # held-out showers refined at each validation during training
MIN_HELD = 6  # held-out showers that the comparison at the end needs


def train(
    fast: Showers,
    full: Showers,
    *,
    recipe: str | Recipe = "squirels",
    config: Path | None = None,
    overrides: list[str] | None = None,
    teacher: Model | None = None,
    output: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> Model:
    """Train a refiner on fast and full showers of equal incident energies.

    A fraction ``holdout`` of the pairs is kept aside; at the end the refiner is compared on it with
    doing nothing and with the quantile baseline, and says so loudly if it loses. With ``output``
    the model is written to a file, an interrupted training can be resumed from
    ``<output>.checkpoint``, and a log of the training is kept in ``<output>.log.jsonl``.

    Args:
        recipe: a shipped recipe's name, or a checked `Recipe`.
        config, overrides: changes of a named recipe (a YAML file; ``key.sub=value`` texts).
        teacher: a trained model that a student is distilled from, instead of training one first.
        resume: continue from the checkpoint if there is one. If ``output`` is complete with the
            same request, it is loaded and nothing is trained.

    Raises:
        DataError: the samples do not match, or their weights are negative. ConfigError: the recipe is not valid.
        OutputError: the output exists or cannot be written.
        TrainingInterrupted: on SIGINT or SIGTERM, after the state was saved.
    """
    chosen = load_recipe(recipe, config, overrides) if isinstance(recipe, str) else recipe
    require_showers(fast, "fast")
    require_showers(full, "full")
    surplus = fast[len(full) :]
    fast, full = match_by_energy(fast, full)
    _check_samples(fast, full)
    if teacher is not None:
        chosen = follow(chosen, teacher)
    system = SYSTEMS[chosen.system]
    resolved = system.resolve(chosen.system_config(), fast, full)
    chosen = chosen.model_copy(update={"model": resolved.model_dump(mode="json")})
    names = resolved.named_conditions()
    _check_conditions(fast, full, names)
    request = Request(
        {
            "command": "train",
            "recipe": chosen.model_dump(mode="json"),
            "fast": digest_of(fast, names),
            "surplus": digest_of(surplus, names),
            "full": digest_of(full, names),
            "seed": seed,
            "teacher": None if teacher is None else teacher.digest(),
            "hepbridge": __version__,
        }
    )
    if teacher is not None:
        same_showers(request.fields, teacher)
    if output is not None:
        output = Path(output)
        if not wanted(output, request, _stored, resume=resume, overwrite=overwrite):
            log.info("%s is complete already (same request); nothing to do", output)
            return load(output)
    training, held = split(len(fast), chosen.holdout, seed)
    if chosen.training.precision == "fp16" and device == "cpu":
        raise ConfigError("training.precision fp16 needs a GPU; on a CPU use float32 or bf16")
    members: list[Refiner] = []
    phases = _all_phases(chosen, fast, full, surplus, teacher, training, held, seed, members)
    history = fit(
        phases,
        chosen.training.settings(),
        seed=seed,
        device=device,
        checkpoint=None if output is None else beside(output, "checkpoint"),
        resume=resume,
        log=None if output is None else beside(output, "log.jsonl"),
        title=chosen.system,
        fingerprint=request.digest(),
    )
    for k, member in enumerate(members):
        member.to("cpu").eval().requires_grad_(False)
        member.finish(join([fast[training], *_some(surplus)]), seed + k)
        forget(member)
    model = Model(
        members,
        chosen,
        fast.geometry,
        _domain(fast, full, names),
        provenance=provenance(
            request,
            training_pairs=len(training),
            training_seconds=round(history.seconds, 1),
            device=device,
        ),
    )
    if not leads():  # under torchrun one process judges and writes
        return model
    baseline = _baseline(model, fast[training], full[training], seed)
    model.metrics = gate(model, baseline, fast[held], full[held], seed)
    if output is not None:
        model.save(output, overwrite=overwrite)
        beside(output, "checkpoint").unlink(missing_ok=True)
    return model


def _baseline(model: Model, fast: Showers, full: Showers, seed: int) -> Model | None:
    """The quantile baseline: the model's own, or one that learns from the same showers."""
    if model.members[0].nfe == 0:
        return None
    own = without_network(model)
    if own is not None:
        return own
    recipe = load_recipe("quantile")
    system = SYSTEMS[recipe.system]
    refiner = system(system.resolve(recipe.system_config(), fast, full), model.geometry)
    refiner.fit(fast, full, seed)
    return Model([refiner.eval()], recipe, model.geometry, model.domain)


def _all_phases(
    recipe: Recipe,
    fast: Showers,
    full: Showers,
    surplus: Showers,
    teacher: Model | None,
    training: np.ndarray,
    held: np.ndarray,
    seed: int,
    members: list[Refiner],
) -> Iterator[Phase]:
    """The phases of all ensemble members in turn; each member is built when its turn comes."""
    for k in range(recipe.ensemble):
        rows = training
        if recipe.bootstrap:
            rows = np.sort(stream(seed, "bootstrap", k).choice(training, len(training)))
        refiner: Refiner = SYSTEMS[recipe.system](recipe.system_config(), fast.geometry)
        if teacher is None:  # fast showers without a partner teach transforms
            refiner.fit(join([fast[rows], *_some(surplus)]), full[rows], seed + k)
        else:
            refiner.learn_from(teacher.members[k])
        members.append(refiner)
        check = _validation(recipe, members, k, fast[held], full[held], seed)
        phases = refiner.phases(fast[rows], full[rows], seed + k)
        for phase in recipe.training.replanned(phases, refiner.planned_steps):
            name = phase.name if recipe.ensemble == 1 else f"member{k}/{phase.name}"
            yield dataclasses.replace(phase, name=name, validate=phase.validate or check)


def _some(showers: Showers) -> list[Showers]:
    return [showers] if len(showers) else []


def _validation(
    recipe: Recipe, members: list[Refiner], k: int, fast: Showers, full: Showers, seed: int
) -> Callable[[torch.nn.Module], float]:
    """Held-out distance of member k to the full simulation: the curve in the log, and early stopping."""
    from hepbridge.metrics.compare import compare

    fast, full = fast[:VALIDATION_ROWS], full[:VALIDATION_ROWS]

    def value(_: torch.nn.Module) -> float:
        names = members[k].config.named_conditions()
        probe = Model(members, recipe, fast.geometry, _domain(fast, full, names))
        where = next(members[k].parameters()).device
        refined = refine(probe, fast, seed=seed, member=k, device=str(where))
        return compare(full, refined)

    return value


def split(n: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and rows held out, both sorted; the split is a function of n and seed."""
    order = stream(seed, "holdout").permutation(n)
    count = max(1, round(n * fraction))
    if n - count < 50:
        raise DataError(f"{n} pairs are too few to train on; at least about 60 are needed")
    if count < MIN_HELD:
        raise ConfigError(
            f"holdout {fraction:g} of {n} pairs is {count}, too few to judge the training; at "
            f"least {MIN_HELD} are needed"
        )
    return np.sort(order[count:]), np.sort(order[:count])


def _check_samples(fast: Showers, full: Showers) -> None:
    """What would fail, or be wrong without a word, after hours of training."""
    particles = {str(s.meta["particle"]) for s in (fast, full) if "particle" in s.meta}
    if len(particles) > 1:
        raise DataError(
            f"the fast and full showers are of different particles: {', '.join(sorted(particles))}"
        )
    held = [response(s) for s in (fast, full)]
    if max(held) > UNITS_APART * min(held):
        raise DataError(
            f"the cells hold {held[0]:.3g} of the incident energy in the fast showers and "
            f"{held[1]:.3g} in the full ones; is one file in GeV? Energies are MeV"
        )
    for name, showers in (("fast", fast), ("full", full)):
        check_units(showers, f"the {name} showers")
        if showers.weights is None:
            continue
        if showers.weights.min() < 0 or showers.weights.sum() <= 0:
            raise DataError(f"the {name} showers have negative weights, or none above 0")
        log.warning(
            "the weights of the %s showers are used in the held-out comparison only: in training "
            "every shower counts the same",
            name,
        )


def _check_conditions(fast: Showers, full: Showers, names: list[str]) -> None:
    """Raise DataError unless the rows of a pair share the conditions; warn of those left out."""
    for name in names:
        a, b = fast.conditions[name], full.conditions[name]
        apart = np.abs(a - b) > 1e-4 * max(float(np.ptp(b)), 1e-12)
        if apart.any():
            row = int(np.flatnonzero(apart)[0])
            raise DataError(
                f"condition {name} differs within {int(apart.sum())} of {len(a)} pairs (first: row "
                f"{row}, fast {a[row]:.6g}, full {b[row]:.6g}); simulate both showers of a pair with "
                "the same particle (hepbridge simulate pairs)"
            )
    left = [n for n in varying(full) if n not in names]
    if left:
        log.warning(
            "the showers vary in %s, and the model will know nothing of it: it learns the average. A "
            "recipe of system squirels takes conditions (model.conditions=auto, or a list of names)",
            ", ".join(left),
        )


def digest_of(showers: Showers, names: list[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(showers.incident_energy.tobytes())
    digest.update(showers.cells.tobytes())
    for name in names:
        digest.update(showers.conditions[name].tobytes())
    return digest.hexdigest()


def _stored(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_header(path)["provenance"]
    return found


def _domain(fast: Showers, full: Showers, names: list[str]) -> Domain:
    energy = full.incident_energy
    plain = {
        side: {k: v for k, v in showers.meta.items() if isinstance(v, str | int | float | bool)}
        for side, showers in (("fast", fast), ("full", full))
    }
    particle = str(full.meta.get("particle", fast.meta.get("particle", "unknown")))
    spans = {name: full.conditions[name] for name in names}
    return Domain(
        float(energy.min()),
        float(energy.max()),
        particle,
        plain["fast"],
        plain["full"],
        {name: (float(values.min()), float(values.max())) for name, values in spans.items()},
    )
