"""The default refiner: exact marginals first, then a network for what is left."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Conditions, Pairs, Phase
from hepbridge.core.rng import event_normal
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.build_transport import build_transport
from hepbridge.systems.conditioning import ENERGY
from hepbridge.systems.normal_space import NormalSpace
from hepbridge.systems.refiner import Refiner, SystemConfig
from hepbridge.systems.squirels_config import SquirelsConfig
from hepbridge.transforms.conditional_quantile import Z_MAX, ConditionalQuantile
from hepbridge.transforms.marginals import matched
from hepbridge.transforms.moment_match import MomentMatch

__all__ = ["Squirels"]

_ROWS = 2048  # moved at once
_STEPS = 5  # towards the target's moments: a sixth changes little


class Squirels(NormalSpace):
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

    def __init__(self, config: SquirelsConfig, geometry: Geometry) -> None:
        super().__init__(config, geometry)
        if config.match_moments == "auto":
            raise ConfigError("match_moments 'auto' must be resolved on data first (true or false)")
        n, dim = self.coordinates.n_cells, self.coordinates.dim
        dims = {ENERGY: 1} if self.further is None else self.further.dims
        # Any: a torch module that is also a Transport, whose `apply` is not that of torch
        self.transport: Any = None
        if config.transport is not None:
            self.transport = build_transport(
                config.transport, config.options, n, dim, dims, config.sum_weight
            )
        self.noise_dim = dim + (self.transport.noise_dim if self.transport is not None else 0)
        self.matched: ConditionalQuantile | None = None
        if config.match_marginals and self.transport is not None:
            self.matched = copy.deepcopy(self.quantile.target)
            if self.further is not None:
                self.matched = ConditionalQuantile(
                    self._classes, knots=config.knots, nodes=config.nodes, degree=config.degree
                )
        self.moments: MomentMatch | None = None
        if config.match_moments and self.matched is not None:
            self.moments = MomentMatch(dim - n, self._classes)

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
        super().fit(fast, full, seed)
        self._start_matching()

    def learn_from(self, teacher: Refiner) -> None:
        assert isinstance(teacher, Squirels)
        super().learn_from(teacher)
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
