"""What every refiner has in common: fast showers in, full-simulation showers out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Phase
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers

__all__ = ["Refiner", "SystemConfig", "varying"]


class SystemConfig(BaseModel):
    """Base of the systems' configurations: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def named_conditions(self) -> list[str]:
        """Conditions of the showers, besides the incident energy, that the system works with."""
        return []


def varying(showers: Showers) -> list[str]:
    """Names of the conditions, besides the incident energy, that are not the same for all showers."""
    return [
        name
        for name, values in showers.conditions.items()
        if name != "incident_energy" and (values != values[:1]).any()
    ]


class Refiner(nn.Module, ABC):
    """A map from fast to full showers at equal conditions, with all that it learned.

    Parameters and buffers are the whole state: `state_dict` and the configuration rebuild it.
    Their shapes follow from the configuration and the geometry alone.
    """

    Config: ClassVar[type[SystemConfig]]
    noise_dim: int  # standard normal numbers per shower
    nfe: int  # network evaluations per shower

    def __init__(self, config: SystemConfig, geometry: Geometry) -> None:
        super().__init__()
        self.config = config
        self.geometry = geometry

    @classmethod
    def resolve(cls, config: SystemConfig, fast: Showers, full: Showers) -> SystemConfig:
        """The configuration with everything decided that is to be decided on the data."""
        return config

    @property
    @abstractmethod
    def planned_steps(self) -> int:
        """Optimiser steps of all phases together, as the configuration plans them."""

    @abstractmethod
    def fit(self, fast: Showers, full: Showers, seed: int) -> None:
        """Learn the statistics of the transforms; rows of ``fast`` beyond ``full`` have no partner."""

    def learn_from(self, teacher: Refiner) -> None:
        """Take over the transforms of a trained refiner, and it as the teacher, instead of `fit`."""
        raise ConfigError(f"{type(self).__name__} cannot be distilled")

    @abstractmethod
    def phases(self, fast: Showers, full: Showers, seed: int) -> Iterator[Phase]:
        """The training of the networks on pairs (row i at equal energy); none without networks."""

    def finish(self, fast: Showers, seed: int) -> None:
        """What remains to be learned, on the CPU, once the networks are trained; ``fast`` as in `fit`."""

    def unfamiliar(self, fast: Showers) -> NDArray[np.bool_]:
        """Mask (N,) of fast showers whose energy sum the fast simulation of the training never had.

        Of showers like those of the training at most about one in ten thousand. None here.
        """
        return np.zeros(len(fast), dtype=bool)

    @abstractmethod
    def refine(self, cells: Tensor, conditions: dict[str, Tensor], noise: Tensor) -> Tensor:
        """Refined cells (N, n_cells), MeV.

        Args:
            cells: fast cells (N, n_cells), MeV.
            conditions: ``incident_energy`` (N,), MeV, and those of `SystemConfig.named_conditions`.
            noise: (N, noise_dim) standard normal.
        """
