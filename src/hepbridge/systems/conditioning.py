"""Further conditions of a refiner: angles, impact points, and whatever else varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.protocols import Conditions
from hepbridge.data.equivariance import invariant_elements, plane_matrices
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.refiner import varying
from hepbridge.transforms.condition_frame import ConditionFrame, gather, n_features, spread
from hepbridge.transforms.conditional_quantile import ConditionalQuantile
from hepbridge.transforms.named_conditions import VECTORS, NamedConditions

__all__ = ["ENERGY", "Conditioning", "chosen", "degree_for", "elements_that_hold"]

ENERGY = "incident_energy"

_PAIRS_PER_FEATURE = 80  # and symmetry image: below, the noise of the frame would be seen
_HIGHEST = 6  # degree


class Conditioning(nn.Module):
    """What a refiner knows of conditions besides the incident energy.

    `NamedConditions` makes columns of them for the transport. What they say of each coordinate by
    itself is in two frames (`ConditionFrame`), one of the fast and one of the full side: with them
    the quantile tables, which depend on the incident energy alone, lead to a space that is normal at
    every condition.

    Args:
        names: of the conditions.
        dim: coordinates of a shower.
        degree: of the frames.
        geometry, elements: the used elements of its symmetry move directions and positions, too.

    Raises ConfigError if the geometry does not say how.
    """

    def __init__(
        self, names: Sequence[str], dim: int, degree: int, geometry: Geometry, elements: list[int]
    ) -> None:
        super().__init__()
        self.named = NamedConditions(names)
        self.dims = {ENERGY: 1, **self.named.dims}
        columns = sum(self.dims.values())
        self.frames = nn.ModuleDict({k: ConditionFrame(dim, columns, degree) for k in _SIDES})
        vectors = [name for name in self.named.dims if name in VECTORS]
        every = plane_matrices(geometry)
        if every is None and vectors and len(elements) > 1:
            raise ConfigError(
                f"geometry {geometry.name!r} does not say how its symmetry moves a "
                f"{' or a '.join(vectors)}; use model.symmetry=none"
            )
        self._plane = np.eye(2)[None].repeat(len(elements), 0) if every is None else every[elements]
        plane = torch.from_numpy(self._plane).to(torch.float32)
        self.moves = {name: plane for name in vectors} if len(elements) > 1 else {}

    def columns(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Columns (N, k) by name, of conditions (N,)."""
        out: dict[str, Tensor] = self.named(values)
        return out

    def fit_columns(self, full: Showers) -> None:
        """Learn how conditions are standardised."""
        self.named.fit(full.conditions, self._plane)

    def fit(self, side: str, y: Tensor, c: Conditions, images: Tensor) -> Tensor:
        """Learn a frame from coordinates y (N, dim) and their ``images`` (g, dim); y in that frame."""
        joined = self._joined(c)
        blocks = [
            [torch.from_numpy(a).float() if name in VECTORS else torch.eye(k) for a in self._plane]
            for name, k in self.dims.items()
        ]
        moves = torch.stack([_block_diagonal(row) for row in zip(*blocks, strict=True)])
        frame = self.frames[side]
        assert isinstance(frame, ConditionFrame)
        frame.fit(y, joined, images, moves)
        mean, sigma, _ = frame(joined)
        out: Tensor = (y - mean) / sigma
        return out

    def to_normal(
        self, side: str, tables: ConditionalQuantile, y: Tensor, c: Conditions, noise: Tensor
    ) -> Tensor:
        """Normal coordinates (N, dim) of coordinates of a side; ``noise`` for what is empty."""
        mean, sigma, p0 = self.frames[side](self._joined(c))
        hit = y > -torch.inf
        z = tables(torch.where(hit, (y - mean) / sigma, 0.0), c[ENERGY].reshape(-1), noise)
        return spread(z, p0, noise, hit)

    def from_normal(
        self, side: str, tables: ConditionalQuantile, z: Tensor, c: Conditions
    ) -> Tensor:
        """Coordinates (N, dim), finite or -inf, of normal ones."""
        mean, sigma, p0 = self.frames[side](self._joined(c))
        inner, hit = gather(z, p0)
        y = mean + sigma * tables.inverse(inner, c[ENERGY].reshape(-1))
        return torch.where(hit, y, -torch.inf)

    def _joined(self, c: Conditions) -> Tensor:
        return torch.cat([c[name] for name in self.dims], dim=1)


_SIDES = ("fast", "full")


def _block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    out: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]  # torch's own lacks types
    return out


# -- decisions on data ------------------------------------------------------------------------


def chosen(wanted: list[str] | str, fast: Showers, full: Showers) -> list[str]:
    """The further conditions that a training uses; ``auto``: those that vary in the full sample.

    A generator has no fast showers: then ``fast`` is ``full``.

    Raises DataError if a named one is missing, ConfigError if it is the incident energy.
    """
    if wanted == "auto":
        names = [name for name in varying(full) if name in fast.conditions]
        for parts in VECTORS.values():  # a vector needs all its components, also a constant one
            if set(parts) & set(names):
                names += [p for p in parts if p in full.conditions and p not in names]
        return sorted(names)
    assert not isinstance(wanted, str)
    if ENERGY in wanted:
        raise ConfigError("the incident energy is always a condition; name the others only")
    sides = {"full": full} if fast is full else {"fast": fast, "full": full}
    for side, showers in sides.items():
        lacking = [name for name in wanted if name not in showers.conditions]
        if lacking:
            raise DataError(
                f"the {side} showers have no condition {', '.join(lacking)}; they have "
                f"{', '.join(showers.conditions)}"
            )
    return list(wanted)


def elements_that_hold(names: Sequence[str], fast: Showers, full: Showers) -> list[int]:
    """Elements of the symmetry under which both samples and their conditions are invariant."""
    return sorted(_invariant(names, fast) & _invariant(names, full))


def _invariant(names: Sequence[str], showers: Showers) -> set[int]:
    every = plane_matrices(showers.geometry)
    if every is None:
        return {0}
    named = NamedConditions(names)
    values = {
        name: torch.from_numpy(np.ascontiguousarray(showers.conditions[name])) for name in names
    }
    columns: dict[str, NDArray[np.float64]] = {
        name: value.numpy() for name, value in named.plain(values).items()
    }
    matrices = {name: every for name in named.dims if name in VECTORS}
    return set(invariant_elements(showers, columns, matrices))


def degree_for(names: Sequence[str], rows: int) -> int:
    """The largest degree of the frames that so many rows, symmetry images included, can carry."""
    columns = 1 + sum(NamedConditions(names).dims.values())
    most = rows / _PAIRS_PER_FEATURE
    return max((d for d in range(1, _HIGHEST + 1) if n_features(columns, d) <= most), default=1)
