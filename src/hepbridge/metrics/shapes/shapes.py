"""What an evaluation keeps of each shower of any calorimeter, made block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.rng import event_uniform
from hepbridge.data.points import PointShowers
from hepbridge.data.showers import Showers, row_ids
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.energies import counts_alike
from hepbridge.metrics.shapes.hits import AXIS, HitMaker, Hits
from hepbridge.metrics.shapes.layout import Layout

__all__ = ["MAX_CELLS", "SHAPES", "SPECTRUM_SHOWERS", "THRESHOLD_MEV", "Block", "Shapes"]

Ints = NDArray[np.int64]
Block = Showers | PointShowers

THRESHOLD_MEV = 0.1
"""A hit is a cell strictly above: about half of what a minimum ionising particle leaves in 0.5 mm of
silicon."""
SPECTRUM_SHOWERS = 1_000
"""About so many whole showers are kept per incident energy (in a spectrum: in all)."""
MAX_CELLS = 1_024
"""The cells of calorimeters with at most so many are kept, for classifiers and correlations."""

SHAPES = (
    "e_sum",
    "e_max",
    "n_hit",
    "centre_x",
    "centre_y",
    "centre_z",
    "width_x",
    "width_y",
    "width_z",
)
_BLOCK_CELLS = 1 << 24  # of showers in memory that are looked at together


@dataclass(frozen=True)
class Shapes:
    r"""The shape of each of n showers, and a few whole showers.

    Attributes:
        layout: layers and rings.
        incident_energy: (n,) MeV.
        event_ids: (n, 2).
        weights: (n,) or None.
        values: name of `SHAPES` -> (n,). ``e_sum``, ``e_max``: MeV. ``n_hit``: cells (points)
            strictly above ``threshold_mev``. ``centre_x`` = Σ e x / Σ e, ``width_x`` =
            √(Σ e (x − centre_x)² / Σ e) over the hits, in mm from the axis of the shower, and the
            same for y and z (depth; in layers where depths are not known). NaN for a shower
            without energy.
        layers: (n, layers) energies, MeV.
        hits: (n, layers) numbers of cells above the threshold.
        rings: (n, rings) energies, MeV.
        cells: (n, n_cells) float32 MeV, for calorimeters of at most 1,024 cells; else None.
        kept: whole showers, about 1,000 per incident energy, drawn by a rule that depends on row
            and number of showers only: samples of equal size keep the same rows.
        kept_rows: the row of each of them, ascending.
        from_axis: were positions measured from the axis that the sample states for each shower?

    Sums run over the hits of one shower in the order of the sample, in double precision, so that the
    size of a block changes no bit. Blind to everything else, above all to what one cell does in
    a calorimeter of more than 1,024, and to the order of cells within a ring of a layer except as
    they move the centre or the widths.
    """

    layout: Layout
    incident_energy: Floats
    event_ids: NDArray[np.uint64]
    weights: Floats | None
    values: dict[str, Floats]
    layers: Floats
    hits: Floats
    rings: Floats
    cells: NDArray[np.float32] | None
    kept: PointShowers
    kept_rows: Ints
    threshold_mev: float = THRESHOLD_MEV
    from_axis: bool = False
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, sample: Block, layout: Layout | None = None, *, threshold_mev: float = THRESHOLD_MEV
    ) -> Shapes:
        """Of showers in memory; ``layout`` defaults to that of their geometry or their points."""
        if layout is None:
            layout = (
                Layout.of(sample.geometry)
                if isinstance(sample, Showers)
                else Layout.of_points(sample[: min(SPECTRUM_SHOWERS, len(sample))])
            )
        size = len(sample)
        if isinstance(sample, Showers):
            size = max(1, _BLOCK_CELLS // sample.geometry.n_cells)
        blocks = (sample[start : start + size] for start in range(0, len(sample), size))
        return cls.of_blocks(
            blocks, sample.incident_energy, layout, threshold_mev=threshold_mev, meta=sample.meta
        )

    @classmethod
    def of_blocks(
        cls,
        blocks: Iterable[Block],
        incident_energy: Floats,
        layout: Layout,
        *,
        threshold_mev: float = THRESHOLD_MEV,
        meta: dict[str, Any] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> Shapes:
        """Of blocks of showers that follow each other; ``incident_energy`` (n,) is that of all.

        ``advance`` is told the number of showers after every block.

        Raises ConfigError for a threshold that is not a positive energy or 0, DataError for blocks that
        do not fit the layout or the number of showers.
        """
        if not 0 <= threshold_mev < np.inf:
            raise ConfigError(f"the threshold of a hit is an energy ≥ 0, not {threshold_mev} MeV")
        maker = _Builder(layout, incident_energy, threshold_mev)
        for block in blocks:
            maker.add(block)
            if advance is not None:
                advance(len(block))
        return maker.shapes(dict(meta or {}))

    def __len__(self) -> int:
        return len(self.incident_energy)

    def __getitem__(self, rows: slice | int | NDArray[Any]) -> Shapes:
        """The rows of a slice, a mask or an index array, with everything that belongs to them."""
        chosen = np.atleast_1d(np.arange(len(self))[rows])
        number = np.full(len(self), -1)
        number[self.kept_rows] = np.arange(len(self.kept_rows))
        kept = np.flatnonzero(number[chosen] >= 0)
        return replace(
            self,
            incident_energy=self.incident_energy[chosen],
            event_ids=self.event_ids[chosen],
            weights=None if self.weights is None else self.weights[chosen],
            values={name: value[chosen] for name, value in self.values.items()},
            layers=self.layers[chosen],
            hits=self.hits[chosen],
            rings=self.rings[chosen],
            cells=None if self.cells is None else self.cells[chosen],
            kept=self.kept[number[chosen[kept]]],
            kept_rows=kept,
        )

    @property
    def e_sum(self) -> Floats:
        """(n,) MeV."""
        return self.values["e_sum"]

    @property
    def geometry(self) -> Layout:
        """What two samples must share to be compared."""
        return self.layout

    @staticmethod
    def joined(parts: Sequence[Shapes]) -> Shapes:
        """The showers of all parts, in order."""
        first = parts[0]
        if len(parts) == 1:
            return first
        starts = np.cumsum([0, *(len(p) for p in parts)])
        weighted = any(p.weights is not None for p in parts)
        return replace(
            first,
            incident_energy=np.concatenate([p.incident_energy for p in parts]),
            event_ids=np.concatenate([p.event_ids for p in parts]),
            weights=np.concatenate(
                [np.ones(len(p)) if p.weights is None else p.weights for p in parts]
            )
            if weighted
            else None,
            values={k: np.concatenate([p.values[k] for p in parts]) for k in first.values},
            layers=np.concatenate([p.layers for p in parts]),
            hits=np.concatenate([p.hits for p in parts]),
            rings=np.concatenate([p.rings for p in parts]),
            cells=None
            if any(p.cells is None for p in parts)
            else np.concatenate([p.cells for p in parts if p.cells is not None]),
            kept=PointShowers.joined([p.kept for p in parts]),
            kept_rows=np.concatenate(
                [p.kept_rows + s for p, s in zip(parts, starts[:-1], strict=True)]
            ),
        )


class _Builder:
    """Fills arrays of known length, block after block."""

    def __init__(self, layout: Layout, incident_energy: Floats, threshold_mev: float) -> None:
        n = len(incident_energy)
        self.layout, self.threshold = layout, threshold_mev
        self.incident_energy = incident_energy
        self.maker = HitMaker(layout)
        self.values = {name: np.empty(n) for name in SHAPES}
        self.layers, self.hits = np.empty((n, layout.n_layers)), np.empty((n, layout.n_layers))
        self.rings = np.empty((n, len(layout.radii)))
        self.ids = np.empty((n, 2), dtype=np.uint64)
        self.weights: Floats | None = None
        self.cells: NDArray[np.float32] | None = None
        # the rule must not depend on the sample: in a spectrum, row i of all samples belong together
        drawn = event_uniform(0, "kept showers", row_ids(0, 0, n), 1)[:, 0]
        self.keep = drawn * counts_alike(incident_energy) < SPECTRUM_SHOWERS
        self.kept: list[PointShowers] = []
        self.from_axis: bool | None = None
        self.done = 0

    def add(self, block: Block) -> None:
        rows = slice(self.done, self.done + len(block))
        if rows.stop > len(self.incident_energy):
            raise DataError(
                f"more showers than the {len(self.incident_energy)} that were announced"
            )
        hits = self.maker(block)
        self._shape(hits, rows)
        self.ids[rows] = block.event_ids
        if block.weights is not None:
            if self.weights is None:
                self.weights = np.ones(len(self.incident_energy))
            self.weights[rows] = block.weights
        if isinstance(block, Showers):
            self._cells(block, rows)
            axis = any(name in block.conditions for name in AXIS)
        else:
            axis = False
        if self.from_axis not in (None, axis):
            raise DataError("some showers of a sample state where their axis is, others do not")
        self.from_axis = axis
        self._keep(hits, block, rows)
        self.done = rows.stop

    def _shape(self, hits: Hits, rows: slice) -> None:
        n, e = hits.n, hits.energy
        seen = e > self.threshold
        total = np.bincount(hits.owner, e, minlength=n)
        self.values["e_sum"][rows] = total
        self.values["n_hit"][rows] = np.bincount(hits.owner[seen], minlength=n)
        largest = np.zeros(n)
        starts = np.flatnonzero(np.diff(hits.owner, prepend=-1))
        if len(starts):
            largest[hits.owner[starts]] = np.maximum.reduceat(e, starts)
        self.values["e_max"][rows] = largest
        safe = np.where(total > 0, total, np.nan)
        for axis, position in (("x", hits.x), ("y", hits.y), ("z", hits.z)):
            centre = np.bincount(hits.owner, e * position, minlength=n) / safe
            away = position - centre[hits.owner]
            square = np.bincount(hits.owner, e * away * away, minlength=n) / safe
            self.values[f"centre_{axis}"][rows] = centre
            self.values[f"width_{axis}"][rows] = np.sqrt(square)
        for table, bins, chosen, mass in (
            (self.layers, hits.layer, slice(None), e),
            (self.hits, hits.layer, seen, None),
            (self.rings, hits.ring, slice(None), e),
        ):
            width = table.shape[1]
            flat = (hits.owner * width + bins)[chosen]
            table[rows] = np.bincount(flat, mass, minlength=n * width).reshape(n, width)

    def _cells(self, block: Showers, rows: slice) -> None:
        if block.cells.shape[1] > MAX_CELLS:
            return
        if self.cells is None:
            shape = (len(self.incident_energy), block.cells.shape[1])
            self.cells = np.empty(shape, dtype=np.float32)
        self.cells[rows] = block.cells

    def _keep(self, hits: Hits, block: Block, rows: slice) -> None:
        chosen = self.keep[rows]
        if not chosen.any():
            return
        mine = chosen[hits.owner]
        counts = np.bincount(hits.owner[mine], minlength=hits.n)[chosen]
        x, y, z, energy = (
            v[mine].astype(np.float32) for v in (hits.x, hits.y, hits.z, hits.energy)
        )
        self.kept.append(
            PointShowers(
                x,
                y,
                z,
                energy,
                np.concatenate([[0], np.cumsum(counts)]),
                block.incident_energy[chosen],
                block.event_ids[chosen],
            )
        )

    def shapes(self, meta: dict[str, Any]) -> Shapes:
        if self.done != len(self.incident_energy):
            raise DataError(
                f"{self.done} showers came, but {len(self.incident_energy)} were announced"
            )
        return Shapes(
            self.layout,
            self.incident_energy,
            self.ids,
            self.weights,
            self.values,
            self.layers,
            self.hits,
            self.rings,
            self.cells,
            PointShowers.joined(self.kept),
            np.flatnonzero(self.keep),
            self.threshold,
            bool(self.from_axis),
            meta,
        )
