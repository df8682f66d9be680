"""What the electronics do to a shower, applied alike to every sample before an evaluation.

>>> readout = Readout([Noise(0.5), Threshold(1.0), DeadCells([44])])
>>> seen = readout.apply(showers, seed=0)                                       # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.rng import event_normal
from hepbridge.data.showers import Showers

__all__ = ["DeadCells", "Noise", "Readout", "Saturation", "Threshold"]

Cells = NDArray[np.float64]
Ids = NDArray[np.uint64]


class Stage(Protocol):
    """One step: cells (N, n_cells) in MeV to cells in MeV."""

    kind: ClassVar[str]

    def __call__(self, cells: Cells, event_ids: Ids, stream: tuple[int, str]) -> Cells: ...


@dataclass(frozen=True)
class Noise:
    """Adds independent normal noise of standard deviation ``sigma_mev`` to every cell.

    The numbers are a function of (seed, place in the readout, event id): an event has the same
    noise in whatever file, order or block it comes. Energies may become negative on the way; see
    `Readout.apply`.
    """

    sigma_mev: float
    kind: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        _check_number(self.kind, "sigma_mev", self.sigma_mev)

    def __call__(self, cells: Cells, event_ids: Ids, stream: tuple[int, str]) -> Cells:
        return cells + self.sigma_mev * event_normal(*stream, event_ids, cells.shape[1])


@dataclass(frozen=True)
class Threshold:
    """Sets cells below ``mev`` to zero."""

    mev: float
    kind: ClassVar[str] = "threshold"

    def __post_init__(self) -> None:
        _check_number(self.kind, "mev", self.mev)

    def __call__(self, cells: Cells, event_ids: Ids, stream: tuple[int, str]) -> Cells:
        return np.where(cells < self.mev, 0.0, cells)


@dataclass(frozen=True)
class Saturation:
    """Sets cells above ``mev`` to ``mev``."""

    mev: float
    kind: ClassVar[str] = "saturation"

    def __post_init__(self) -> None:
        _check_number(self.kind, "mev", self.mev)

    def __call__(self, cells: Cells, event_ids: Ids, stream: tuple[int, str]) -> Cells:
        return np.minimum(cells, self.mev)


@dataclass(frozen=True)
class DeadCells:
    """Sets the cells with these flat indices to zero."""

    indices: tuple[int, ...]
    kind: ClassVar[str] = "dead_cells"

    def __init__(self, indices: Iterable[int]) -> None:
        object.__setattr__(self, "indices", tuple(int(i) for i in indices))
        if any(i < 0 for i in self.indices):
            raise ConfigError(f"readout dead_cells: indices must be >= 0, got {self.indices}")

    def __call__(self, cells: Cells, event_ids: Ids, stream: tuple[int, str]) -> Cells:
        if self.indices and max(self.indices) >= cells.shape[1]:
            raise DataError(
                f"readout dead_cells: there is no cell {max(self.indices)}; the showers have "
                f"cells 0 … {cells.shape[1] - 1}"
            )
        cells = cells.copy()
        cells[:, list(self.indices)] = 0.0
        return cells


STAGES: dict[str, type] = {s.kind: s for s in (Noise, Threshold, Saturation, DeadCells)}


@dataclass(frozen=True)
class Readout:
    """Stages, applied in order. JSON-able: ``Readout.from_dict(readout.to_dict()) == readout``."""

    stages: tuple[Stage, ...] = field(default=())

    def __init__(self, stages: Iterable[Stage]) -> None:
        object.__setattr__(self, "stages", tuple(stages))

    def apply(self, showers: Showers, seed: int) -> Showers:
        """The showers as read out, with the same ids, conditions and columns.

        Showers hold no negative energies, so the result is clipped at zero. Noise without a
        Threshold after it therefore adds sigma / sqrt(2 pi) to every empty cell on average; a
        threshold of a few sigma avoids that. A shower may end up without any energy.
        """
        cells: Cells = showers.cells.astype(np.float64)
        for place, stage in enumerate(self.stages):
            cells = stage(cells, showers.event_ids, (seed, f"readout {place} {stage.kind}"))
        seen = np.maximum(cells, 0.0).astype(np.float32)
        return showers.with_cells(seen, readout=self.to_dict(), readout_seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: ``{"stages": [{"kind": "noise", "sigma_mev": 0.5}, …]}``."""
        return {
            "stages": [
                {"kind": stage.kind}
                | {k: list(v) if isinstance(v, tuple) else v for k, v in vars(stage).items()}
                for stage in self.stages
            ]
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Readout:
        """The readout of `to_dict`. Raises ConfigError on unknown kinds and values."""
        try:
            described = [dict(stage) for stage in record["stages"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"not a readout: {record!r}; needed: {{'stages': [...]}}") from error
        stages = []
        for stage in described:
            kind = stage.pop("kind", None)
            if kind not in STAGES:
                raise ConfigError(
                    f"readout stage {kind!r} is unknown; allowed: {', '.join(STAGES)}"
                )
            try:
                stages.append(STAGES[kind](**stage))
            except (TypeError, ValueError) as error:
                if isinstance(error, ConfigError):
                    raise
                raise ConfigError(
                    f"readout stage {kind!r} cannot be made of {stage!r}: {error}"
                ) from error
        return cls(stages)


def _check_number(kind: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
        raise ConfigError(f"readout {kind}: {name} must be a number of MeV >= 0, got {value!r}")
