"""What `hepbridge.deploy.bench` times of a generator: itself, and its exported form."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, MissingExtraError
from hepbridge.core.rng import stream
from hepbridge.data.showers import Showers
from hepbridge.deploy.onnx.generator import OnnxGenerator
from hepbridge.deploy.onnx.generator_export import export_generator
from hepbridge.deploy.onnx.generator_form import trained
from hepbridge.deploy.stages import Stage
from hepbridge.systems.generation.draw import draw_cells
from hepbridge.systems.generation.model_file import GeneratorModel, load_generator

__all__ = ["generators"]

log = logging.getLogger(__name__)

_DIFFERENT = 1000  # particles, repeated if a batch is larger


def generators(path: Path) -> Iterator[Stage]:
    """A stage for a generator, and one for it exported to ONNX (with the extra ``onnx``).

    It may be for any calorimeter: the particles are spread over its own trained range.
    """
    label, model = path.stem, load_generator(path)
    particles = _particles(model)

    def call(showers: Showers) -> object:
        ids = showers.event_ids
        return draw_cells(model, {k: np.resize(v, len(ids)) for k, v in particles.items()}, ids)

    note = f"generator from noise, {model.geometry.n_cells:,} cells of {model.geometry.name}"
    yield Stage(label, "generator", model.generator.nfe, note, call)
    yield from _exported(label, model, particles)


def _exported(
    label: str, model: GeneratorModel, particles: dict[str, NDArray[np.float64]]
) -> Iterator[Stage]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            _, agreement = export_generator(model, path)
        except (ConfigError, MissingExtraError) as reason:
            log.info("%s is not timed in ONNX Runtime: %s", label, reason)
            return
        exported = OnnxGenerator(path)

    def call(showers: Showers) -> object:
        ids = showers.event_ids
        some = {k: np.resize(v, len(ids)) for k, v in particles.items()}
        return exported.generate(some, ids).cells

    note = f"as exported; agrees with torch within {agreement.worst:.1e} of a shower's energy"
    yield Stage(f"{label}, ONNX Runtime", "generator", model.generator.nfe, note, call)


def _particles(model: GeneratorModel) -> dict[str, NDArray[np.float64]]:
    """Conditions spread evenly over their trained ranges."""
    rng = stream(0, "bench")
    spans = trained(model.domain)
    return {name: rng.uniform(low, high, _DIFFERENT) for name, (low, high) in spans.items()}
