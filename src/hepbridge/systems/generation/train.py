"""From showers of full simulation and a recipe to a generator's model file."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hepbridge import __version__
from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.jobs import Request
from hepbridge.core.protocols import Phase
from hepbridge.core.rng import stream_key
from hepbridge.data.response import check_units
from hepbridge.data.showers import Showers, require_showers
from hepbridge.systems.gate import judge
from hepbridge.systems.generation.draw import generate
from hepbridge.systems.generation.generator import Generator, GeneratorConfig
from hepbridge.systems.generation.model_file import GeneratorModel, load_generator
from hepbridge.systems.generation.recipe import GenerationRecipe, load_generation_recipe
from hepbridge.systems.model_file import Domain
from hepbridge.systems.refiner import varying
from hepbridge.systems.train import digest_of, split
from hepbridge.systems.training_output import beside, provenance, wanted
from hepbridge.training import fit, leads
from hepbridge.training.seeds import initial_weights

__all__ = ["train_generator"]

log = logging.getLogger(__name__)

VALIDATION_ROWS = 1024  # held-out showers generated again at each validation during training


def train_generator(
    full: Showers,
    *,
    recipe: str | GenerationRecipe = "calo-cfm",
    config: Path | None = None,
    overrides: list[str] | None = None,
    teacher: GeneratorModel | None = None,
    output: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> GeneratorModel:
    """Train a generator on showers of full simulation.

    A fraction ``holdout`` of the showers is kept aside; at the end showers of their energies are
    generated and compared with them, beside the baseline without networks. With ``output`` the model
    is written to a file, and an interrupted training can be resumed from ``<output>.checkpoint``.

    Args:
        recipe: a shipped recipe's name, or a checked `GenerationRecipe`.
        config, overrides: changes of a named recipe (a YAML file; ``key.sub=value`` texts).
        teacher: a trained generator with the same frame: stages that distil learn from its stages,
            the others are taken over from it.
        resume: continue from the checkpoint if there is one.

    Raises:
        DataError: the showers cannot be used. ConfigError: the recipe is not valid, or does not go with
            the ``teacher``: it has another frame, or no step distils.
        OutputError: the output exists or cannot be written.
        TrainingInterrupted: on SIGINT or SIGTERM, after the state was saved.
    """
    chosen = (
        load_generation_recipe(recipe, config, overrides) if isinstance(recipe, str) else recipe
    )
    require_showers(full, "full")
    if full.weights is not None:
        raise DataError(
            "the showers have weights, which a generator cannot learn; unweight them first"
        )
    check_units(full, "the full showers")
    resolved = chosen.model.resolved(full)
    if teacher is not None:
        resolved = _following(resolved, teacher)
    chosen = chosen.model_copy(update={"model": resolved})
    names = resolved.named_conditions()
    if left := [name for name in varying(full) if name not in names]:
        log.warning(
            "the showers vary in %s, and the generator will know nothing of it: it learns the average. "
            "Name them in model.conditions (auto: all)",
            ", ".join(left),
        )
    request = Request(
        {
            "command": "train generator",
            "recipe": chosen.model_dump(mode="json"),
            "full": digest_of(full, names),
            "seed": seed,
            "teacher": None if teacher is None else teacher.digest(),
            "hepbridge": __version__,
        }
    )
    if output is not None:
        output = Path(output)
        if not wanted(output, request, _stored, resume=resume, overwrite=overwrite):
            log.info("%s is complete already (same request); nothing to do", output)
            return load_generator(output)
    training, held = split(len(full), chosen.holdout, seed)
    domain = _domain(full, names)
    with initial_weights(int(stream_key(seed, "generation", "weights")[0])):
        generator = Generator(resolved, full.geometry)
    if teacher is None:
        generator.fit(full[training], seed)
    else:
        generator.learn_from(teacher.generator)
    model = GeneratorModel(generator, chosen, full.geometry, domain)
    history = fit(
        _phases(model, full[training], full[held], seed),
        chosen.training.settings(),
        seed=seed,
        device=device,
        checkpoint=None if output is None else beside(output, "checkpoint"),
        resume=resume,
        log=None if output is None else beside(output, "log.jsonl"),
        title="generator",
        fingerprint=request.digest(),
    )
    generator.to("cpu").eval().requires_grad_(False)
    generator.finish(full[training], seed)
    model.provenance = provenance(
        request,
        training_showers=len(training),
        training_seconds=round(history.seconds, 1),
        device=device,
    )
    if not leads():  # under torchrun one process judges and writes
        return model
    model.metrics = _judged(model, full[training], full[held], seed)
    if output is not None:
        model.save(output, overwrite=overwrite)
        beside(output, "checkpoint").unlink(missing_ok=True)
    return model


def _phases(model: GeneratorModel, full: Showers, held: Showers, seed: int) -> Iterator[Phase]:
    from hepbridge.metrics.compare import compare

    some = held[:VALIDATION_ROWS]

    def value(_: torch.nn.Module) -> float:
        where = next(model.generator.parameters()).device
        return compare(some, _again(model, some, seed, str(where)))

    phases = model.generator.phases(full, seed)
    steps = model.generator.planned_steps
    for phase in model.recipe.training.replanned(phases, steps):
        last = phase.name.startswith("cells/")  # before, the cells mean nothing
        yield dataclasses.replace(phase, validate=phase.validate or (value if last else None))


def _again(model: GeneratorModel, showers: Showers, seed: int, device: str = "cpu") -> Showers:
    """Generated showers of the same conditions and events.

    The model is asked for those conditions alone that it knows; `generate` may refuse others.
    """
    names = ("incident_energy", *model.recipe.model.named_conditions())
    known = {name: showers.conditions[name] for name in names}
    made = generate(model, known, showers.event_ids, seed=seed, device=device)
    return dataclasses.replace(made, conditions=showers.conditions)


def _judged(model: GeneratorModel, full: Showers, held: Showers, seed: int) -> dict[str, Any]:
    """Figures on held-out showers, beside those of the baseline without networks."""
    others = {}
    if model.recipe.model.cells is not None:
        own = model.recipe.model
        options = own.frame_options if own.frame == "quantile" else {}
        plain = GeneratorConfig(
            conditions=own.conditions,
            symmetry=own.symmetry,
            reference=own.reference,
            frame_options=options,
        )
        generator = Generator(plain, model.geometry)
        if own.frame == "quantile":
            generator.take_frame(model.generator)
        else:
            generator.fit(full, seed)
        recipe = model.recipe.model_copy(update={"model": plain})
        baseline = GeneratorModel(generator.eval(), recipe, model.geometry, model.domain)
        others["quantile"] = _again(baseline, held, seed)
    return judge(held, [_again(model, held, seed)], others, "generated", seed)


def _following(config: GeneratorConfig, teacher: GeneratorModel) -> GeneratorConfig:
    """The configuration with the frame of the teacher.

    Raises ConfigError if the teacher has another frame, or no step distils.
    """
    if not any(taught for _, taught in config.transports()):
        steps = [transport for transport, _ in config.transports()]
        raise ConfigError(
            "a teacher needs a student: use recipe calo-cfm or caloflow-student, or set "
            "model.cells.transport=distilled (the steps of this recipe distil nothing: "
            f"{', '.join(steps) or 'it has no network'})"
        )
    theirs = teacher.recipe.model
    if (config.frame, config.frame_options) != (theirs.frame, theirs.frame_options):
        raise ConfigError(
            f"the teacher's frame is {theirs.frame} {theirs.frame_options}; set model.frame and "
            "model.frame_options to the same"
        )
    same = ("symmetry", "reference", "conditions", "match_marginals")
    return config.model_copy(update={name: getattr(theirs, name) for name in same})


def _domain(full: Showers, names: list[str]) -> Domain:
    energy = full.incident_energy
    plain = {k: v for k, v in full.meta.items() if isinstance(v, str | int | float | bool)}
    spans = {name: full.conditions[name] for name in names}
    return Domain(
        float(energy.min()),
        float(energy.max()),
        str(full.meta.get("particle", "unknown")),
        {},
        plain,
        {name: (float(values.min()), float(values.max())) for name, values in spans.items()},
    )


def _stored(path: Path) -> dict[str, Any]:
    return load_generator(path).provenance
