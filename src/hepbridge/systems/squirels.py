"""The default refiner: exact marginals first, then a network for what is left."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri_exp
from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Conditions, Pairs, Phase
from hepbridge.core.rng import event_normal, stream
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.build_transport import build_transport
from hepbridge.systems.conditioning import ENERGY, Conditioning
from hepbridge.systems.refiner import Refiner, SystemConfig
from hepbridge.systems.squirels_config import SquirelsConfig, elements_of, rings_of
from hepbridge.transforms.conditional_quantile import Z_MAX, ConditionalQuantile
from hepbridge.transforms.empty_noise import EmptyNoise
from hepbridge.transforms.joint_zeros import joint_zeros
from hepbridge.transforms.marginals import matched
from hepbridge.transforms.moment_match import MomentMatch
from hepbridge.transforms.shower_coordinates import ShowerCoordinates, log_energy
from hepbridge.transports.quantile import Quantile

__all__ = ["Squirels"]

_ROWS = 2048  # moved at once
_PLACED = 25_000  # fast showers that say where empty cells lie
_STEPS = 5  # towards the target's moments: a sixth changes little
_FAR = 4.0  # standard deviations: one shower in 16,000; the tables end at 4.5


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

    With further conditions (incident angles, impact points) the transport sees
    them all. What they say of each coordinate by itself, mean, spread and the probability of being
    empty, is taken out before step 2 and put back after step 4, on either side its own
    (`Conditioning`), so that normal space is normal at every condition and the tables still
    depend on the incident energy alone. Symmetry images then move the vectors among the conditions
    along with the cells, and source and target of a pair together.
    """

    Config = SquirelsConfig
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
        if config.match_moments == "auto":
            raise ConfigError("match_moments 'auto' must be resolved on data first (true or false)")
        self.coordinates = ShowerCoordinates(rings.tolist(), dense=config.dense)
        n = self.coordinates.dim
        self.symmetric = config.symmetry == "declared"
        self._elements = elements_of(config, geometry)
        self._permutations = geometry.permutations()[self._elements]
        cells = np.unique(self._permutations.min(axis=0), return_inverse=True)[1].reshape(-1)
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
        dims = {ENERGY: 1}
        if config.conditions:
            names, degree = config.conditions, config.degree_in_conditions
            if names == "auto" or degree == "auto":
                raise ConfigError("conditions 'auto' must be resolved on data first (their names)")
            elements = self._elements.tolist()
            self.further = Conditioning(list(names), n, degree, geometry, elements)
            dims = self.further.dims
        # Any: a torch module that is also a Transport, whose `apply` is not that of torch
        self.transport: Any = None
        if config.transport is not None:
            self.transport = build_transport(
                config.transport, config.options, len(cells), n, dims, config.sum_weight
            )
        self.empty_noise: EmptyNoise | None = None
        if config.joint_zeros:
            self.empty_noise = EmptyNoise(n - len(cells), cells.tolist())
        self.matched: ConditionalQuantile | None = None
        if config.match_marginals and self.transport is not None:
            self.matched = copy.deepcopy(self.quantile.target)
            if self.further is not None:
                self.matched = ConditionalQuantile(
                    cells.tolist(), knots=config.knots, nodes=config.nodes, degree=config.degree
                )
        self.noise_dim = n + (self.transport.noise_dim if self.transport is not None else 0)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(1.0, dtype=torch.float64))

        self.moments: MomentMatch | None = None
        if config.match_moments and self.matched is not None:
            self.moments = MomentMatch(n - len(cells), cells.tolist())

    @property
    def nfe(self) -> int:  # type: ignore[override]
        return int(self.transport.nfe) if self.transport is not None else 0

    @property
    def planned_steps(self) -> int:
        return 0 if self.transport is None else int(self.transport.planned_steps)

    @classmethod
    def resolve(cls, config: SystemConfig, fast: Showers, full: Showers) -> SystemConfig:
        """Decide all that is ``auto`` on the data. Raises DataError if they lack a condition."""
        return config.resolved(fast, full) if isinstance(config, SquirelsConfig) else config

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
        self._start_matching()

    def _fit_noise(self, noise: EmptyNoise, fast: Showers, seed: int) -> None:
        """What the sums of a fast shower say of where its empty cells lie."""
        z, bound, empty = self._placed("fast", fast, seed)
        n = self.coordinates.n_cells
        own = ndtri_exp(np.minimum(log_ndtr(z[:, :n]) - log_ndtr(bound[:, :n]), -1e-12))
        sums, c = torch.from_numpy(z[:, n:]), self.conditions(fast)[ENERGY].double()
        noise.fit(torch.from_numpy(own), torch.from_numpy(empty[:, :n]), sums, c)

    def learn_from(self, teacher: Refiner) -> None:
        assert isinstance(teacher, Squirels)
        self.quantile.load_state_dict(teacher.quantile.state_dict())
        self.mean.copy_(teacher.mean)
        self.std.copy_(teacher.std)
        if self.further is not None and teacher.further is not None:
            self.further.load_state_dict(teacher.further.state_dict())
        if self.empty_noise is not None and teacher.empty_noise is not None:
            self.empty_noise.load_state_dict(teacher.empty_noise.state_dict())
        self.transport.adopt(teacher.transport)
        self._start_matching()

    def _start_matching(self) -> None:
        if self.matched is None:
            return
        if self.further is None:
            self.matched.load_state_dict(self.quantile.target.state_dict())
        else:  # the identity
            with torch.no_grad():
                self.matched.table.copy_(torch.linspace(-Z_MAX, Z_MAX, self.matched.knots))

    def _images(self) -> Tensor:
        """The used symmetry elements as permutations (g, dim) of the coordinates; sums stay."""
        moves = torch.from_numpy(self._permutations)
        sums = torch.arange(moves.shape[1], self.coordinates.dim).expand(len(moves), -1)
        return torch.cat([moves, sums], dim=1)

    def phases(self, fast: Showers, full: Showers, seed: int) -> Iterator[Phase]:
        if self.transport is None:
            return
        conditions = self.conditions(fast)
        symmetries = self._images() if self.symmetric else None
        moves = self.further.moves if self.further is not None else {}
        source, target = self.normal(fast, full, seed)
        if self.moments is not None:
            n = self.coordinates.n_cells
            self.moments.aim(target[:, :n], target[:, n:], conditions[ENERGY])
        pairs = Pairs(source, target, conditions, False, ENERGY, symmetries, moves)
        yield from self.transport.phases(pairs, seed)

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

    def _from_normal(self, z: Tensor, c: Conditions) -> Tensor:
        """Coordinates (N, dim) of the full side of normal ones."""
        energy = c[ENERGY].reshape(-1)
        matched = self.matched if self.transport is not None else None
        if self.further is not None:
            if matched is not None:
                n = self.coordinates.n_cells
                cells = matched(z[:, :n], energy, torch.zeros_like(z[:, :n]))
                z = torch.cat([cells, z[:, n:]], dim=1)
            return self.further.from_normal("full", self.quantile.target, z, c)
        side = self.quantile.target if matched is None else matched
        out: Tensor = side.inverse(z, energy)
        return out

    def _corrected(self, z: Tensor, c: Conditions) -> Tensor:
        """What the transport makes, with the moments of the cells given the sums put right."""
        if self.moments is None:
            return z
        n = self.coordinates.n_cells
        cells = self.moments(z[:, :n], z[:, n:], c[ENERGY])
        return torch.cat([cells, z[:, n:]], dim=1)

    def refine(self, cells: Tensor, conditions: dict[str, Tensor], noise: Tensor) -> Tensor:
        energy = conditions[ENERGY].to(cells.dtype)
        n = self.coordinates.dim
        c = self._encoded(conditions, energy.double(), self.mean, self.std)
        z = self._to_normal("fast", self.coordinates(cells, energy), c, noise[:, :n])
        if self.transport is not None:
            z = self._corrected(self.transport.apply(z, c, noise[:, n:]), c)
        out: Tensor = self.coordinates.inverse(self._from_normal(z, c), energy)
        return out

    def unfamiliar(self, fast: Showers) -> NDArray[np.bool_]:
        """Mask (N,) of fast showers whose energy sum is 4 or more standard deviations out."""
        y, c = self._coordinates(fast), self.conditions(fast)
        z = self._to_normal("fast", y, c, torch.zeros_like(y))
        far: NDArray[np.bool_] = (z[:, -1].abs() >= _FAR).numpy()
        return far

    def finish(self, fast: Showers, seed: int) -> None:
        if self.matched is None:
            return
        z = self._normal("fast", fast, seed)
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
        made = torch.cat(moved)
        self._match(made, conditions)
        for _ in range(_STEPS if self.moments is not None else 0):
            better = self._match_moments(made, conditions, fast)
            self._match(self._corrected(made, conditions), conditions)
            if not better:
                break
        if self.moments is not None and self.further is None and self.matched is not None:
            z = self._corrected(made, conditions)
            self._match(self._final(z, conditions, fast, self.matched), conditions)

    def _match(self, z: Tensor, c: Conditions) -> None:
        """Correct the marginals of the cells of rows that the transport made.

        Cells only: the sums, carried or moved in few dimensions, are right, and a fit would add the
        fluctuations of these showers to them.
        """
        assert self.matched is not None
        cells, energy = z[:, : self.coordinates.n_cells].numpy(), c[ENERGY][:, 0].numpy()
        if self.further is None:
            self.matched = matched(self.quantile.target, cells, energy)
        else:  # before the frame of the full side: what is left at all conditions together
            self.matched.fit(cells, energy)

    def _match_moments(self, made: Tensor, c: Conditions, fast: Showers) -> bool:
        """One step towards the target's moments; False if the last one did harm and was taken back.

        It compares final cells: to make rings add up moves them.
        """
        assert self.moments is not None
        z, n = self._corrected(made, c), self.coordinates.n_cells
        seen = self._final(z, c, fast, self.quantile.target)
        return self.moments.step(seen[:, :n], z[:, n:], c[ENERGY])

    def _final(self, z: Tensor, c: Conditions, fast: Showers, side: ConditionalQuantile) -> Tensor:
        """Normal coordinates (N, dim) of final showers, of the cells by the transform of a ``side``.

        They are not quite the ones that they were made of, since the cells of a ring are brought to its
        energy. What is empty has no other place than the one that it had.
        """
        energy = torch.from_numpy(fast.incident_energy.astype(np.float32))
        n, out = self.coordinates.n_cells, []
        for start in range(0, len(z), _ROWS):
            rows = slice(start, start + _ROWS)
            some = {name: value[rows] for name, value in c.items()}
            cells = self.coordinates.inverse(self._from_normal(z[rows], some), energy[rows])
            y = self.coordinates(cells, energy[rows])
            seen = self._spread(side, y, some, torch.zeros_like(y))[:, :n]
            out.append(torch.cat([torch.where(cells > 0, seen, z[rows, :n]), z[rows, n:]], dim=1))
        return torch.cat(out)

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
