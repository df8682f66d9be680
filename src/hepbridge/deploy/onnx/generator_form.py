"""A generator in a form for a runtime: conditions inside the trained range, all in float32."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MethodType

import torch
from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.deploy.onnx.forms import simplify
from hepbridge.deploy.onnx.limits import Spans, clamped
from hepbridge.systems.conditioning import ENERGY
from hepbridge.systems.generation.generator import Generator
from hepbridge.systems.model_file import Domain

__all__ = ["generator_form", "kept_inside", "trained"]

_MOST = 256  # network evaluations, all of them nodes of the graph


def trained(domain: Domain) -> dict[str, tuple[float, float]]:
    """The trained range of every condition, the incident energy among them."""
    return {ENERGY: (domain.energy_min, domain.energy_max), **domain.conditions}


def kept_inside(generator: Generator, spans: Spans) -> Generator:
    """The same generator, on the CPU, which sees conditions beyond their range at its nearest end.

    The energy that a shower is scaled with is not changed: beyond the range it has the response and
    the shape of the range's end.
    """
    out = copy.copy(generator.cpu().eval())

    def conditions(self: Generator, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return Generator.conditions(self, clamped(values, spans))

    # of this copy alone
    out.conditions = MethodType(conditions, out)  # type: ignore[method-assign]
    return out


def generator_form(generator: Generator, spans: Spans) -> Generator:
    """A copy of a generator that gives the showers of `kept_inside` up to rounding.

    What differs is how parts are computed: as for refiners (`runtime_form`), and flows draw by
    arithmetic alone. Raises ConfigError for one that would be too many nodes.
    """
    if generator.nfe > _MOST:
        raise ConfigError(_too_many(generator))
    form = copy.deepcopy(generator).cpu().eval()
    with torch.no_grad():
        _generate_one(form)  # which makes the tables that are used
        simplify(form)

    def conditions(self: Generator, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = clamped(values, spans)
        unit = torch.exp(-self.mean).float()  # the logarithm is near zero, where float32 is fine
        log_energy = torch.log(values[ENERGY] * unit) * (1 / self.std).float()
        own = {ENERGY: log_energy[:, None]}
        return own | self.named(values) if self.named.names else own

    # of this copy alone
    form.conditions = MethodType(conditions, form)  # type: ignore[method-assign]
    return form


def _generate_one(form: Generator) -> None:
    conditions = {ENERGY: torch.exp(form.mean).reshape(1)}
    conditions |= {name: torch.zeros(1) for name in form.named.names}
    form.generate(conditions, torch.zeros(1, form.noise_dim))


def _too_many(generator: Generator) -> str:
    slow = [
        f"{name} ({stage.nfe} by {type(stage.transport).__name__})"
        for name, stage in (("layers", generator.layers), ("cells", generator.cells))
        if stage is not None and stage.nfe > _MOST // 2
    ]
    return (
        f"the model takes {generator.nfe} network evaluations for a shower, most of them for "
        f"{' and '.join(slow)}; a graph holds each of them, and {_MOST} is where it ends. Train a "
        "student of it (hepbridge train with --teacher and a recipe whose stages have the transport "
        "inverse_flow for autoregressive flows, distilled for others), or set fewer steps and train "
        "again; hepbridge generate works as it is"
    )
