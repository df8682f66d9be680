"""Diffusion Schrödinger bridge, by iterative proportional fitting (IPF)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.core.rng import stream
from hepbridge.networks.conv import ConvNet
from hepbridge.networks.encoder_mlp import EncoderMLP
from hepbridge.transports.schedules import gamma_schedule

__all__ = ["DSB"]

Direction = Literal["forward", "backward"]

_COMPAT = {"B2", "B3", "B4", "B6"}
_CHUNK = 2048  # rows simulated at a time


class DSB(nn.Module):
    r"""Diffusion Schrödinger bridge between source (x_0) and target (x_K) in K noisy steps.

    ``forward`` means source to target, ``backward`` target to source (De Bortoli's names; the
    SQuIRELS code calls them the other way round). Both are Gaussian chains

        x_{k+1} = F_k(x_k)     + sqrt(2 gamma_k) z,      k = 0 … K-1,
        x_k     = B_k(x_{k+1}) + sqrt(2 gamma_k) z,      k = K-1 … 0,

    with F_k(x) = x + f(x, tau_k), B_k(x) = x + b(x, tau_{k+1}), tau_k = sum_{j<k} gamma_j / sum_j
    gamma_j in [0, 1]. IPF starts from a reference chain out of the source, Brownian (F_k(x) = x) or
    Ornstein-Uhlenbeck (F_k(x) = x - gamma_k x), and learns in turn the reversal of the chain at
    hand, restarted from the data at its other end (mean matching, eqs. 4 and 5 of SQuIRELS):

        b <- argmin E | B_k(x_{k+1}) - x_{k+1} - F_k(x_k) + F_k(x_{k+1}) |^2    on forward paths,
        f <- argmin E | F_k(x_k) - x_k - B_k(x_{k+1}) + B_k(x_k) |^2            on backward paths.

    Every IPF iteration is two phases, ``ipf-01-backward`` and ``ipf-01-forward``, and so on. A
    phase simulates paths with the network that it does not train, draws (row, k) at random from
    them, and makes new paths ``cache_refresh`` times in all. Networks are kept from iteration to
    iteration.

    The limit is the entropic transport plan with regulariser `epsilon` (cost |x - y|^2 / 2), up to
    errors of order 1/K. The smaller epsilon is compared with the distance of the two
    distributions, the more iterations IPF needs. Since the reference enters only at the start, the
    errors of the coupling add up over many iterations (those of the marginals do not): stop when
    the marginals have converged. `apply` leaves out the noise of the last step, so the output is
    too narrow by a variance of 2 gamma_K (a ``triangular`` schedule makes that small).

    Args:
        dim: dimension d.
        condition_dims: width of every named condition.
        time_steps: K.
        gamma, gamma_min, schedule: step sizes, see `gamma_schedule`.
        reference: ``"brownian"`` or ``"ou"``.
        network: ``"mlp"`` (`EncoderMLP`) or ``"conv"`` (`ConvNet`, needs ``shape`` in the options).
        network_options: keyword arguments of the network.
        normalised: networks predict the residual in units of sqrt(2 gamma_k), which suits learning
            rates about 1e-3 (the loss of an ideal network is then about 1); False is the paper.
        iterations: IPF iterations.
        steps_first, steps: training steps of the first phase and of every later one.
        batch_size, learning_rate: of the training steps.
        cache_size: rows simulated at a time (all K steps of each), at most all; None means all.
        cache_refresh: how often a phase simulates.
        paper_compat: faults of the reference code to put back, to see what they do. ``B2``: in
            simulations the skip input is the start of the path, not the current point. ``B3``: time
            is not scaled to [0, 1], so that the embedding hardly sees it. ``B4``: simulations ask
            for the time label of the next step. ``B6``: whole paths in the same order every epoch.
            (B5, raw weights in the caches, belongs to the training loop: train with its exponential
            moving average switched off.)

    Raises ConfigError for options that are not allowed.

    Source: De Bortoli et al., arXiv:2106.01357, algorithm 1; SQuIRELS, arXiv:2308.12339, sec. II.
    """

    claims = Claims(joint=True, coupling=True, entropic=True)

    def __init__(
        self,
        dim: int,
        condition_dims: Mapping[str, int] | None = None,
        *,
        time_steps: int = 20,
        gamma: float = 0.02,
        gamma_min: float | None = None,
        schedule: str = "triangular",
        reference: str = "brownian",
        network: str = "mlp",
        network_options: Mapping[str, Any] | None = None,
        normalised: bool = True,
        iterations: int = 5,
        steps_first: int = 1000,
        steps: int = 500,
        batch_size: int = 1024,
        learning_rate: float = 1e-3,
        cache_size: int | None = 10_000,
        cache_refresh: int = 1,
        paper_compat: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if reference not in ("brownian", "ou"):
            raise ConfigError(f"unknown reference process {reference!r}; allowed: brownian, ou")
        if unknown := set(paper_compat) - _COMPAT:
            raise ConfigError(
                f"dsb cannot put back {', '.join(sorted(unknown))}; "
                f"paper_compat allows {', '.join(sorted(_COMPAT))}"
            )
        counts = {"iterations": iterations, "steps_first": steps_first, "steps": steps,
                  "batch_size": batch_size, "cache_refresh": cache_refresh}  # fmt: skip
        for name, value in counts.items():
            if value < 1:
                raise ConfigError(f"dsb: {name} must be at least 1, got {value}")
        self.dim = dim
        self.time_steps = time_steps
        self.reference = reference
        self.normalised = normalised
        self.iterations = iterations
        self.steps_first, self.steps = steps_first, steps
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self.cache_size, self.cache_refresh = cache_size, cache_refresh
        self.compat = frozenset(paper_compat)
        self.noise_dim = (time_steps - 1) * dim
        self.gammas: list[float] = gamma_schedule(schedule, time_steps, gamma, gamma_min).tolist()
        options = dict(network_options or {})
        self.forward_network = _network(network, dim, condition_dims, options)
        self.backward_network = _network(network, dim, condition_dims, options)
        elapsed = np.concatenate([[0.0], np.cumsum(self.gammas)])
        self._labels: list[float] = (elapsed / elapsed[-1]).tolist()
        if "B3" in self.compat:
            fastest = float(self.forward_network.embed.frequencies.abs().max())
            self._labels = (elapsed / fastest).tolist()

    @property
    def nfe(self) -> int:
        """Network evaluations per event: one per step."""
        return self.time_steps

    @property
    def planned_steps(self) -> int:
        """Training steps of all phases together."""
        return self.steps_first + (2 * self.iterations - 1) * self.steps

    @property
    def epsilon(self) -> float:
        """Regulariser of the entropic transport problem that the reference chain defines.

        The chain's transition x_0 -> x_K is N(a x_0, v); a Schrödinger bridge depends on it only
        through the coefficient a / v of x_0 x_K, so that epsilon = v / a. Brownian: 2 sum(gamma);
        Ornstein-Uhlenbeck: 2 sinh(sum(gamma)) for small steps.
        """
        a, v = 1.0, 0.0
        for gamma in self.gammas:
            keep = 1.0 - gamma if self.reference == "ou" else 1.0
            a, v = a * keep, v * keep**2 + 2.0 * gamma
        return v / a

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Source to target: x (N, d), noise (N, (K-1) d), result (N, d)."""
        return self._sample("forward", x, conditions, noise)

    def inverse(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Target to source: a draw from the reversed bridge, not the inverse of one `apply`."""
        return self._sample("backward", x, conditions, noise)

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """``ipf-NN-backward``, ``ipf-NN-forward`` for every iteration NN = 01, 02, …"""
        for iteration in range(1, self.iterations + 1):
            yield self._phase(iteration, "backward", pairs, seed)
            yield self._phase(iteration, "forward", pairs, seed)

    def _sample(
        self, direction: Direction, x: Tensor, conditions: Conditions, noise: Tensor
    ) -> Tensor:
        draws = noise.reshape(len(x), self.time_steps - 1, self.dim)
        for j, k in enumerate(self._order(direction)):
            x = self._mean(direction, k, x, conditions)
            if j < self.time_steps - 1:
                x = x + self._sigma(k) * draws[:, j]
        return x

    def _phase(self, iteration: int, trained: Direction, pairs: Pairs, seed: int) -> Phase:
        first = iteration == 1 and trained == "backward"
        name = f"ipf-{iteration:02d}-{trained}"
        steps = self.steps_first if first else self.steps
        mover: Direction = "backward" if trained == "forward" else "forward"
        kept: dict[int, _Paths] = {}

        def paths(segment: int) -> _Paths:
            # The mover does not change within the phase and the random numbers are keyed by the
            # segment, so the cache is the same whenever it is made, also after a resume.
            if segment not in kept:
                kept.clear()
                kept[segment] = self._simulate(
                    mover, pairs, stream(seed, "dsb-paths", name, segment), reference=first
                )
            return kept[segment]

        def batch(step: int, rng: np.random.Generator) -> tuple[Any, ...]:
            at = paths(step * self.cache_refresh // steps)
            n, n_k = at.points.shape[:2]
            if "B6" in self.compat:
                flat = np.arange(step * self.batch_size, (step + 1) * self.batch_size) % (n * n_k)
                row, k = np.divmod(flat, n_k)
            else:
                row = rng.integers(0, n, self.batch_size)
                k = rng.integers(0, n_k, self.batch_size)
            return at.take(row, k, self._trained_labels(trained))

        def loss(module: nn.Module, batch: tuple[Any, ...]) -> Tensor:
            point, t, conditions, target = batch
            return nn.functional.mse_loss(module(point, t, conditions), target)

        def prepare(rng: np.random.Generator) -> None:
            kept.clear()
            self._network(mover).eval()

        return Phase(name, self._network(trained), batch, loss, steps, self.learning_rate, prepare)

    @torch.no_grad()
    def _simulate(
        self, mover: Direction, pairs: Pairs, rng: np.random.Generator, *, reference: bool
    ) -> _Paths:
        """Paths out of the mover's data, and what the other network should answer along them."""
        rows = np.arange(len(pairs))
        if self.cache_size is not None and self.cache_size < len(rows):
            rows = np.sort(rng.choice(len(rows), self.cache_size, replace=False))
        device = next(self._network(mover).parameters()).device
        index = torch.from_numpy(rows)
        start = (pairs.source if mover == "forward" else pairs.target)[index].to(device)
        conditions = {name: value[index].to(device) for name, value in pairs.conditions.items()}
        points = torch.empty(len(rows), self.time_steps, self.dim, device=device)
        targets = torch.empty_like(points)
        for low in range(0, len(rows), _CHUNK):
            part = slice(low, low + _CHUNK)
            x = start[part]
            skip = x if "B2" in self.compat else None
            named = {name: value[part] for name, value in conditions.items()}
            for k in self._order(mover):
                z = torch.from_numpy(rng.standard_normal(x.shape, np.float32)).to(device)
                mean = self._mean(mover, k, x, named, skip, reference=reference)
                x = mean + self._sigma(k) * z
                again = self._mean(mover, k, x, named, skip, reference=reference)
                points[part, k] = x
                targets[part, k] = (mean - again) / self._unit(k)
        return _Paths(points, targets, conditions)

    def _mean(
        self,
        direction: Direction,
        k: int,
        x: Tensor,
        conditions: Conditions,
        skip: Tensor | None = None,
        *,
        reference: bool = False,
    ) -> Tensor:
        """F_k(x) or B_k(x); with ``reference`` that of the reference chain."""
        if reference:
            return x - self.gammas[k] * x if self.reference == "ou" else x
        shift = 1 if "B4" in self.compat else 0
        label = self._labels[k + shift if direction == "forward" else k + 1 - shift]
        t = torch.full((1,), label, dtype=x.dtype, device=x.device)  # one time for all rows
        return x + self._unit(k) * self._network(direction)(x, t, conditions, skip)

    def _order(self, direction: Direction) -> Sequence[int]:
        steps = range(self.time_steps)
        return steps if direction == "forward" else steps[::-1]

    def _trained_labels(self, direction: Direction) -> list[float]:
        return self._labels[:-1] if direction == "forward" else self._labels[1:]

    def _network(self, direction: Direction) -> nn.Module:
        return self.forward_network if direction == "forward" else self.backward_network

    def _sigma(self, k: int) -> float:
        return float((2.0 * self.gammas[k]) ** 0.5)

    def _unit(self, k: int) -> float:
        return self._sigma(k) if self.normalised else 1.0


class _Paths:
    """Simulated paths: where the trained network is asked (n, K, d), and the answers (n, K, d)."""

    def __init__(self, points: Tensor, targets: Tensor, conditions: dict[str, Tensor]) -> None:
        self.points, self.targets, self.conditions = points, targets, conditions

    def take(
        self, row: np.ndarray, k: np.ndarray, labels: Sequence[float]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        device = self.points.device
        rows, steps = torch.from_numpy(row).to(device), torch.from_numpy(k).to(device)
        t = torch.tensor(labels, dtype=self.points.dtype, device=device)[steps]
        conditions = {name: value[rows] for name, value in self.conditions.items()}
        return self.points[rows, steps], t, conditions, self.targets[rows, steps]


def _network(
    kind: str, dim: int, condition_dims: Mapping[str, int] | None, options: dict[str, Any]
) -> nn.Module:
    if kind == "mlp":
        return EncoderMLP(dim, condition_dims, **options)
    if kind == "conv":
        shape = options.get("shape")
        if shape is None or int(np.prod(shape)) != dim:
            raise ConfigError(
                f"network 'conv' needs the option shape: [height, width] with {dim} pixels, "
                f"got {shape}"
            )
        return ConvNet(condition_dims=condition_dims, **options)
    raise ConfigError(f"unknown network {kind!r} for dsb; allowed: mlp, conv")
