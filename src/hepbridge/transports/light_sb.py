"""Light Schrödinger bridge: the entropic plan in closed form, out of a Gaussian mixture (LightSB)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.core.rng import stream
from hepbridge.networks.mlp import ResidualMLP
from hepbridge.transports.contexts import joined
from hepbridge.transports.couplings import random_images
from hepbridge.transports.options import whole_numbers

__all__ = ["LightSB", "MixturePotential"]

_MOST_DIM = 32

Parameters = tuple[Tensor, Tensor, Tensor]


class MixturePotential(nn.Module):
    r"""The adjusted potential :math:`v(y | c) = \sum_k \alpha_k N(y; r_k, \epsilon S_k)`.

    :math:`S_k = L_k L_k^\top` is a full matrix. With conditions, :math:`\ln \alpha_k`, :math:`r_k`
    and :math:`L_k` are parameters plus the output of a small network of c that starts at zero; a
    common factor of all :math:`\alpha_k` means nothing.

    Args:
        dim, components: d, K.
        conditions_dim: columns of c; 0 for none, and no network.
        width, depth: of the network.

    Shapes: c (N, conditions_dim) -> ln alpha (N, K), r (N, K, d), L (N, K, d, d) lower triangular
    with positive diagonal; N is 1 without conditions.
    """

    def __init__(
        self, dim: int, components: int, conditions_dim: int, width: int, depth: int
    ) -> None:
        super().__init__()
        self.dim = dim
        self.rows, self.columns = torch.tril_indices(dim, dim).tolist()
        self.log_alpha = nn.Parameter(torch.zeros(components))
        self.r = nn.Parameter(torch.zeros(components, dim))
        self.tril = nn.Parameter(torch.zeros(components, len(self.rows)))
        out = components * (1 + dim + len(self.rows))
        self.network = (
            ResidualMLP(conditions_dim, out, 0, width, depth, time=False)
            if conditions_dim
            else None
        )

    def forward(self, c: Tensor | None) -> Parameters:
        values = torch.cat([self.log_alpha[:, None], self.r, self.tril], dim=1)[None]
        if self.network is not None:
            values = values + self.network(c).unflatten(1, values.shape[1:])
        log_alpha, r, entries = values.split([1, self.dim, len(self.rows)], dim=2)
        lower = values.new_zeros(*values.shape[:2], self.dim, self.dim)
        lower[..., self.rows, self.columns] = entries
        diagonal = lower.diagonal(dim1=-2, dim2=-1).exp()
        return log_alpha[..., 0], r, lower.tril(-1) + torch.diag_embed(diagonal)


class LightSB(nn.Module):
    r"""Schrödinger bridge with a Gaussian-mixture potential, for low dimensions.

    Every plan of the form :math:`\pi(x, y) = p_0(x)\, e^{\langle x, y \rangle / \epsilon} v(y)
    / Z(x)` is the entropic transport plan (cost :math:`|x - y|^2 / 2`, regulariser
    :math:`\epsilon`) between its two marginals. With v of `MixturePotential` it is a mixture in
    closed form,

    .. math:: \pi(y | x) = \frac{1}{Z(x)} \sum_k \alpha_k(x)\, N(y; r_k + S_k x, \epsilon S_k),
              \qquad \alpha_k(x) = \alpha_k\, e^{(x^\top S_k x + 2 r_k^\top x) / 2 \epsilon},
              \qquad Z(x) = \sum_k \alpha_k(x),

    and what is left is to make its second marginal the target, by minimising

    .. math:: \mathcal{L} = \mathbb{E}_{x \sim p_0} \ln Z(x) - \mathbb{E}_{y \sim p_1} \ln v(y),

    which is KL(true plan | this plan) up to a constant: maximum likelihood, without pairs, paths or
    simulations. With conditions all expectations are at equal c. Pairs that belong together are
    not used as such: the coupling is always the bridge's.

    `apply` draws y given x: one component, then a Gaussian. Only for coordinates of order 1 and
    few dimensions, where a mixture can follow the target; K components leave what they cannot.

    As an oracle for other methods: `set_potential` any mixture and draw x from any :math:`p_0`;
    then x and `apply` are two samples whose Schrödinger bridge is known exactly, also for shapes
    that are not Gaussian: `conditional_mean`, `log_density` (the construction of the benchmark
    arXiv:2306.10161). With one component and a Gaussian source it is the Gaussian bridge.

    Args:
        dim: coordinates d, at most 32.
        condition_dims: name -> columns, all standardised.
        epsilon: variance of the Brownian reference from source to target; the spread
            of the targets of one source. Small values need more components.
        components: K.
        batch_size, train_steps, learning_rate: of the only phase.
        width, depth: of the network of the conditions.

    Raises ConfigError for options that are not allowed.

    Source: Korotin et al., arXiv:2310.01174, section 3; the same plan learned by bridge matching:
    Gushchin et al., arXiv:2402.03207.
    """

    claims = Claims(joint=True, coupling=True, entropic=True)

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        epsilon: float = 0.1,
        components: int = 10,
        batch_size: int = 512,
        train_steps: int = 3000,
        learning_rate: float = 3e-3,
        width: int = 64,
        depth: int = 2,
    ) -> None:
        super().__init__()
        counts = {"components": components, "batch_size": batch_size, "train_steps": train_steps}
        counts |= {"width": width, "depth": depth}
        whole_numbers("light_sb", counts)
        if not 1 <= dim <= _MOST_DIM:
            raise ConfigError(
                f"light_sb is a method for at most {_MOST_DIM} coordinates, got {dim}; use "
                "flow_matching, i2sb or dsb"
            )
        if not 0 < epsilon < math.inf:
            raise ConfigError(f"light_sb: epsilon must be a positive number, got {epsilon}")
        self.dim, self.epsilon = dim, float(epsilon)
        self.condition_dims = dict(condition_dims)
        self.batch_size = batch_size
        self.train_steps, self.learning_rate = train_steps, learning_rate
        self.noise_dim = dim + 1
        self.potential = MixturePotential(
            dim, components, sum(condition_dims.values()), width, depth
        )

    @property
    def nfe(self) -> int:
        """One evaluation of the network of the conditions, none without conditions."""
        return 1 if self.condition_dims else 0

    @property
    def planned_steps(self) -> int:
        return self.train_steps

    @torch.no_grad()
    def set_potential(self, alpha: Tensor, r: Tensor, s: Tensor) -> None:
        """Choose the mixture: alpha (K,) positive, r (K, d), S (K, d, d) symmetric, positive.

        A network of conditions, if there is one, is switched off until it is trained.
        """
        potential, lower = self.potential, torch.linalg.cholesky(s)
        log_diagonal = torch.diag_embed(lower.diagonal(dim1=-2, dim2=-1).log())
        entries = (lower.tril(-1) + log_diagonal)[:, potential.rows, potential.columns]
        potential.log_alpha.copy_(alpha.log())
        potential.r.copy_(r)
        potential.tril.copy_(entries)
        if potential.network is not None:
            potential.network.leave.weight.zero_()
            potential.network.leave.bias.zero_()

    # -- training -----------------------------------------------------------------------------

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """One phase of maximum likelihood; components start at random target rows."""
        if pairs.dim != self.dim:
            raise ConfigError(f"light_sb for {self.dim} coordinates got {pairs.dim}")
        self._start(pairs, seed)

        def batch(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
            some = pairs.rows(torch.from_numpy(rng.integers(len(pairs), size=self.batch_size)))
            (x, y), named = random_images(some, (some.source, some.target), rng)
            c = self._named(named)
            return {"x": x, "y": y} if c is None else {"x": x, "y": y, "c": c}

        def loss(module: nn.Module, data: dict[str, Tensor]) -> Tensor:
            parameters = module(data.get("c"))
            log_z = self._log_weights(data["x"], parameters).logsumexp(dim=1)
            return (log_z - self._log_potential(data["y"], parameters)).mean()

        yield Phase("potential", self.potential, batch, loss, self.train_steps, self.learning_rate)

    def _start(self, pairs: Pairs, seed: int) -> None:
        """Components at random target rows, nearly without a slope: y hardly depends on x at first."""
        components = len(self.potential.log_alpha)
        rows = stream(seed, "components").integers(len(pairs), size=components)
        r = pairs.target[torch.from_numpy(rows)]
        s = 0.1 * torch.eye(self.dim).expand(components, -1, -1)
        device = self.potential.r.device
        self.set_potential(torch.ones(components).to(device), r.to(device), s.to(device))

    def _named(self, conditions: Conditions) -> Tensor | None:
        return joined(conditions, self.condition_dims)

    # -- the plan -----------------------------------------------------------------------------

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """A draw y (N, d) of the plan given x (N, d); noise (N, d + 1), its first for the component."""
        log_weights, means, spread = self._conditional(x, conditions)
        until = log_weights.softmax(dim=1).cumsum(dim=1)
        share = torch.special.ndtr(noise[:, :1])
        k = (until < share).sum(dim=1).clamp_max(until.shape[1] - 1)
        row = torch.arange(len(x), device=x.device)
        spread = spread.expand(len(x), -1, -1, -1)[row, k]
        return means[row, k] + (spread @ noise[:, 1:, None])[..., 0]

    def conditional_mean(self, x: Tensor, conditions: Conditions) -> Tensor:
        """E[y | x] (N, d) of the plan, the barycentric projection."""
        log_weights, means, _ = self._conditional(x, conditions)
        return (log_weights.softmax(dim=1)[..., None] * means).sum(dim=1)

    def log_density(self, x: Tensor, y: Tensor, conditions: Conditions) -> Tensor:
        """ln pi(y | x) (N,) of the plan for x and y (N, d)."""
        log_weights, means, spread = self._conditional(x, conditions)
        parts = log_weights.log_softmax(dim=1) + _log_normal(y[:, None], means, spread)
        return parts.logsumexp(dim=1)

    def _conditional(self, x: Tensor, conditions: Conditions) -> Parameters:
        """The mixture pi(y | x): ln alpha_k(x) (N, K), means (N, K, d), Cholesky factors of eps S."""
        parameters = self.potential(self._named(conditions))
        _, r, lower = parameters
        means = r + (lower @ (lower.mT @ x[:, None, :, None]))[..., 0]
        return self._log_weights(x, parameters), means, self.epsilon**0.5 * lower

    def _log_weights(self, x: Tensor, parameters: Parameters) -> Tensor:
        """ln alpha_k(x) (N, K)."""
        log_alpha, r, lower = parameters
        x = x[:, None, :, None]
        quadratic = (lower.mT @ x).square().sum(dim=(-2, -1))
        linear = (r[..., None, :] @ x)[..., 0, 0]
        return log_alpha + (0.5 * quadratic + linear) / self.epsilon

    def _log_potential(self, y: Tensor, parameters: Parameters) -> Tensor:
        """ln v(y) (N,)."""
        log_alpha, r, lower = parameters
        parts = log_alpha + _log_normal(y[:, None], r, self.epsilon**0.5 * lower)
        return parts.logsumexp(dim=1)


def _log_normal(y: Tensor, mean: Tensor, lower: Tensor) -> Tensor:
    """ln N(y; mean, lower lower^T) (...) for y, mean (..., d)."""
    white = torch.linalg.solve_triangular(lower, (y - mean)[..., None], upper=False)
    log_det = lower.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    constant = 0.5 * y.shape[-1] * math.log(2.0 * math.pi)
    return -0.5 * white.square().sum(dim=(-2, -1)) - log_det - constant
