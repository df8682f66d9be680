"""Measured events, as an unfolding sees them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.data.tables import Table
from hepbridge.systems.unfolding.bootstrap import poisson_weights
from hepbridge.systems.unfolding.observables import Observables
from hepbridge.systems.unfolding.response import passing
from hepbridge.transforms.event_frame import EventFrame

__all__ = ["Data"]

log = logging.getLogger(__name__)

_WORTH_TELLING = 0.001  # of the events beyond the response


@dataclass(frozen=True)
class Data:
    """N events that pass at detector level.

    Attributes:
        seen: (N, columns), NaN where undefined.
        weights: (N,), 1 if there were none; negative for a subtracted background.
        event_ids: (N, 2).
        rows: (N,) where they stand in the table that they come from.
        replica_of: number and seed of the bootstrap replica that the weights are of; None for the
            events as they were measured.
    """

    seen: NDArray[np.float64]
    weights: NDArray[np.float64]
    event_ids: NDArray[np.uint64]
    rows: NDArray[np.int64]
    replica_of: tuple[int, int] | None = None

    @classmethod
    def from_table(cls, table: Table, observables: Observables, where: str = "the data") -> Data:
        """Those of a table with the flag ``pass``, all if there is none.

        Raises DataError if a column is missing, none passes, or the weights add up to nothing.
        """
        rows = np.flatnonzero(passing(table))
        if not len(rows):
            raise DataError(f"{where}: none of {len(table)} events has the flag 'pass'")
        weights = np.ones(len(table)) if table.weights is None else table.weights
        if weights[rows].sum() <= 0:
            raise DataError(
                f"{where}: the weights add up to {weights[rows].sum():.3g}; they must be positive "
                "in sum"
            )
        return cls(observables.seen(table, where)[rows], weights[rows], table.event_ids[rows], rows)

    def __len__(self) -> int:
        return len(self.weights)

    def replica(self, number: int, seed: int) -> Data:
        """The events as often as in a bootstrap replica (`poisson_weights`)."""
        weights = self.weights * poisson_weights(seed, number, self.event_ids)
        return replace(self, weights=weights, replica_of=(number, seed))

    def less(self, background: Data) -> Data:
        """With the events of a background, counted negatively; their rows are -1."""
        weights = np.concatenate([self.weights, -background.weights])
        if weights.sum() <= 0:
            raise DataError(
                f"the background counts {background.weights.sum():.6g} events, the data only "
                f"{self.weights.sum():.6g}: nothing is left to unfold. Does the background have "
                "the weights of the data's luminosity?"
            )
        return Data(
            np.concatenate([self.seen, background.seen]),
            weights,
            np.concatenate([self.event_ids, background.event_ids]),
            np.concatenate([self.rows, np.full(len(background), -1)]),
        )

    def support(self, frame: EventFrame, observables: Observables) -> dict[str, Any]:
        """How many events lie beyond what the response has ever shown, in all and by column.

        Warns of more than one in a thousand: they are unfolded as if they lay at its edge. Raises
        DataError for columns of another magnitude, and for undefined values where the response has none.
        """
        observables.check_like(self.seen, frame, "the data")
        beyond = frame.outside(self.seen)
        share = float(beyond.any(axis=1).mean())
        by_column = dict(zip(observables.detector, beyond.mean(axis=0).tolist(), strict=True))
        if share > _WORTH_TELLING:
            worst = max(by_column, key=lambda name: by_column[name])
            log.warning(
                "%.3g %% of the events of the data lie outside of the response (most in %r, %.3g %%): "
                "they are unfolded as if they lay at its edge. Make the response wider, or select "
                "both alike",
                100 * share,
                worst,
                100 * by_column[worst],
            )
        return {"outside": share, "outside_by_column": by_column}
