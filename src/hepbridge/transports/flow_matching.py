"""Conditional optimal-transport flow matching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.transports.build_network import build_network
from hepbridge.transports.couplings import draw_pairs, order_rows
from hepbridge.transports.options import positive_weights, some_carried, whole_numbers

__all__ = ["FlowMatching"]

_MOST_STEPS = 1000


class FlowMatching(nn.Module):
    r"""A velocity field that carries the source distribution to the target, given the conditions.

    .. math:: \dot x = v_\theta(x, t, c), \qquad
              \mathcal{L} = \mathbb{E}\,\bigl| v_\theta(x_t, t, c) - (x_1 - x_0) \bigr|^2, \qquad
              x_t = (1 - t)\, x_0 + t\, x_1 + \sigma \epsilon,

    with pairs :math:`(x_0, x_1)` from the exact optimal assignment inside windows of neighbours in
    the ordering condition (Lipman et al., arXiv:2210.02747; Tong et al., arXiv:2302.00482;
    conditional coupling as in arXiv:2503.10636). If the pairs belong together (``pairs.coupled``)
    they are used as they are. Integrated with ``steps`` steps of Heun's method (two evaluations
    each); the map is deterministic and, by integrating backwards, invertible.

    The last ``carried`` coordinates are kept exactly as they are and steer the flow of the others:
    use it for a coordinate whose map is known (both sides N(0, 1) at every condition). Their
    difference enters the assignment cost with weight ``carried_weight``.

    Args:
        dim: coordinates of x, the carried ones included.
        condition_dims: name -> columns, all standardised.
        weights: (dim - carried) weights of the coordinates in the loss, default 1. They do not
            change what is learned, but where a network of finite size spends its effort.
        condition_weight: of the conditions besides the ordering one in the assignment cost
            (`draw_pairs`); infinite: rows are not assigned, each stays with its own partner. That is
            exact but soon learned by heart: without many pairs use a finite weight.
        steps: Heun steps at application; ``nfe = 2 * steps``.
        sigma: width of the noise on the path.
        window, windows: rows in a window, windows in a batch.
        train_steps, learning_rate: of the only phase.
        width, depth: of the network.
        network, network_options: a name of `NETWORKS`, and options of its own.
    """

    claims = Claims(joint=True, coupling=True, optimal=True, invertible=True, deterministic=True)
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
        steps: int = 4,
        sigma: float = 0.0,
        window: int = 128,
        windows: int = 2,
        train_steps: int = 4000,
        learning_rate: float = 1e-3,
        width: int = 512,
        depth: int = 4,
        network: str = "mlp",
        network_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        counts = {"steps": steps, "window": window, "windows": windows, "train_steps": train_steps}
        counts |= {"width": width, "depth": depth}
        whole_numbers("flow_matching", counts)
        if steps > _MOST_STEPS:
            raise ConfigError(f"flow_matching: steps must be at most {_MOST_STEPS}, got {steps}")
        some_carried("flow_matching", carried, dim)
        self.dim, self.carried, self.carried_weight = dim, carried, carried_weight
        self.condition_weight = condition_weight
        self.condition_dims = dict(condition_dims)
        weights = positive_weights("flow_matching", weights, dim - carried)
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights), persistent=False)
        self.steps, self.sigma = steps, sigma
        self.window, self.windows = window, windows
        self.train_steps, self.learning_rate = train_steps, learning_rate
        self.network = build_network(
            "flow_matching",
            network,
            network_options,
            dim - carried,
            dim - carried,
            carried + sum(condition_dims.values()),
            width,
            depth,
            max_frequency=4.0,
            embedding=32,
        )

    @property
    def nfe(self) -> int:
        return 2 * self.steps

    @property
    def planned_steps(self) -> int:
        return self.train_steps

    # -- training -----------------------------------------------------------------------------

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """One phase of regression on couplings drawn anew for every batch."""
        if pairs.dim != self.dim:
            raise ConfigError(f"flow matching for {self.dim} coordinates got {pairs.dim}")
        order = order_rows(pairs, seed)
        moving = self.dim - self.carried
        scale = torch.ones(self.dim)
        scale[moving:] = self.carried_weight**0.5

        def batch(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
            c, x0, x1 = draw_pairs(
                pairs, order, self.window, self.windows, rng, scale, self.condition_weight
            )
            t = torch.from_numpy(rng.random((len(x0), 1), dtype=np.float32))
            out = {"x0": x0, "x1": x1, "t": t, "c": self._context(c, x1)}
            if self.sigma:
                noise = rng.standard_normal((len(x0), moving), dtype=np.float32)
                out["epsilon"] = torch.from_numpy(noise)
            return out

        def loss(module: nn.Module, data: dict[str, Tensor]) -> Tensor:
            x0, x1 = data["x0"][:, :moving], data["x1"][:, :moving]
            x = torch.lerp(x0, x1, data["t"])
            if self.sigma:
                x = x + self.sigma * data["epsilon"]
            error = (module(x, data["t"], data["c"]) - (x1 - x0)).square().mean(dim=0)
            weights = self.weights.to(error.device)
            return (error * weights).sum() / weights.sum()

        yield Phase("flow", self.network, batch, loss, self.train_steps, self.learning_rate)

    def _context(self, conditions: Conditions, x: Tensor) -> Tensor:
        """What the network is conditioned on (N, k): the named conditions, then the carried part."""
        named = [conditions[name] for name in self.condition_dims]
        return torch.cat([*named, x[:, self.dim - self.carried :]], dim=1)

    # -- application --------------------------------------------------------------------------

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor | None = None) -> Tensor:
        """The end (N, dim) of the flow from ``x`` (N, dim); uses no noise."""
        return self._integrate(x, conditions, forward=True)

    def inverse(self, x: Tensor, conditions: Conditions) -> Tensor:
        """The start (N, dim) of the flow that ends in ``x``."""
        return self._integrate(x, conditions, forward=False)

    def _integrate(self, x: Tensor, conditions: Conditions, *, forward: bool) -> Tensor:
        moving = self.dim - self.carried
        context = self._context(conditions, x)
        y, kept = x[:, :moving], x[:, moving:]
        h = 1.0 / self.steps if forward else -1.0 / self.steps
        for k in range(self.steps):
            t = k * h if forward else 1.0 + k * h
            v = self._velocity(y, t, context)
            ahead = self._velocity(y + h * v, t + h, context)
            y = y + (0.5 * h) * (v + ahead)
        return torch.cat([y, kept], dim=1)

    def _velocity(self, x: Tensor, t: float, context: Tensor) -> Tensor:
        out: Tensor = self.network(x, torch.full((1,), t, dtype=x.dtype, device=x.device), context)
        return out
