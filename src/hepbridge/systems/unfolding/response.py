"""The response: simulated events at particle level and as the detector sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.data.tables import Table
from hepbridge.systems.unfolding.observables import Observables

__all__ = ["Response", "passing"]

_LEAST_PAIRS = 200


@dataclass(frozen=True)
class Response:
    """N simulated events, row by row at both levels.

    An event *passes* at a level if it is selected there (flag ``pass`` of its table; without one
    all do). Those that pass at both, and whose jets are the same (flag ``matched`` of either table, if
    there is one), are *pairs*. What passes at particle level and is no pair is a *miss*; what passes
    at detector level and is no pair is a *fake*.

    Attributes:
        observables: what takes part.
        true: (N, columns) particle level; ``seen`` (N, columns) detector level; NaN where undefined.
        pairs, misses, fakes: (N,) bool; no event is two of them, except a miss that is also a fake.
        weights: (N,) of the generator, 1 if there were none.
        event_ids: (N, 2).
    """

    observables: Observables
    true: NDArray[np.float64]
    seen: NDArray[np.float64]
    pairs: NDArray[np.bool_]
    misses: NDArray[np.bool_]
    fakes: NDArray[np.bool_]
    weights: NDArray[np.float64]
    event_ids: NDArray[np.uint64]

    @classmethod
    def from_tables(
        cls,
        tables: Mapping[str, Table],
        names: Sequence[str] | None = None,
        further: Sequence[str] = (),
        *,
        levels: tuple[str, str] = ("particle", "detector"),
    ) -> Response:
        """From a table for each level, with rows that belong together.

        Raises DataError if a table or column is missing, the rows do not belong together, both
        levels have weights that differ, weights are not positive in sum, or too few pairs are left.
        """
        for level in levels:
            if level not in tables:
                raise DataError(
                    f"the response has no table {level!r}; it has: {', '.join(tables) or 'none'}"
                )
        particle, detector = (tables[level] for level in levels)
        if len(particle) != len(detector):
            raise DataError(
                f"the response has {len(particle)} events at particle level and {len(detector)} at "
                "detector level; row i of both must be the same event, with flags 'pass' for what "
                "is selected"
            )
        if not _same_events(particle.event_ids, detector.event_ids):
            row = int(np.flatnonzero((particle.event_ids != detector.event_ids).any(axis=1))[0])
            raise DataError(
                f"row {row} of the response is event {particle.event_ids[row].tolist()} at particle "
                f"level and {detector.event_ids[row].tolist()} at detector level; sort both alike"
            )
        observables = Observables.of(particle, detector, names, further)
        both = passing(particle) & passing(detector)
        for table in (particle, detector):
            both &= table.flags.get("matched", np.True_)
        made = cls(
            observables,
            observables.true(particle),
            observables.seen(detector),
            both,
            passing(particle) & ~both,
            passing(detector) & ~both,
            _weights(particle, detector),
            particle.event_ids,
        )
        made._check()
        observables.check_levels(made.true[both], made.seen[both])
        return made

    def _check(self) -> None:
        if (count := int(self.pairs.sum())) < _LEAST_PAIRS:
            raise DataError(
                f"only {count} of {len(self)} events of the response pass at both levels; at least "
                f"{_LEAST_PAIRS} are needed"
            )
        for name, rows in (("pairs", self.pairs), ("misses", self.misses), ("fakes", self.fakes)):
            if rows.any() and self.weights[rows].sum() <= 0:
                raise DataError(
                    f"the weights of the {name} of the response add up to "
                    f"{self.weights[rows].sum():.3g}; they must be positive in sum"
                )

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Response:
        parts = ("true", "seen", "pairs", "misses", "fakes", "weights", "event_ids")
        return replace(self, **{name: getattr(self, name)[rows] for name in parts})

    @property
    def passes_particle(self) -> NDArray[np.bool_]:
        return self.pairs | self.misses

    @property
    def passes_detector(self) -> NDArray[np.bool_]:
        return self.pairs | self.fakes

    def weighted(self, weights: NDArray[np.float64]) -> Response:
        """The same events with other weights."""
        return replace(self, weights=weights)

    def describe(self) -> dict[str, Any]:
        """Counts, and the sums of weights where they differ from them."""
        kinds = {"pairs": self.pairs, "misses": self.misses, "fakes": self.fakes}
        return {
            "events": len(self),
            **{name: int(rows.sum()) for name, rows in kinds.items()},
            "efficiency": self._share(self.pairs, self.misses),
            "purity": self._share(self.pairs, self.fakes),
        }

    def _share(self, good: NDArray[np.bool_], bad: NDArray[np.bool_]) -> float:
        a, b = float(self.weights[good].sum()), float(self.weights[bad].sum())
        return a / (a + b)


def passing(table: Table) -> NDArray[np.bool_]:
    """The events (N,) that are selected: those with the flag ``pass``, all if there is none."""
    return table.flags.get("pass", np.ones(len(table), bool))


def _same_events(particle: NDArray[np.uint64], detector: NDArray[np.uint64]) -> bool:
    """Row by row. Tables that brought no ids have one data-set uid each, which says nothing."""
    made_up = all(len(np.unique(ids[:, 0])) == 1 for ids in (particle, detector))
    part = slice(1, 2) if made_up else slice(0, 2)
    return np.array_equal(particle[:, part], detector[:, part])


def _weights(particle: Table, detector: Table) -> NDArray[np.float64]:
    given = [t.weights for t in (particle, detector) if t.weights is not None]
    if len(given) == 2 and not np.array_equal(given[0], given[1]):
        raise DataError(
            "the weights of the response differ between the levels; a generated event has one weight"
        )
    return given[0] if given else np.ones(len(particle))
