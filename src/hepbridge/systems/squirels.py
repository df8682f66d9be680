"""The default refiner: exact marginals first, then a network for what is left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs, Phase
from hepbridge.core.rng import event_normal
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.refiner import Refiner, SystemConfig
from hepbridge.transforms.shower_coordinates import ShowerCoordinates, log_energy
from hepbridge.transports import TRANSPORTS
from hepbridge.transports.quantile import Quantile

__all__ = ["Squirels", "SquirelsConfig"]

_CONDITION = "incident_energy"


class SquirelsConfig(SystemConfig):
    """What to build.

    Attributes:
        transport: a registered transport that works between the two halves of the quantile
            transport, or null for the quantile transport alone (no network).
        options: its constructor arguments.
        rings: which sums of cells become coordinates of their own: the energy outside the central
            ring (``core``), or that of every ring but the central one.
        sum_weight: weight of such a coordinate in the loss of `flow_matching`, cells having 1.
        symmetry: use the symmetry that the geometry declares; ``auto`` verifies it on the data.
        knots, nodes, degree: of the quantile tables.
    """

    transport: str | None = "flow_matching"
    options: dict[str, Any] = Field(default_factory=dict)
    sum_weight: float = 10.0
    symmetry: Literal["auto", "declared", "none"] = "auto"
    rings: Literal["none", "core", "all"] = "all"
    knots: Annotated[int, Field(ge=3, le=10_000)] = 91
    nodes: Annotated[int, Field(ge=2, le=10_000)] = 49
    degree: Annotated[int, Field(ge=0, le=100)] = 4


class Squirels(Refiner):
    r"""Fast showers to full-simulation showers at equal incident energy.

    1. coordinates: :math:`\ln(E_i/E)` of the cells, the rings and the sum (`ShowerCoordinates`);
    2. to normal space by the conditional quantile transform of the *fast* side, zeros spread;
    3. a transport in that space, in which the energy sum is carried unchanged: since the quantile
       map of a single variable is its optimal transport, the energy sum is exact and the shape is
       moved given the sum;
    4. back by the quantile transform of the *full* side, and scaled to the energy sum.

    Tables are pooled over symmetry-equivalent cells, and symmetry images of source and target are
    drawn independently in training, if the symmetry holds on both samples.
    """

    Config = SquirelsConfig
    config: SquirelsConfig

    def __init__(self, config: SquirelsConfig, geometry: Geometry) -> None:
        super().__init__(config, geometry)
        if config.symmetry == "auto":
            raise ConfigError("symmetry 'auto' must be resolved on data first (declared or none)")
        rings = geometry.rings()
        rings = {"none": 0 * rings, "core": np.minimum(rings, 1), "all": rings}[config.rings]
        self.coordinates = ShowerCoordinates(rings.tolist())
        n = self.coordinates.dim
        self.symmetric = config.symmetry == "declared"
        cells = geometry.orbits() if self.symmetric else np.arange(geometry.n_cells)
        sums = cells.max() + 1 + np.arange(n - len(cells))
        self.quantile = Quantile(
            n,
            {_CONDITION: 1},
            groups=[*cells.tolist(), *sums.tolist()],
            knots=config.knots,
            nodes=config.nodes,
            degree=config.degree,
        )
        # Any: a torch module that is also a Transport, whose `apply` is not that of torch
        self.transport: Any = None
        if config.transport is not None:
            self.transport = _build_transport(config, len(cells), n)
        self.noise_dim = n + (self.transport.noise_dim if self.transport is not None else 0)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(1.0, dtype=torch.float64))

    @property
    def nfe(self) -> int:  # type: ignore[override]
        return int(self.transport.nfe) if self.transport is not None else 0

    @property
    def planned_steps(self) -> int:
        return 0 if self.transport is None else int(self.transport.planned_steps)

    @classmethod
    def resolve(cls, config: SystemConfig, fast: Showers, full: Showers) -> SystemConfig:
        """Decide ``symmetry: auto`` on the data."""
        from hepbridge.data.symmetry import verify

        if not isinstance(config, SquirelsConfig) or config.symmetry != "auto":
            return config
        holds = fast.geometry.symmetry != "none" and verify(fast).holds and verify(full).holds
        return config.model_copy(update={"symmetry": "declared" if holds else "none"})

    def fit(self, fast: Showers, full: Showers, seed: int) -> None:
        log_e = np.log(fast.incident_energy)
        self.mean.fill_(float(log_e.mean()))
        self.std.fill_(max(float(log_e.std()), 1e-3))
        pairs = Pairs(
            self._coordinates(fast),
            self._coordinates(full),
            self._conditions(fast),
            order=_CONDITION,
        )
        list(self.quantile.phases(pairs, seed))

    def phases(self, fast: Showers, full: Showers, seed: int) -> Iterator[Phase]:
        if self.transport is None:
            return
        n = self.coordinates.dim
        conditions = self._conditions(fast)
        symmetries = None
        if self.symmetric:
            moves = torch.from_numpy(self.geometry.permutations())
            sums = torch.arange(moves.shape[1], n).expand(len(moves), -1)
            symmetries = torch.cat([moves, sums], dim=1)
        c = conditions[_CONDITION].reshape(-1)
        source = self.quantile.source(
            self._coordinates(fast), c, _dequantise(fast, seed, "fast", n)
        )
        target = self.quantile.target(
            self._coordinates(full), c, _dequantise(full, seed, "full", n)
        )
        pairs = Pairs(source, target, conditions, order=_CONDITION, symmetries=symmetries)
        yield from self.transport.phases(pairs, seed)

    def refine(self, cells: Tensor, conditions: dict[str, Tensor], noise: Tensor) -> Tensor:
        energy = conditions[_CONDITION].to(cells.dtype)
        n = self.coordinates.dim
        c = {_CONDITION: log_energy(energy.double(), self.mean, self.std)}
        z = self.quantile.to_normal(self.coordinates(cells, energy), c, noise[:, :n])
        if self.transport is not None:
            z = self.transport.apply(z, c, noise[:, n:])
        out: Tensor = self.coordinates.inverse(self.quantile.from_normal(z, c), energy)
        return out

    def _coordinates(self, showers: Showers) -> Tensor:
        energy = torch.from_numpy(showers.incident_energy.astype(np.float32))
        out: Tensor = self.coordinates.cpu()(torch.from_numpy(showers.cells), energy)
        return out

    def _conditions(self, showers: Showers) -> dict[str, Tensor]:
        energy = torch.from_numpy(showers.incident_energy)
        return {_CONDITION: log_energy(energy, self.mean.cpu(), self.std.cpu())}


def _build_transport(config: SquirelsConfig, n_cells: int, dim: int) -> nn.Module:
    transport = TRANSPORTS[config.transport or ""]
    options = dict(config.options)
    if config.transport == "flow_matching":
        options.setdefault("carried", 1)
        sums = dim - n_cells - options["carried"]
        options.setdefault("weights", [1.0] * n_cells + [config.sum_weight] * sums)
    try:
        built: nn.Module = transport(dim, {_CONDITION: 1}, **options)
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise ConfigError(f"model.options for transport {config.transport!r}: {error}") from error
    return built


def _dequantise(showers: Showers, seed: int, side: str, n: int) -> Tensor:
    noise = event_normal(seed, f"dequantise-{side}", showers.event_ids, n)
    return torch.from_numpy(noise.astype(np.float32))
