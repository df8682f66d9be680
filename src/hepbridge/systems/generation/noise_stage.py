"""A transport that starts at noise."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Conditions, Pairs, Phase
from hepbridge.core.rng import stream
from hepbridge.transports import TRANSPORTS
from hepbridge.transports.options import known_options

__all__ = ["NoiseStage", "StageConfig", "teacher_of"]


class StageConfig(BaseModel):
    """A registered transport and its arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transport: str
    options: dict[str, Any] = Field(default_factory=dict)


class NoiseStage(nn.Module):
    """Draws coordinates (N, dim) from noise, given conditions, by any transport.

    One that moves a source is given normal noise as its source. One that needs none, because it
    draws from its own noise, is given zeros, and is told so (``condition_on_source: false``) if it
    can do both.

    Args:
        dim: coordinates; ``condition_dims``: name -> columns.
        config: the transport.
        defaults: options that the transport gets if it has them and ``config`` does not say.

    Raises ConfigError for an unknown transport, or options that it does not have or allow.
    """

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        config: StageConfig,
        defaults: dict[str, Any],
    ) -> None:
        super().__init__()
        self.dim = dim
        self.trained = False  # taken over from a model with the same transport
        name, options = config.transport, self._complete(config.transport, config.options, defaults)
        known_options(f"transport {name!r}", TRANSPORTS[name], options)
        try:
            self.transport: Any = TRANSPORTS[name](dim, condition_dims, **options)
        except (TypeError, ValueError, RuntimeError, MemoryError) as error:
            raise ConfigError(f"options of transport {name!r}: {error}") from error
        self.source_free = bool(getattr(self.transport, "source_free", False))
        self.noise_dim = int(self.transport.noise_dim) + (0 if self.source_free else dim)

    def _complete(
        self, name: str, options: dict[str, Any], defaults: dict[str, Any]
    ) -> dict[str, Any]:
        keywords = _keywords(name)
        known = {k: v for k, v in defaults.items() if k in keywords}
        if "condition_on_source" in keywords:
            known["condition_on_source"] = False
        out = known | options
        if teacher := teacher_of(name, out):
            out["teacher_options"] = self._complete(
                teacher, out.get("teacher_options") or {}, defaults
            )
        return out

    @property
    def nfe(self) -> int:
        return int(self.transport.nfe)

    @property
    def planned_steps(self) -> int:
        return 0 if self.trained else int(self.transport.planned_steps)

    def phases(
        self,
        name: str,
        target: Tensor,
        conditions: dict[str, Tensor],
        seed: int,
        *,
        order: str,
        symmetries: Tensor | None = None,
    ) -> Iterator[Phase]:
        """What to learn from targets (N, dim) with conditions (N, k); phases are called ``name/…``."""
        if self.trained:
            return
        shape = tuple(target.shape)
        source = torch.from_numpy(stream(seed, "generation", name).standard_normal(shape)).float()
        if self.source_free:
            source = torch.zeros(1, 1).expand(shape)
        pairs = Pairs(
            source,
            target,
            conditions,
            order=order,
            symmetries=symmetries,
            from_noise=not self.source_free,
        )
        for phase in self.transport.phases(pairs, seed):
            yield replace(phase, name=f"{name}/{phase.name}")

    def learn_from(self, teacher: NoiseStage) -> None:
        """Distil a trained stage; take it over if it is of the same kind."""
        if hasattr(self.transport, "adopt"):
            self.transport.adopt(teacher.transport)
            return
        try:
            self.transport.load_state_dict(teacher.transport.state_dict())
        except RuntimeError as error:
            raise ConfigError(
                f"a stage of transport {type(self.transport).__name__} cannot learn from the "
                f"teacher's {type(teacher.transport).__name__} with other options: name a transport "
                "that distils (distilled), or leave the stage as it is in the teacher's recipe"
            ) from error
        self.trained = True

    def draw(self, conditions: Conditions, noise: Tensor) -> Tensor:
        """Coordinates (N, dim) of noise (N, noise_dim)."""
        if self.source_free:
            source, rest = torch.zeros_like(noise[:, :1]).expand(-1, self.dim), noise
        else:
            source, rest = noise[:, : self.dim], noise[:, self.dim :]
        out: Tensor = self.transport.apply(source, conditions, rest)
        return out


def teacher_of(name: str, options: dict[str, Any]) -> str | None:
    """The transport that a transport with these options distils, if it does."""
    keywords = _keywords(name)
    if "teacher_options" not in keywords:
        return None
    default = keywords["teacher"].default if "teacher" in keywords else TRANSPORTS[name].teacher
    return str(options.get("teacher", default))


def _keywords(name: str) -> dict[str, inspect.Parameter]:
    """Arguments of a transport, those that it hands on to its base class included."""
    found: dict[str, inspect.Parameter] = {}
    for kind in TRANSPORTS[name].__mro__:
        own = inspect.signature(kind.__init__).parameters
        found = {**own, **found}
        if not any(keyword.kind is keyword.VAR_KEYWORD for keyword in own.values()):
            break
    return found
