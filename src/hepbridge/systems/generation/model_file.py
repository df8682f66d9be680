"""One file is a generator: networks, tables, recipe and validity in safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hepbridge.core.errors import ModelFileError
from hepbridge.data.geometry import Geometry
from hepbridge.systems.generation.generator import Generator
from hepbridge.systems.generation.recipe import GenerationRecipe
from hepbridge.systems.model_file import Domain, locate
from hepbridge.systems.model_kinds import GENERATOR, KINDS
from hepbridge.training.tensor_file import TensorFile, content_digest

__all__ = ["FORMAT_VERSION", "GeneratorModel", "is_generator", "load_generator"]

FORMAT_VERSION = 1
_FILE = TensorFile(GENERATOR, "generator of hepbridge", "copy it or train it again", others=KINDS)


@dataclass
class GeneratorModel:
    """A trained generator.

    Attributes:
        generator: networks and frame.
        recipe: how it was trained, every default resolved.
        geometry, domain: what it generates, and where it may be used.
        provenance: hashes of the training data, versions, seed, date.
        metrics: held-out figures, compared with the baseline without networks.
    """

    generator: Generator
    recipe: GenerationRecipe
    geometry: Geometry
    domain: Domain
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model file atomically. Raises OutputError."""
        header = {
            "format_version": FORMAT_VERSION,
            "recipe": self.recipe.model_dump(mode="json"),
            "geometry": self.geometry.to_dict(),
            "domain": self.domain.to_dict(),
            "provenance": self.provenance,
            "metrics": self.metrics,
        }
        return _FILE.write(
            path,
            self.generator.state_dict(),
            json.dumps(header, sort_keys=True),
            overwrite=overwrite,
        )

    def digest(self) -> str:
        """Of the weights and the recipe: what makes two models the same."""
        recipe = json.dumps(self.recipe.model_dump(mode="json"), sort_keys=True)
        tensors = {k: v.detach().cpu() for k, v in self.generator.state_dict().items()}
        return content_digest(tensors, recipe)

    @property
    def method(self) -> str:
        """The transports and the frame, in words."""
        config = self.recipe.model
        stages = [stage.transport for stage in (config.layers, config.cells) if stage is not None]
        return f"{' + '.join(stages) or 'no network'}, frame {config.frame}"

    def generate(self, conditions: Any, event_ids: Any = None, **options: Any) -> Any:
        """Generated `Showers`; see `hepbridge.systems.generation.draw.generate`."""
        from hepbridge.systems.generation.draw import generate

        return generate(self, conditions, event_ids, **options)

    def describe(self) -> dict[str, Any]:
        """What the model is, as plain values."""
        config, domain = self.recipe.model, self.domain.to_dict()
        domain.pop("fast")
        return {
            "kind": "generator",
            "layers": config.layers and config.layers.transport,
            "cells": config.cells and config.cells.transport,
            "frame": config.frame,
            "geometry": self.geometry.to_dict(),
            "domain": domain,
            "network_evaluations": self.generator.nfe,
            "parameters": sum(p.numel() for p in self.generator.parameters()),
            "provenance": self.provenance,
            "metrics": self.metrics,
        }


def is_generator(path: str | Path) -> bool:
    """Is this a file that `GeneratorModel.save` wrote?"""
    try:
        return GENERATOR in _FILE.metadata(path)
    except ModelFileError:
        return False


def load_generator(path: str | Path) -> GeneratorModel:
    """A generator from its file, or a shipped one by its name (`locate`). Runs no code from it.

    Raises ModelFileError: the file is missing, damaged, foreign, or of an unknown version.
    """
    path = locate(str(path))
    header, stored = _FILE.header(path, FORMAT_VERSION), _FILE.tensors(path)
    try:
        recipe = GenerationRecipe.model_validate(header["recipe"])
        geometry = Geometry.from_dict(header["geometry"])
        domain = Domain.from_dict(header["domain"])
        generator = Generator(recipe.model, geometry)
        generator.load_state_dict(stored)
        about = dict(header["provenance"]), dict(header["metrics"])
    except Exception as error:  # a foreign header may ask for anything, a terabyte for example
        raise ModelFileError(f"{path}: the model is damaged ({error})") from error
    if not all(torch.isfinite(value).all() for value in stored.values()):
        raise ModelFileError(f"{path}: the weights hold NaN or infinity; train the model again")
    return GeneratorModel(generator.eval().requires_grad_(False), recipe, geometry, domain, *about)
