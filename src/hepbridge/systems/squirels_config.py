"""What a `Squirels` refiner is built from, and how the data decide what is left open."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from hepbridge.core.errors import ConfigError
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.conditioning import chosen, degree_for, elements_that_hold
from hepbridge.systems.refiner import SystemConfig

__all__ = ["SquirelsConfig", "elements_of", "rings_of"]

_JOINT = 1024  # cells
_ENOUGH = 2000  # full showers
_DENSE = 0.99  # share of the showers that hit a cell of a dense ring, at least


class SquirelsConfig(SystemConfig):
    """What to build.

    Attributes:
        transport: a registered transport that works between the two halves of the quantile
            transport, or null for the quantile transport alone (no network).
        options: its constructor arguments.
        rings: which sums of cells become coordinates of their own: the energy outside the central
            ring (``core``), or that of every ring but the central one.
        dense: number of rings, from the centre, whose cells are coordinates as shares of their ring
            (`ShowerCoordinates`); ``auto``: those of which 99 % of the full showers hit every cell;
            0: none, all cells are energies.
        sum_weight: weight of such a coordinate in the loss of transports that weight them, cells
            having 1.
        symmetry: use the symmetry that the geometry declares; ``auto`` verifies it on the data.
        joint_zeros: place what is empty below its threshold as the rest of the shower says, not at
            random: in full showers, for the training, with all coordinates (`joint_zeros`), in fast
            ones with their sums (`EmptyNoise`). ``auto``: up to 1,024 cells, as the time of the first
            grows with their third power, and from 2,000 full showers on.
        match_marginals: after the training, correct the marginals of the cells that the transport
            makes of the fast showers (`transforms.matched`); it costs nothing when refining.
        match_moments: correct also what the sums say of the cells, of the final ones, to fourth order
            (`MomentMatch`); only beside ``match_marginals``. ``auto``: from 2,000 full showers on: with
            fewer it adds more noise than it takes bias.
        conditions: further conditions of the showers that are used, e.g. ``theta_rad``, ``phi_rad``,
            ``x_mm``, ``y_mm``; ``auto``: all that vary in the training sample.
        degree_in_conditions: of the polynomials of `ConditionFrame`; ``auto``: as large as leaves
            80 pairs (and their symmetry images) for each coefficient.
        elements: numbers of the elements of the symmetry that are used, if it is and there are
            further conditions; empty: all. ``symmetry: auto`` finds them (`invariant_elements`).
        knots, nodes, degree: of the quantile tables.
    """

    transport: str | None = "flow_matching"
    options: dict[str, Any] = Field(default_factory=dict)
    sum_weight: float = 10.0
    symmetry: Literal["auto", "declared", "none"] = "auto"
    rings: Literal["none", "core", "all"] = "all"
    dense: Annotated[int, Field(ge=0)] | Literal["auto"] = 0
    joint_zeros: bool | Literal["auto"] = False
    match_marginals: bool = False
    match_moments: bool | Literal["auto"] = False
    knots: Annotated[int, Field(ge=3, le=10_000)] = 91
    nodes: Annotated[int, Field(ge=2, le=10_000)] = 49
    degree: Annotated[int, Field(ge=0, le=100)] = 3
    conditions: list[str] | Literal["auto"] = Field(default_factory=list)
    degree_in_conditions: Annotated[int, Field(ge=1, le=8)] | Literal["auto"] = "auto"
    elements: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)

    def named_conditions(self) -> list[str]:
        return [] if self.conditions == "auto" else self.conditions

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A model without further conditions is described as before there were any."""
        record: dict[str, Any] = handler(self)
        if not self.conditions:
            for name in ("conditions", "degree_in_conditions", "elements"):
                record.pop(name, None)
        return record

    def resolved(self, fast: Showers, full: Showers) -> Self:
        """With all that is ``auto`` decided. Raises DataError if the showers lack a condition."""
        from hepbridge.data.symmetry import verify

        names = chosen(self.conditions, fast, full)
        update: dict[str, Any] = {"conditions": names}
        if names and self.symmetry == "auto":
            update["elements"] = elements_that_hold(names, fast, full)
            update["symmetry"] = "declared" if len(update["elements"]) > 1 else "none"
        elif self.symmetry == "auto":
            holds = fast.geometry.symmetry != "none" and verify(fast).holds and verify(full).holds
            update["symmetry"] = "declared" if holds else "none"
        if self.dense == "auto":
            hit = (full.cells > 0).mean(axis=0)
            rings = rings_of(self, full.geometry)
            thin = [hit[rings == ring].min() < _DENSE for ring in range(1, rings.max() + 1)]
            update["dense"] = 1 + (thin.index(True) if any(thin) else len(thin))
        if self.match_moments == "auto":
            update["match_moments"] = len(full) >= _ENOUGH
        if self.joint_zeros == "auto":
            update["joint_zeros"] = full.geometry.n_cells <= _JOINT and len(full) >= _ENOUGH
        if names and self.degree_in_conditions == "auto":
            images = len(elements_of(self.model_copy(update=update), full.geometry))
            update["degree_in_conditions"] = degree_for(names, images * len(full))
        return self.model_copy(update=update)


def elements_of(config: SquirelsConfig, geometry: Geometry) -> NDArray[np.int64]:
    """Numbers of the used elements of the symmetry."""
    count = len(geometry.permutations())
    if config.symmetry != "declared":
        return np.arange(1)
    if config.elements and max(config.elements) >= count:
        raise ConfigError(f"model.elements {config.elements}: the symmetry has only {count}")
    return np.array(config.elements) if config.elements else np.arange(count)


def rings_of(config: SquirelsConfig, geometry: Geometry) -> NDArray[np.int64]:
    """For every cell the number of the ring that its sum belongs to."""
    if config.rings == "none":
        return np.zeros(geometry.n_cells, dtype=np.int64)
    rings = geometry.rings()
    return rings if config.rings == "all" else np.minimum(rings, 1)
