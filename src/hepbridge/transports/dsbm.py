"""Diffusion Schrödinger bridge matching, by iterative Markovian fitting (IMF)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.core.rng import stream
from hepbridge.networks.mlp import ResidualMLP
from hepbridge.transports.couplings import draw_pairs, order_rows, random_images
from hepbridge.transports.options import positive_weights, some_carried, whole_numbers

__all__ = ["DSBM"]

_FORWARD, _BACKWARD = _DIRECTIONS = (0, 1)  # of the two networks
_NAMES = ("forward", "backward")

_MOST_STEPS = 1000
_CHUNK = 2048  # rows simulated at a time
_VARIANTS = ("imf", "online")
_COUPLINGS = ("independent", "assigned")


class DSBM(nn.Module):
    r"""Schrödinger bridge between source and target, by regression on Brownian bridges.

    ``forward`` (source to target) and ``backward`` each have a drift v and a time u in [0, 1]
    that runs from their own start :math:`x_0` to their end :math:`x_1`. Given a coupling of the
    ends, a drift learns

    .. math:: \mathcal{L} = \mathbb{E}\,\frac{| v_\theta(x_u, u, c) - \ell |^2}
                                              {1 + \sigma^2 u / (1 - u)}, \qquad
              x_u = (1 - u)\, x_0 + u\, x_1 + \sigma \sqrt{u (1 - u)}\, z, \qquad
              \ell = x_1 - x_0 - \sigma \sqrt{\tfrac{u}{1 - u}}\, z = \frac{x_1 - x_u}{1 - u},

    and :math:`dx = v\, du + \sigma\, dw`, in ``time_steps`` Euler steps with noise in every one, has
    the distributions of the bridges at all times, but couples the ends anew. In turn each direction
    learns from the coupling that the *other* makes out of the data at its end. The only coupling
    that this does not change is that of the Schrödinger bridge: the entropic transport plan with
    regulariser `epsilon` = sigma^2 (cost :math:`|x - y|^2 / 2`). Since the bridges are pinned at
    data in every turn, errors of the marginals do not add up, as they do in `DSB`.

    - ``imf`` (Shi et al., algorithm 1): phases ``imf-01-backward``, ``imf-01-forward``, ``imf-02-…``;
      the first learns from the first coupling, each later one from pairs that the network it does
      not train has simulated, ``cache_refresh`` times in all.
    - ``online`` (alpha-DSBM, De Bortoli et al.): phase ``pretrain`` learns both directions from the
      first coupling; then, in phase ``online``, both learn in every step from pairs just simulated
      by running averages of the two networks. A simulated pair serves ``repeats`` times.

    The last ``carried`` coordinates are kept exactly as they are and steer the others, as in
    `FlowMatching`. Pairs that belong together are the first coupling as they are.

    Args:
        dim: coordinates of x, the carried ones included.
        condition_dims: name -> columns, all standardised.
        variant: ``"imf"`` or ``"online"``.
        sigma: of the Brownian motion. Small ones keep the input, large ones need fewer iterations.
        time_steps: of a simulation; ``nfe = time_steps``.
        first: coupling to begin with: ``"independent"`` given the conditions (and the carried
            part), or ``"assigned"`` as in `FlowMatching`, which is nearer to the limit of small
            sigma.
        iterations: of ``imf``, two phases each.
        steps_first, steps: training steps of the first phase and of every later one.
        cache_size: pairs simulated at a time for ``imf``, at most all; None means all.
        cache_refresh: how often a phase simulates.
        decay: of the running averages in ``online``, per step.
        repeats: bridge points of each pair simulated in ``online``.
        carried_weight: of the carried part in the assignment cost.
        weights: (dim - carried) weights of the coordinates in the loss, default 1.
        window, windows: rows in a window, windows in a batch (which has window * windows rows).
        learning_rate: of all phases.
        width, depth: of the residual networks.

    Raises ConfigError for options that are not allowed.

    Source: Shi et al., arXiv:2303.16852; De Bortoli et al., arXiv:2409.09347.
    """

    claims = Claims(joint=True, coupling=True, entropic=True)

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        variant: str = "imf",
        sigma: float = 0.5,
        time_steps: int = 20,
        first: str = "independent",
        iterations: int = 5,
        steps_first: int = 1000,
        steps: int = 500,
        cache_size: int | None = 10_000,
        cache_refresh: int = 1,
        decay: float = 0.99,
        repeats: int = 4,
        carried: int = 0,
        carried_weight: float = 30.0,
        weights: Sequence[float] | None = None,
        window: int = 128,
        windows: int = 2,
        learning_rate: float = 1e-3,
        width: int = 256,
        depth: int = 3,
    ) -> None:
        super().__init__()
        counts = {"time_steps": time_steps, "iterations": iterations, "steps_first": steps_first,
                  "steps": steps, "cache_refresh": cache_refresh, "repeats": repeats,
                  "window": window, "windows": windows, "width": width, "depth": depth}  # fmt: skip
        if cache_size is not None:
            counts["cache_size"] = cache_size
        whole_numbers("dsbm", counts)
        whole_numbers("dsbm", {"time_steps": time_steps}, most=_MOST_STEPS)
        for name, text, known in (("variant", variant, _VARIANTS), ("first", first, _COUPLINGS)):
            if text not in known:
                raise ConfigError(f"dsbm: unknown {name} {text!r}; allowed: {', '.join(known)}")
        if sigma <= 0 or not 0 <= decay < 1:
            raise ConfigError(
                f"dsbm: sigma must be above 0 and decay from 0 to below 1, got {sigma} and {decay}"
            )
        some_carried("dsbm", carried, dim)
        self.dim, self.carried, self.moving = dim, carried, dim - carried
        weights = positive_weights("dsbm", weights, self.moving)
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights), persistent=False)
        self.condition_dims = dict(condition_dims)
        self.variant, self.first = variant, first
        self.sigma, self.time_steps = sigma, time_steps
        self.iterations, self.steps_first, self.steps = iterations, steps_first, steps
        self.cache_size, self.cache_refresh = cache_size, cache_refresh
        self.decay, self.repeats, self.carried_weight = decay, repeats, carried_weight
        self.window, self.windows, self.learning_rate = window, windows, learning_rate
        self.noise_dim = time_steps * self.moving
        context = carried + sum(condition_dims.values())
        self.networks = nn.ModuleList(
            ResidualMLP(
                self.moving, self.moving, context, width, depth, max_frequency=4.0, embedding=32
            )
            for _ in _DIRECTIONS
        )

    @property
    def nfe(self) -> int:
        return self.time_steps

    @property
    def planned_steps(self) -> int:
        later = 1 if self.variant == "online" else 2 * self.iterations - 1
        return self.steps_first + later * self.steps

    @property
    def epsilon(self) -> float:
        """Regulariser of the entropic transport problem that is solved: sigma^2."""
        return self.sigma**2

    # -- application --------------------------------------------------------------------------

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Source to target: x (N, dim), noise (N, noise_dim), result (N, dim)."""
        return self._moved(self.networks[_FORWARD], x, conditions, noise)

    def inverse(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Target to source: a draw from the reversed bridge, not the inverse of one `apply`."""
        return self._moved(self.networks[_BACKWARD], x, conditions, noise)

    def _moved(
        self, network: nn.Module, x: Tensor, conditions: Conditions, noise: Tensor
    ) -> Tensor:
        y, kept = x[:, : self.moving], x[:, self.moving :]
        y = self._simulate(network, y, self._context(conditions, x), noise)
        return torch.cat([y, kept], dim=1)

    def _simulate(self, network: nn.Module, x: Tensor, context: Tensor, noise: Tensor) -> Tensor:
        """The ends (n, moving) of Euler-Maruyama paths from ``x`` (n, moving)."""
        h = 1.0 / self.time_steps
        draws = noise.reshape(len(x), self.time_steps, self.moving)
        for k in range(self.time_steps):
            u = torch.full((1,), k * h, dtype=x.dtype, device=x.device)
            x = x + h * network(x, u, context) + self.sigma * h**0.5 * draws[:, k]
        return x

    def _context(self, conditions: Conditions, x: Tensor) -> Tensor:
        """What the network is conditioned on (N, k): the named conditions, then the carried part."""
        named = [conditions[name] for name in self.condition_dims]
        return torch.cat([*named, x[:, self.moving :]], dim=1)

    # -- training -----------------------------------------------------------------------------

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """Those of the variant, see there."""
        if pairs.dim != self.dim:
            raise ConfigError(f"dsbm for {self.dim} coordinates got {pairs.dim}")
        if self.variant == "online":
            yield self._pretrain(pairs, seed)
            yield self._online(pairs)
            return
        for iteration in range(1, self.iterations + 1):
            yield self._fit(iteration, _BACKWARD, pairs, seed)
            yield self._fit(iteration, _FORWARD, pairs, seed)

    def _fit(self, iteration: int, trained: int, pairs: Pairs, seed: int) -> Phase:
        """One direction learns from the first coupling or from the pairs of the other direction."""
        name = f"imf-{iteration:02d}-{_NAMES[trained]}"
        first = iteration == 1 and trained == _BACKWARD
        steps = self.steps_first if first else self.steps
        mover = self.networks[1 - trained]
        couple = self._first_coupling(pairs, seed)
        kept: dict[int, dict[str, Tensor]] = {}

        def simulated(segment: int) -> dict[str, Tensor]:
            # The mover does not change within the phase and the random numbers are keyed by the
            # segment, so the pairs are the same whenever they are made, also after a resume.
            if segment not in kept:
                kept.clear()
                rng = stream(seed, "dsbm-pairs", name, segment)
                kept[segment] = self._simulated_pairs(mover, trained, pairs, rng)
            return kept[segment]

        def batch(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
            if first:
                ends = couple(rng)[trained]
            else:
                table = simulated(step * self.cache_refresh // steps)
                n = len(table["start"])
                row = torch.from_numpy(rng.integers(0, n, self.window * self.windows))
                ends = {key: value[row.to(value.device)] for key, value in table.items()}
            return ends | self._points(len(ends["start"]), rng)

        def prepare(rng: np.random.Generator) -> None:
            kept.clear()
            mover.eval()

        network = self.networks[trained]
        return Phase(name, network, batch, self._loss, steps, self.learning_rate, prepare)

    def _pretrain(self, pairs: Pairs, seed: int) -> Phase:
        """Both directions learn from the first coupling."""
        couple = self._first_coupling(pairs, seed)

        def batch(step: int, rng: np.random.Generator) -> list[dict[str, Tensor]]:
            return [ends | self._points(len(ends["start"]), rng) for ends in couple(rng)]

        def loss(module: nn.Module, data: list[dict[str, Tensor]]) -> Tensor:
            losses = [self._loss(self.networks[d], data[d]) for d in _DIRECTIONS]
            return torch.stack(losses).sum()

        steps, rate = self.steps_first, self.learning_rate
        return Phase("pretrain", self.networks, batch, loss, steps, rate)

    def _online(self, pairs: Pairs) -> Phase:
        """Both directions learn, step by step, from the pairs of each other's running average."""
        learners = _Learners(self.networks, self.decay)
        rows = max(1, self.window * self.windows // self.repeats)

        def batch(step: int, rng: np.random.Generator) -> list[dict[str, Tensor]]:
            data = []
            for direction in _DIRECTIONS:
                table = self._data(pairs, direction, rng.integers(0, len(pairs), rows), rng)
                path = rng.standard_normal((rows, self.noise_dim), np.float32)
                table |= {"path": torch.from_numpy(path)}
                data.append(table | self._points(rows, rng, self.repeats))
            return data

        def loss(module: nn.Module, data: list[dict[str, Tensor]]) -> Tensor:
            learners.follow()
            losses = []
            for direction in _DIRECTIONS:
                part = data[direction]
                mover = learners.averages[1 - direction]
                with torch.no_grad():
                    start = self._simulate(mover, part["end"], part["c"], part["path"])
                ends = {"start": start, "end": part["end"], "c": part["c"]}
                many = {k: v.repeat_interleave(self.repeats, dim=0) for k, v in ends.items()}
                flat = {k: part[k].flatten(0, 1) for k in ("u", "z")}
                losses.append(self._loss(self.networks[direction], many | flat))
            return torch.stack(losses).sum()

        return Phase("online", learners, batch, loss, self.steps, self.learning_rate)

    def _loss(self, network: nn.Module, data: dict[str, Tensor]) -> Tensor:
        """Regression on bridges from start to end (n, moving) at the times u (n, 1)."""
        start, end, u, z = data["start"], data["end"], data["u"], data["z"]
        odds = u / (1.0 - u)
        x = torch.lerp(start, end, u) + self.sigma * (u * (1.0 - u)).sqrt() * z
        label = end - start - self.sigma * odds.sqrt() * z
        error = (network(x, u, data["c"]) - label).square() / (1.0 + self.sigma**2 * odds)
        weights = self.weights.to(error.device)
        return (error.mean(dim=0) * weights).sum() / weights.sum()

    def _points(self, n: int, rng: np.random.Generator, repeats: int = 0) -> dict[str, Tensor]:
        """Times, those that a simulation asks for, and noise, of n bridges (or n times some)."""
        shape = (n, repeats) if repeats else (n,)
        u = rng.integers(0, self.time_steps, (*shape, 1)).astype(np.float32) / self.time_steps
        z = rng.standard_normal((*shape, self.moving), np.float32)
        return {"u": torch.from_numpy(u.astype(np.float32)), "z": torch.from_numpy(z)}

    # -- couplings ----------------------------------------------------------------------------

    def _first_coupling(
        self, pairs: Pairs, seed: int
    ) -> Callable[[np.random.Generator], list[dict[str, Tensor]]]:
        """Draws start, end and context, for the forward and the backward direction."""
        order = order_rows(pairs, seed)
        scale = torch.full((self.dim,), float(self.first == "assigned"))
        scale[self.moving :] = self.carried_weight**0.5

        def draw(rng: np.random.Generator) -> list[dict[str, Tensor]]:
            cost = scale if scale.any() else None
            named, x0, x1 = draw_pairs(pairs, order, self.window, self.windows, rng, cost)
            a, b = x0[:, : self.moving], x1[:, : self.moving]
            return [
                {"start": a, "end": b, "c": self._context(named, x1)},
                {"start": b, "end": a, "c": self._context(named, x0)},
            ]

        return draw

    def _data(
        self, pairs: Pairs, trained: int, rows: np.ndarray, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Data at the end of the trained direction, where the other one starts."""
        part = pairs.rows(torch.from_numpy(rows))
        x = part.target if trained == _FORWARD else part.source
        named = part.conditions
        if not pairs.coupled:
            (x,), named = random_images(part, (x,), rng)
        return {"end": x[:, : self.moving], "c": self._context(named, x)}

    @torch.no_grad()
    def _simulated_pairs(
        self, mover: nn.Module, trained: int, pairs: Pairs, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Start, end and context (n, …) of the trained direction: the mover's paths from data."""
        rows = np.arange(len(pairs))
        if self.cache_size is not None and self.cache_size < len(rows):
            rows = np.sort(rng.choice(len(rows), self.cache_size, replace=False))
        device = next(mover.parameters()).device
        parts = []
        for low in range(0, len(rows), _CHUNK):
            table = self._data(pairs, trained, rows[low : low + _CHUNK], rng)
            table = {key: value.to(device) for key, value in table.items()}
            noise = rng.standard_normal((len(table["end"]), self.noise_dim), np.float32)
            path = torch.from_numpy(noise).to(device)
            start = self._simulate(mover, table["end"], table["c"], path)
            parts.append(table | {"start": start})
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


class _Learners(nn.Module):
    """Networks in training, and running averages of them that the optimiser does not touch.

    The averages are part of the module so that a checkpoint holds them.
    """

    def __init__(self, networks: nn.ModuleList, decay: float) -> None:
        super().__init__()
        self.networks, self.decay = networks, decay
        self.averages = copy.deepcopy(networks).requires_grad_(False)

    @torch.no_grad()
    def follow(self) -> None:
        """One step of the averages towards the networks."""
        averages: list[Tensor] = list(self.averages.parameters())
        newest: list[Tensor] = list(self.networks.parameters())
        torch._foreach_lerp_(averages, newest, 1.0 - self.decay)
