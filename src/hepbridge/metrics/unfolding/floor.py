"""The floor of an unfolding: what the same numbers are between two samples of the truth itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hepbridge.core.errors import DataError
from hepbridge.data.tables import Table
from hepbridge.metrics.floor import Floor

__all__ = ["Halves", "TruthFloor", "measured_floor", "only"]


@dataclass(frozen=True)
class TruthFloor:
    """Distances between two samples of the truth with ``n`` effective events each.

    ``power``: a distance of samples of effective sizes n and m goes with (1/n + 1/m)^power by chance: 1/2
    for an EMD or a difference of correlations, 1 for what is quadratic in the difference.
    """

    floor: Floor
    n: float
    power: float

    def chance(self, n: float, m: float, scale: float = 1.0) -> dict[str, float]:
        """Mean and 95 % quantile of the distances of perfect samples of effective sizes n and m."""
        factor = scale * float(((1 / n + 1 / m) * self.n / 2) ** self.power)
        return {"chance": factor * self.floor.mean, "chance_q95": factor * self.floor.q95}

    def to_dict(self, scale: float = 1.0) -> dict[str, float]:
        found = {name: scale * value for name, value in self.floor.to_dict().items()}
        return {**found, "n": self.n}


class Halves:
    """Random halves of the truth, with ``second``, independent events of the same kind, put to it first.

    Rows with one event id stay together. Raises DataError for fewer than four events or two splits, or if
    the columns or weights of both samples differ.
    """

    def __init__(
        self, truth: Table, second: Table | None, splits: int, rng: np.random.Generator
    ) -> None:
        if splits < 2:
            raise DataError(f"a floor needs two splits or more, got {splits}")
        self._pool = truth if second is None else Table.joined([truth, second])
        _, group = np.unique(self._pool.event_ids, axis=0, return_inverse=True)
        group = group.reshape(-1)
        k = int(group.max()) + 1
        if k < 4:
            raise DataError(f"a floor needs at least four events of truth, got {k}")
        self._first = [rng.permutation(k)[group] < k // 2 for _ in range(splits)]

    def pairs(self, names: Sequence[str]) -> Iterator[tuple[Table, Table]]:
        """Both halves of each split, with these columns only."""
        pool = only(self._pool, names)
        for first in self._first:
            yield pool[first], pool[~first]


def only(table: Table, names: Sequence[str]) -> Table:
    """A table with these columns and no flags. Raises DataError if one is not there."""
    return replace(
        table,
        columns={name: table.column(name) for name in names},
        units={name: table.units[name] for name in names},
        defined={name: table.defined[name] for name in names if name in table.defined},
        flags={},
    )


def measured_floor(
    pairs: Iterable[tuple[Table, Table]],
    distance: Callable[[Table, Table], float],
    sizes: Callable[[Table], float],
    power: float,
) -> TruthFloor:
    """The floor of a distance of two tables, over halves of the truth; ``sizes``: effective events."""
    found, n = [], []
    for a, b in pairs:
        found.append(distance(a, b))
        n.append(2 / (1 / sizes(a) + 1 / sizes(b)))
    return TruthFloor(Floor(np.array(found)), float(np.mean(n)), power)
