"""The columns that take part in an unfolding, and what may be wrong with them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.tables import Table
from hepbridge.transforms.event_frame import EventFrame

__all__ = ["Observables"]

log = logging.getLogger(__name__)

_APART = 30.0  # medians so many times apart are a mistake of units, not physics


@dataclass(frozen=True)
class Observables:
    """Names and units of the columns of both levels.

    Attributes:
        particle: what is unfolded; the detector has columns of the same names.
        further: columns that only help: seen by the detector, and not unfolded.
        units: of every column, by name, as the response has them; other tables are converted.
    """

    particle: tuple[str, ...]
    further: tuple[str, ...]
    units: dict[str, str]

    @classmethod
    def of(
        cls,
        particle: Table,
        detector: Table,
        names: Sequence[str] | None = None,
        further: Sequence[str] = (),
    ) -> Observables:
        """Those asked for; by default all columns that both tables have.

        Raises ConfigError for names that are given twice, DataError if one is not there or has
        units of different kinds at the two levels.
        """
        chosen = list(names) if names else [n for n in particle.columns if n in detector.columns]
        if not chosen:
            raise DataError(
                "the two levels have no column in common: particle level has "
                f"{', '.join(particle.columns)}; detector level {', '.join(detector.columns)}"
            )
        every = [*chosen, *further]
        if twice := [n for n in dict.fromkeys(every) if every.count(n) > 1]:
            raise ConfigError(f"observable {twice[0]!r} is given twice")
        for name in chosen:
            _column(particle, name, None, "particle level of the response")
        units = {name: particle.units[name] for name in chosen}
        for name in every:
            _column(detector, name, units.get(name), "detector level of the response")
        units |= {name: detector.units[name] for name in further}
        return cls(tuple(chosen), tuple(further), units)

    @property
    def detector(self) -> tuple[str, ...]:
        """The columns that are needed of what the detector saw."""
        return (*self.particle, *self.further)

    def true(self, table: Table, where: str = "the truth") -> NDArray[np.float64]:
        """Particle level (N, columns), NaN where undefined. Raises DataError."""
        return self._array(table, self.particle, where)

    def seen(self, table: Table, where: str = "the data") -> NDArray[np.float64]:
        """Detector level (N, columns), NaN where undefined. Raises DataError."""
        return self._array(table, self.detector, where)

    def _array(self, table: Table, names: Sequence[str], where: str) -> NDArray[np.float64]:
        return np.stack([_column(table, name, self.units[name], where) for name in names], axis=1)

    def check_like(
        self, values: NDArray[np.float64], frame: EventFrame, where: str, *, true: bool = False
    ) -> None:
        """Raise DataError unless the columns of ``values`` could be of the events that the frame has seen.

        That is, if one has another order of magnitude, or is undefined where it never was. ``true``:
        they are those of particle level.
        """
        names = self.particle if true else self.detector
        for k, (name, column, usual) in enumerate(zip(names, values.T, frame.sizes(), strict=True)):
            own = _scale(column)
            if min(own, usual) > 0 and max(own, usual) > _APART * min(own, usual):
                raise DataError(
                    f"{where}: column {name!r} has median size {own:.3g} {self._unit(name)}, the response "
                    f"{usual:.3g}; is one in other units (MeV against GeV)? State the unit of the column, "
                    "which is then converted"
                )
            missing = int(np.isnan(column).sum())
            if missing and not frame.absent[k]:
                raise DataError(
                    f"{where}: column {name!r} is undefined (NaN) in {missing} of {len(column)} events; "
                    "in the response it never is. Leave these events out, or give the response such ones"
                )

    def check_levels(self, true: NDArray[np.float64], seen: NDArray[np.float64]) -> None:
        """Raise DataError if a column differs between the levels (N, columns) by orders of magnitude."""
        for name, a, b in zip(self.particle, true.T, seen.T, strict=False):
            sizes = _scale(a), _scale(b)
            if min(sizes) > 0 and max(sizes) > _APART * min(sizes):
                raise DataError(
                    f"the response: column {name!r} has median size {sizes[0]:.3g} {self._unit(name)} at "
                    f"particle level and {sizes[1]:.3g} at detector level; is one in other units (MeV "
                    "against GeV)? State the unit of the column, which is then converted"
                )

    def _unit(self, name: str) -> str:
        unit = self.units[name]
        return "" if unit == "1" else unit

    def to_dict(self) -> dict[str, Any]:
        return {
            "particle": list(self.particle),
            "further": list(self.further),
            "units": dict(self.units),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Observables:
        names = tuple(str(n) for n in record["particle"]), tuple(str(n) for n in record["further"])
        units = {str(k): str(v) for k, v in record["units"].items()}
        if not names[0] or {*names[0], *names[1]} != set(units):
            raise DataError("the record of the observables contradicts itself")
        return cls(*names, units)


def _column(table: Table, name: str, unit: str | None, where: str) -> NDArray[np.float64]:
    try:
        return table.column(name, unit)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _scale(column: NDArray[np.float64]) -> float:
    there = np.abs(column[np.isfinite(column)])
    return float(np.median(there)) if len(there) else 0.0
