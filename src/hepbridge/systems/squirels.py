"""The default refiner: exact marginals first, then a network for what is left."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs, Phase
from hepbridge.core.rng import event_normal
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.refiner import Refiner, SystemConfig
from hepbridge.transforms.conditional_quantile import ConditionalQuantile
from hepbridge.transforms.marginals import matched
from hepbridge.transforms.shower_coordinates import ShowerCoordinates, log_energy
from hepbridge.transports import TRANSPORTS
from hepbridge.transports.options import known_options
from hepbridge.transports.quantile import Quantile

__all__ = ["Squirels", "SquirelsConfig"]

_CONDITION = "incident_energy"
_ROWS = 2048  # moved at once
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
        match_marginals: after the training, correct the marginals of the cells that the transport
            makes of the fast showers (`transforms.matched`); it costs nothing when refining.
        knots, nodes, degree: of the quantile tables.
    """

    transport: str | None = "flow_matching"
    options: dict[str, Any] = Field(default_factory=dict)
    sum_weight: float = 10.0
    symmetry: Literal["auto", "declared", "none"] = "auto"
    rings: Literal["none", "core", "all"] = "all"
    dense: Annotated[int, Field(ge=0)] | Literal["auto"] = 0
    match_marginals: bool = False
    knots: Annotated[int, Field(ge=3, le=10_000)] = 91
    nodes: Annotated[int, Field(ge=2, le=10_000)] = 49
    degree: Annotated[int, Field(ge=0, le=100)] = 3


class Squirels(Refiner):
    r"""Fast showers to full-simulation showers at equal incident energy.

    1. coordinates: logarithms of the cells, the rings and the sum (`ShowerCoordinates`);
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
        rings = _rings(config, geometry)
        if config.dense == "auto":
            raise ConfigError("dense 'auto' must be resolved on data first (a number of rings)")
        self.coordinates = ShowerCoordinates(rings.tolist(), dense=config.dense)
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
        self.matched: ConditionalQuantile | None = None
        if config.match_marginals and self.transport is not None:
            self.matched = copy.deepcopy(self.quantile.target)
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
        """Decide ``symmetry: auto`` and ``dense: auto`` on the data."""
        from hepbridge.data.symmetry import verify

        if not isinstance(config, SquirelsConfig):
            return config
        update: dict[str, Any] = {}
        if config.symmetry == "auto":
            holds = fast.geometry.symmetry != "none" and verify(fast).holds and verify(full).holds
            update["symmetry"] = "declared" if holds else "none"
        if config.dense == "auto":
            hit = (full.cells > 0).mean(axis=0)
            rings = _rings(config, full.geometry)
            thin = [hit[rings == ring].min() < _DENSE for ring in range(1, rings.max() + 1)]
            update["dense"] = 1 + (thin.index(True) if any(thin) else len(thin))
        return config.model_copy(update=update)

    def fit(self, fast: Showers, full: Showers, seed: int) -> None:
        log_e = np.log(full.incident_energy)
        self.mean.fill_(float(log_e.mean()))
        self.std.fill_(max(float(log_e.std()), 1e-3))
        for side, showers in ((self.quantile.source, fast), (self.quantile.target, full)):
            self.quantile.fit(side, self._coordinates(showers), self.conditions(showers))
        self._start_matching()

    def learn_from(self, teacher: Refiner) -> None:
        assert isinstance(teacher, Squirels)
        self.quantile.load_state_dict(teacher.quantile.state_dict())
        self.mean.copy_(teacher.mean)
        self.std.copy_(teacher.std)
        self.transport.adopt(teacher.transport)
        self._start_matching()

    def _start_matching(self) -> None:
        if self.matched is not None:
            self.matched.load_state_dict(self.quantile.target.state_dict())

    def phases(self, fast: Showers, full: Showers, seed: int) -> Iterator[Phase]:
        if self.transport is None:
            return
        n = self.coordinates.dim
        conditions = self.conditions(fast)
        symmetries = None
        if self.symmetric:
            moves = torch.from_numpy(self.geometry.permutations())
            sums = torch.arange(moves.shape[1], n).expand(len(moves), -1)
            symmetries = torch.cat([moves, sums], dim=1)
        source, target = self.normal(fast, full, seed)
        pairs = Pairs(source, target, conditions, order=_CONDITION, symmetries=symmetries)
        yield from self.transport.phases(pairs, seed)

    def normal(self, fast: Showers, full: Showers, seed: int) -> tuple[Tensor, Tensor]:
        """Both samples in normal space (N, dim), zeros spread: what the transport learns from."""
        return (
            self._normal(self.quantile.source, "fast", fast, seed),
            self._normal(self.quantile.target, "full", full, seed),
        )

    def _normal(self, side: ConditionalQuantile, name: str, showers: Showers, seed: int) -> Tensor:
        noise = _dequantise(showers, seed, name, self.coordinates.dim)
        c = self.conditions(showers)[_CONDITION].reshape(-1)
        out: Tensor = side(self._coordinates(showers), c, noise)
        return out

    def refine(self, cells: Tensor, conditions: dict[str, Tensor], noise: Tensor) -> Tensor:
        energy = conditions[_CONDITION].to(cells.dtype)
        n = self.coordinates.dim
        c = {_CONDITION: log_energy(energy.double(), self.mean, self.std)}
        z = self.quantile.to_normal(self.coordinates(cells, energy), c, noise[:, :n])
        if self.transport is not None:
            z = self.transport.apply(z, c, noise[:, n:])
        side = self.quantile.target
        if self.transport is not None and self.matched is not None:
            side = self.matched
        y: Tensor = side.inverse(z, c[_CONDITION].reshape(-1))
        out: Tensor = self.coordinates.inverse(y, energy)
        return out

    def finish(self, fast: Showers, seed: int) -> None:
        if self.matched is None:
            return
        z = self._normal(self.quantile.source, "fast", fast, seed)
        conditions = self.conditions(fast)
        width = self.noise_dim - z.shape[1]
        moved = []
        with torch.inference_mode():
            for start in range(0, len(z), _ROWS):
                rows = slice(start, start + _ROWS)
                c = {name: value[rows] for name, value in conditions.items()}
                noise = event_normal(seed, "finish", fast.event_ids[rows], width)
                some = torch.from_numpy(noise.astype(np.float32))
                moved.append(self.transport.apply(z[rows], c, some))
        # cells only: the sums, carried or moved in few dimensions, are right, and a fit would add
        # the fluctuations of these showers to them
        cells = torch.cat(moved).numpy()[:, : self.coordinates.n_cells]
        c_all = conditions[_CONDITION][:, 0].numpy()
        self.matched = matched(self.quantile.target, cells, c_all)

    def _coordinates(self, showers: Showers) -> Tensor:
        energy = torch.from_numpy(showers.incident_energy.astype(np.float32))
        out: Tensor = self.coordinates.cpu()(torch.from_numpy(showers.cells), energy)
        return out

    def conditions(self, showers: Showers) -> dict[str, Tensor]:
        """The standardised logarithm (N, 1) of the incident energy, by its name."""
        energy = torch.from_numpy(showers.incident_energy)
        return {_CONDITION: log_energy(energy, self.mean.cpu(), self.std.cpu())}


def _rings(config: SquirelsConfig, geometry: Geometry) -> NDArray[np.int64]:
    """For every cell the number of the ring that its sum belongs to."""
    if config.rings == "none":
        return np.zeros(geometry.n_cells, dtype=np.int64)
    rings = geometry.rings()
    return rings if config.rings == "all" else np.minimum(rings, 1)


def _build_transport(config: SquirelsConfig, n_cells: int, dim: int) -> nn.Module:
    name = config.transport or ""
    options = _with_defaults(name, config.options, config, n_cells, dim)
    try:
        built: nn.Module = TRANSPORTS[name](dim, {_CONDITION: 1}, **options)
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise ConfigError(f"model.options for transport {name!r}: {error}") from error
    return built


def _with_defaults(
    name: str, options: dict[str, Any], config: SquirelsConfig, n_cells: int, dim: int
) -> dict[str, Any]:
    """The options of a transport, and those that follow from the coordinates, if it has them."""
    known = inspect.signature(TRANSPORTS[name]).parameters
    sums = dim - n_cells
    defaults: dict[str, Any] = {
        "lead": sums,
        "carried": 1,
        "weights": [1.0] * n_cells + [config.sum_weight] * (sums - 1),
    }
    known_options(f"transport {name!r}", TRANSPORTS[name], options)
    out: dict[str, Any] = {key: value for key, value in defaults.items() if key in known} | options
    if "teacher" in known:
        teacher = out.get("teacher", known["teacher"].default)
        own = out.get("teacher_options") or {}
        out["teacher_options"] = _with_defaults(teacher, own, config, n_cells, dim)
    return out


def _dequantise(showers: Showers, seed: int, side: str, n: int) -> Tensor:
    noise = event_normal(seed, f"dequantise-{side}", showers.event_ids, n)
    return torch.from_numpy(noise.astype(np.float32))
