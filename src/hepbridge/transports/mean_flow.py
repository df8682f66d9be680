"""MeanFlow: the mean velocity over a stretch of time, so that one evaluation takes a whole step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.networks.embeddings import SinusoidalEmbedding
from hepbridge.transports.build_network import build_network
from hepbridge.transports.couplings import draw_pairs, order_rows
from hepbridge.transports.options import positive_weights, some_carried, whole_numbers

__all__ = ["MeanFlow"]

_MOST_EVALUATIONS = 1000
_EMBEDDING = 32  # columns of the code of a stretch, and of that of the time
_TURNS = 0.5  # half a turn of either: what is learned is differentiated with respect to time
_STEP = 0.002  # of the numerical derivative: rounding and curvature together are below 1e-3
_LEAST = 1e-3  # added to the squared error that an adaptive weight divides by


class MeanFlow(nn.Module):
    r"""A flow from source (t = 0) to target (t = 1) of which the mean velocity is learned.

    With the path and the velocity of flow matching, :math:`x_t = (1 - t)\, x_0 + t\, x_1` and
    :math:`v(x_t, t, c) = \mathbb{E}[x_1 - x_0 | x_t, c]`, the mean over a stretch from t to r,

    .. math:: u(x_t, t, r, c) = \frac{1}{r - t} \int_t^r v(x_\tau, \tau, c)\, d\tau, \qquad
              x_r = x_t + (r - t)\, u(x_t, t, r, c), \qquad u(x_t, t, t, c) = v(x_t, t, c),

    is a whole step without error. Its derivative along the flow at fixed r gives the identity that is
    learned, with :math:`v = x_1 - x_0` of the pair and the target held constant:

    .. math:: \mathcal{L} = \mathbb{E}\, w\, \Bigl| u_\theta - \Bigl[ v - (t - r)
              \frac{du_\theta}{dt} \Bigr] \Bigr|^2, \qquad
              \frac{du_\theta}{dt} = (v \cdot \nabla_x)\, u_\theta + \partial_t u_\theta .

    (The paper counts time from data to noise, with r < t; the identity is the same.) The target is
    linear in v, so its mean over the pairs at :math:`x_t` is that with the velocity of the flow. The
    derivative is a central difference along (v, 1): two further evaluations without gradients, which
    any network and precision allows.

    Nothing is integrated and no teacher is needed; ``evaluations`` equal steps are taken at
    application, and may be changed after training. Pairs are those of `FlowMatching`, assigned in
    windows, and a source that is noise is drawn anew in every batch. A window of 1 leaves source and
    target independent.

    Args:
        dim: coordinates of x, the carried ones included.
        condition_dims: name -> columns, all standardised.
        carried, carried_weight, condition_weight, weights, window, windows: as in `FlowMatching`.
        evaluations: steps at application, ``nfe``.
        instant: share of the batch with r = t, which learns the velocity itself; the others have
            two uniform times t < r.
        adaptive: p of the weight :math:`w = (|\Delta|^2 + 10^{-3})^{-p}` of a row with the mean
            squared error :math:`|\Delta|^2`. 0 is exact; the paper takes 1, which is less disturbed by
            rows far off, but then no longer learns the mean over the pairs.
        train_steps, learning_rate: of the only phase.
        width, depth: of the network.
        network, network_options: a name of `NETWORKS`, and options of its own.

    Raises ConfigError for options that are not allowed.

    Source: Geng et al., arXiv:2505.13447.
    """

    claims = Claims(joint=True, coupling=True, deterministic=True)
    noise_dim = 0

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        carried: int = 0,
        carried_weight: float = 30.0,
        condition_weight: float = 1.0,
        weights: Sequence[float] | None = None,
        evaluations: int = 1,
        instant: float = 0.75,
        adaptive: float = 0.0,
        window: int = 128,
        windows: int = 2,
        train_steps: int = 6000,
        learning_rate: float = 1e-3,
        width: int = 256,
        depth: int = 4,
        network: str = "mlp",
        network_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        counts = {"window": window, "windows": windows, "train_steps": train_steps}
        whole_numbers("mean_flow", counts | {"width": width, "depth": depth})
        whole_numbers("mean_flow", {"evaluations": evaluations}, most=_MOST_EVALUATIONS)
        if not 0.0 <= instant <= 1.0 or not 0.0 <= adaptive <= 2.0:
            raise ConfigError(
                "mean_flow: instant must be from 0 to 1 and adaptive from 0 to 2, "
                f"got {instant} and {adaptive}"
            )
        some_carried("mean_flow", carried, dim)
        self.dim, self.carried, self.carried_weight = dim, carried, carried_weight
        self.condition_weight = condition_weight
        self.condition_dims = dict(condition_dims)
        weights = positive_weights("mean_flow", weights, dim - carried)
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights), persistent=False)
        self.evaluations, self.instant, self.adaptive = evaluations, instant, adaptive
        self.window, self.windows = window, windows
        self.train_steps, self.learning_rate = train_steps, learning_rate
        self.stretch = SinusoidalEmbedding(_EMBEDDING, _TURNS)
        self.network = build_network(
            "mean_flow",
            network,
            network_options,
            dim - carried,
            dim - carried,
            _EMBEDDING + carried + sum(condition_dims.values()),
            width,
            depth,
            max_frequency=_TURNS,
            embedding=_EMBEDDING,
        )

    @property
    def nfe(self) -> int:
        return self.evaluations

    @property
    def planned_steps(self) -> int:
        return self.train_steps

    # -- training -----------------------------------------------------------------------------

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """One phase, on couplings and times drawn anew for every batch."""
        if pairs.dim != self.dim:
            raise ConfigError(f"mean_flow for {self.dim} coordinates got {pairs.dim}")
        order = order_rows(pairs, seed)
        moving = self.dim - self.carried
        scale = None if self.window == 1 else torch.ones(self.dim)
        if scale is not None:
            scale[moving:] = self.carried_weight**0.5

        def batch(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
            c, x0, x1 = draw_pairs(
                pairs, order, self.window, self.windows, rng, scale, self.condition_weight
            )
            t, r = torch.from_numpy(rng.random((2, len(x0), 1), dtype=np.float32)).sort(0).values
            instant = torch.from_numpy(rng.random((len(x0), 1)) < self.instant)
            # one uniform time, not the earlier of two
            t = torch.where(instant, torch.from_numpy(rng.random(t.shape, dtype=np.float32)), t)
            r = torch.where(instant, t, r)
            x, v = torch.lerp(x0, x1, t)[:, :moving], (x1 - x0)[:, :moving]
            return {"x": x, "v": v, "t": t, "r": r, "c": self._context(c, x1)}

        def loss(module: nn.Module, data: dict[str, Tensor]) -> Tensor:
            mean = self.mean_velocity(module, data["x"], data["t"], data["r"], data["c"])
            target = self.target(module, data["x"], data["v"], data["t"], data["r"], data["c"])
            weights = self.weights.to(mean.device)
            error = ((mean - target).square() * weights).sum(dim=1) / weights.sum()
            if self.adaptive:
                error = error / (error.detach() + _LEAST) ** self.adaptive
            return error.mean()

        yield Phase("mean-flow", self.network, batch, loss, self.train_steps, self.learning_rate)

    def mean_velocity(
        self, network: nn.Module, x: Tensor, t: Tensor, r: Tensor, c: Tensor
    ) -> Tensor:
        """The network's u (N, d) from x (N, d), from t to r, (N, 1) or (1, 1), in context c (N, k)."""
        stretch = self.stretch(r - t).expand(len(x), -1)
        out: Tensor = network(x, t, torch.cat([stretch, c], dim=1))
        return out

    @torch.no_grad()
    def target(
        self, network: nn.Module, x: Tensor, v: Tensor, t: Tensor, r: Tensor, c: Tensor
    ) -> Tensor:
        """v - (t - r) du/dt (N, d), constant: without gradients, and in full precision."""
        out = v.clone()
        some = (r != t)[:, 0]
        if not some.any():
            return out
        x, v, t, r, c = x[some], v[some], t[some], r[some], c[some]
        with torch.autocast(x.device.type, enabled=False):
            after = self.mean_velocity(network, x + _STEP * v, t + _STEP, r, c)
            before = self.mean_velocity(network, x - _STEP * v, t - _STEP, r, c)
        out[some] -= (t - r) * (after - before) / (2.0 * _STEP)
        return out

    def _context(self, conditions: Conditions, x: Tensor) -> Tensor:
        """What the network is conditioned on (N, k): the named conditions, then the carried part."""
        named = [conditions[name] for name in self.condition_dims]
        return torch.cat([*named, x[:, self.dim - self.carried :]], dim=1)

    # -- application --------------------------------------------------------------------------

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor | None = None) -> Tensor:
        """The end (N, dim) of the flow from ``x`` (N, dim); uses no noise."""
        moving = self.dim - self.carried
        context = self._context(conditions, x)
        y, kept = x[:, :moving], x[:, moving:]
        h = 1.0 / self.evaluations
        for k in range(self.evaluations):
            t = torch.full((1, 1), k * h, dtype=x.dtype, device=x.device)
            y = y + h * self.mean_velocity(self.network, y, t, t + h, context)
        return torch.cat([y, kept], dim=1)
