"""Normal space: what a refiner is made of before and after its transport."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri_exp
from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Conditions
from hepbridge.core.rng import event_normal, stream
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.conditioning import ENERGY, Conditioning
from hepbridge.systems.refiner import Refiner
from hepbridge.systems.squirels_config import SquirelsConfig, elements_of, rings_of
from hepbridge.transforms.conditional_quantile import Z_MAX, ConditionalQuantile
from hepbridge.transforms.empty_noise import EmptyNoise
from hepbridge.transforms.joint_zeros import joint_zeros
from hepbridge.transforms.shower_coordinates import ShowerCoordinates, log_energy
from hepbridge.transports.quantile import Quantile

__all__ = ["NormalSpace"]

_PLACED = 25_000  # fast showers that say where empty cells lie
_FAR = 4.0  # standard deviations: one shower in 16,000; the tables end at 4.5


class NormalSpace(Refiner):
    """Showers of either side to standard normal coordinates, at every condition, and back.

    The floor on which `Squirels` stands, which says what the coordinates are.
    """

    config: SquirelsConfig

    def __init__(self, config: SquirelsConfig, geometry: Geometry) -> None:
        super().__init__(config, geometry)
        if config.symmetry == "auto":
            raise ConfigError("symmetry 'auto' must be resolved on data first (declared or none)")
        rings = rings_of(config, geometry)
        if config.dense == "auto":
            raise ConfigError("dense 'auto' must be resolved on data first (a number of rings)")
        if config.joint_zeros == "auto":
            raise ConfigError("joint_zeros 'auto' must be resolved on data first (true or false)")
        self.coordinates = ShowerCoordinates(rings.tolist(), dense=config.dense)
        n = self.coordinates.dim
        self.symmetric = config.symmetry == "declared"
        self._elements = elements_of(config, geometry)
        self._permutations = geometry.permutations()[self._elements]
        cells = np.unique(self._permutations.min(axis=0), return_inverse=True)[1].reshape(-1)
        self._classes: list[int] = cells.tolist()  # of cells that the symmetry makes equal
        sums = cells.max() + 1 + np.arange(n - len(cells))
        self.quantile = Quantile(
            n,
            {ENERGY: 1},
            groups=[*cells.tolist(), *sums.tolist()],
            knots=config.knots,
            nodes=config.nodes,
            degree=config.degree,
        )
        self.further: Conditioning | None = None
        if config.conditions:
            names, degree = config.conditions, config.degree_in_conditions
            if names == "auto" or degree == "auto":
                raise ConfigError("conditions 'auto' must be resolved on data first (their names)")
            elements = self._elements.tolist()
            self.further = Conditioning(list(names), n, degree, geometry, elements)
        self.empty_noise: EmptyNoise | None = None
        if config.joint_zeros:
            self.empty_noise = EmptyNoise(n - len(cells), self._classes)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(1.0, dtype=torch.float64))

    def fit(self, fast: Showers, full: Showers, seed: int) -> None:
        log_e = np.log(full.incident_energy)
        self.mean.fill_(float(log_e.mean()))
        self.std.fill_(max(float(log_e.std()), 1e-3))
        if self.further is not None:
            self.further.fit_columns(full)
        for side, name, showers in (
            (self.quantile.source, "fast", fast),
            (self.quantile.target, "full", full),
        ):
            y, c = self._coordinates(showers), self.conditions(showers)
            if self.further is None:
                self.quantile.fit(side, y, c)
                continue
            self.quantile.fit(side, self.further.fit(name, y, c, self._images()), c)
            # the frame knows which are empty; what is never finite stays so
            state = side.state_dict()
            side.load_state_dict({**state, "atom": (state["atom"] == 1).to(state["atom"])})
        if self.empty_noise is not None:
            some = fast[np.linspace(0, len(fast) - 1, min(len(fast), _PLACED)).astype(np.int64)]
            self._fit_noise(self.empty_noise, some, seed)

    def _fit_noise(self, noise: EmptyNoise, fast: Showers, seed: int) -> None:
        """What the sums of a fast shower say of where its empty cells lie."""
        z, bound, empty = self._placed("fast", fast, seed)
        n = self.coordinates.n_cells
        own = ndtri_exp(np.minimum(log_ndtr(z[:, :n]) - log_ndtr(bound[:, :n]), -1e-12))
        sums, c = torch.from_numpy(z[:, n:]), self.conditions(fast)[ENERGY].double()
        noise.fit(torch.from_numpy(own), torch.from_numpy(empty[:, :n]), sums, c)

    def learn_from(self, teacher: Refiner) -> None:
        assert isinstance(teacher, NormalSpace)
        self.quantile.load_state_dict(teacher.quantile.state_dict())
        self.mean.copy_(teacher.mean)
        self.std.copy_(teacher.std)
        if self.further is not None and teacher.further is not None:
            self.further.load_state_dict(teacher.further.state_dict())
        if self.empty_noise is not None and teacher.empty_noise is not None:
            self.empty_noise.load_state_dict(teacher.empty_noise.state_dict())

    def _images(self) -> Tensor:
        """The used symmetry elements as permutations (g, dim) of the coordinates; sums stay."""
        moves = torch.from_numpy(self._permutations)
        sums = torch.arange(moves.shape[1], self.coordinates.dim).expand(len(moves), -1)
        return torch.cat([moves, sums], dim=1)

    def normal(self, fast: Showers, full: Showers, seed: int) -> tuple[Tensor, Tensor]:
        """Both samples in normal space (N, dim), zeros spread: what the transport learns from."""
        source = self._normal("fast", fast, seed)
        if self.empty_noise is None:
            return source, self._normal("full", full, seed)
        return source, torch.from_numpy(self._placed("full", full, seed)[0].astype(np.float32))

    def _placed(
        self, name: str, showers: Showers, seed: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Normal coordinates (N, dim) with what is empty placed as the rest of the shower says, the
        thresholds of what is, and which are."""
        y, c = self._coordinates(showers), self.conditions(showers)
        bound = self._spread(self._side(name), y, c, torch.full_like(y, Z_MAX)).double().numpy()
        empty = torch.isneginf(y).numpy()
        images = self._images()[: 1 if self.further is not None else None].numpy()
        condition = c[ENERGY].reshape(-1).numpy()
        rng = stream(seed, "joint zeros", name)
        return joint_zeros(bound, empty, condition, images, rng), bound, empty

    def _normal(self, name: str, showers: Showers, seed: int) -> Tensor:
        noise = _dequantise(showers, seed, name, self.coordinates.dim)
        return self._to_normal(name, self._coordinates(showers), self.conditions(showers), noise)

    def _to_normal(self, name: str, y: Tensor, c: Conditions, noise: Tensor) -> Tensor:
        """Normal coordinates (N, dim) of coordinates of the fast or of the full side."""
        if self.empty_noise is not None and name == "fast":
            n, energy = self.coordinates.n_cells, c[ENERGY].reshape(-1)
            if self.further is None:
                sums = self.quantile.source.forward_last(y[:, n:], energy, noise[:, n:])
            else:
                sums = self._spread(self.quantile.source, y, c, noise)[:, n:]
            noise = torch.cat(
                [self.empty_noise(noise[:, :n], sums, c[ENERGY]), noise[:, n:]], dim=1
            )
        return self._spread(self._side(name), y, c, noise)

    def _side(self, name: str) -> ConditionalQuantile:
        side: ConditionalQuantile = getattr(self.quantile, "source" if name == "fast" else "target")
        return side

    def _spread(self, side: ConditionalQuantile, y: Tensor, c: Conditions, noise: Tensor) -> Tensor:
        """The same with what is empty placed by the noise alone."""
        if self.further is not None:
            name = "fast" if side is self.quantile.source else "full"
            return self.further.to_normal(name, side, y, c, noise)
        out: Tensor = side(y, c[ENERGY].reshape(-1), noise)
        return out

    def unfamiliar(self, fast: Showers) -> NDArray[np.bool_]:
        """Mask (N,) of fast showers whose energy sum is 4 or more standard deviations out."""
        y, c = self._coordinates(fast), self.conditions(fast)
        z = self._to_normal("fast", y, c, torch.zeros_like(y))
        far: NDArray[np.bool_] = (z[:, -1].abs() >= _FAR).numpy()
        return far

    def _coordinates(self, showers: Showers) -> Tensor:
        energy = torch.from_numpy(showers.incident_energy.astype(np.float32))
        out: Tensor = self.coordinates.cpu()(torch.from_numpy(showers.cells), energy)
        return out

    def conditions(self, showers: Showers) -> dict[str, Tensor]:
        """What the transport is conditioned on: the standardised logarithm (N, 1) of the incident
        energy, and the columns of the further conditions, by name."""
        values = {
            k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in showers.conditions.items()
        }
        return self._encoded(values, values[ENERGY], self.mean.cpu(), self.std.cpu())

    def _encoded(
        self, values: Mapping[str, Tensor], energy: Tensor, mean: Tensor, std: Tensor
    ) -> dict[str, Tensor]:
        own = {ENERGY: log_energy(energy, mean, std)}
        return own if self.further is None else own | self.further.columns(values)


def _dequantise(showers: Showers, seed: int, side: str, n: int) -> Tensor:
    noise = event_normal(seed, f"dequantise-{side}", showers.event_ids, n)
    return torch.from_numpy(noise.astype(np.float32))
