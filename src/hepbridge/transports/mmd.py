"""A residual network trained on the maximum mean discrepancy: one evaluation, no pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.networks.mlp import ResidualMLP
from hepbridge.transports.couplings import draw_pairs, order_rows
from hepbridge.transports.discrepancies import energy_distance, gaussian_mmd
from hepbridge.transports.options import positive_weights, some_carried, whole_numbers

__all__ = ["MMD"]

_KERNELS = ("energy", "gaussian")


class MMD(nn.Module):
    r"""A displacement that makes the moved sample look like the target sample, given the conditions.

    .. math:: y = x + f_\theta(x, c), \qquad
              \mathcal{L} = D^2\bigl(\{(w \odot y_i, c_i)\}, \{(w \odot x_{1,j}, c_j)\}\bigr)
              + \lambda\, \tfrac1d\, \mathbb{E}\,|y - p|^2

    with D the energy distance or the maximum mean discrepancy of a mixture of Gaussian kernels
    (unbiased, see `hepbridge.transports.discrepancies`), computed inside windows of neighbours in
    the ordering condition. Source and target of a window are different rows, so that they are
    independent; other conditions are compared jointly with the coordinates. Points are divided by
    :math:`\sqrt d`, so that a typical distance is about 1 in any dimension.

    The partner p is the target that belongs to the source if there is one (``pairs.coupled``), else
    the source itself: the discrepancy alone does not say which of the maps that reproduce the
    target is wanted, the second term asks for the nearest one. Because it also holds the map back,
    :math:`\lambda` falls linearly to zero in the first half of ``train_steps``.

    One evaluation at application, and training never sees a path. In exchange the discrepancy of
    two windows is dominated by means and covariances in high dimension, where it is blind to finer
    differences of the shape.

    The last ``carried`` coordinates are kept exactly as they are and steer the others, as in
    `FlowMatching`; they take part in the comparison, which is how their relation to the others is
    learned.

    Args:
        dim: coordinates of x, the carried ones included.
        condition_dims: name -> columns, all standardised.
        carried, carried_weight: how many, and the weight of their squares in a squared distance.
        weights: (dim - carried) weights of the squares of the others, default 1.
        kernel: ``"energy"`` or ``"gaussian"``.
        scales: of the Gaussian kernels, in units of the divided points.
        displacement: :math:`\lambda` at the start.
        window, windows: rows of source (and as many of target) in a window, windows in a batch.
        train_steps, learning_rate: of the only phase.
        width, depth: of the residual network.

    Raises ConfigError for options that are not allowed.

    Source: after the refining network of Wolf et al., arXiv:2410.15992 (which uses one global
    sample and alternates the two terms of the loss); Gretton et al. (2012), JMLR 13.
    """

    claims = Claims(joint=True, coupling=True, deterministic=True)
    noise_dim = 0
    nfe = 1

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        carried: int = 0,
        carried_weight: float = 1.0,
        weights: Sequence[float] | None = None,
        kernel: str = "energy",
        scales: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
        displacement: float = 0.01,
        window: int = 128,
        windows: int = 4,
        train_steps: int = 4000,
        learning_rate: float = 1e-3,
        width: int = 512,
        depth: int = 4,
    ) -> None:
        super().__init__()
        counts = {"windows": windows, "train_steps": train_steps, "width": width, "depth": depth}
        whole_numbers("mmd", counts)
        whole_numbers("mmd", {"window": window}, least=2)
        if kernel not in _KERNELS:
            raise ConfigError(f"mmd: unknown kernel {kernel!r}; allowed: {', '.join(_KERNELS)}")
        if not scales or min(scales) <= 0:
            raise ConfigError(f"mmd: scales must be positive numbers, got {list(scales)}")
        if displacement < 0 or carried_weight <= 0:
            raise ConfigError(
                "mmd: displacement must be at least 0 and carried_weight positive, "
                f"got {displacement} and {carried_weight}"
            )
        some_carried("mmd", carried, dim)
        self.dim, self.moving = dim, dim - carried
        weights = positive_weights("mmd", weights, self.moving)
        factors = torch.tensor([*weights, *[carried_weight] * carried]).div(dim).sqrt()
        self.factors: Tensor
        self.register_buffer("factors", factors, persistent=False)
        self.condition_dims = dict(condition_dims)
        self.kernel, self.scales, self.displacement = kernel, tuple(scales), displacement
        self.window, self.windows = window, windows
        self.train_steps, self.learning_rate = train_steps, learning_rate
        conditions = sum(condition_dims.values())
        self.network = ResidualMLP(dim, self.moving, conditions, width, depth, time=False)

    @property
    def planned_steps(self) -> int:
        return self.train_steps

    # -- training -----------------------------------------------------------------------------

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """One phase; batches are windows (windows, window, ...), each compared on its own."""
        if pairs.dim != self.dim:
            raise ConfigError(f"mmd for {self.dim} coordinates got {pairs.dim}")
        if len(pairs) < 4:
            raise ConfigError(f"mmd compares samples and needs at least 4 rows, got {len(pairs)}")
        order = order_rows(pairs, seed)
        half = min(self.window, len(pairs) // 2)

        def batch(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
            conditions, x0, x1 = draw_pairs(pairs, order, 2 * half, self.windows, rng, None)
            c = self._named(conditions, x0)
            x0, x1, c = (a.unflatten(0, (self.windows, 2 * half)) for a in (x0, x1, c))
            partner = (x1 if pairs.coupled else x0)[:, :half, : self.moving]
            weight = self.displacement * max(0.0, 1.0 - 2.0 * step / self.train_steps)
            return {
                "source": x0[:, :half],
                "partner": partner,
                "c": c[:, :half],
                "target": x1[:, half:],
                "c_target": c[:, half:],
                "weight": torch.full((self.windows, 1, 1), weight),
            }

        def loss(module: nn.Module, data: dict[str, Tensor]) -> Tensor:
            x, c = data["source"], data["c"]
            moved = module(x.flatten(0, 1), c=c.flatten(0, 1)).unflatten(0, x.shape[:2])
            y = x[..., : self.moving] + moved
            factors = self.factors.to(x.device)
            refined = torch.cat([y, x[..., self.moving :]], dim=-1) * factors
            apart = self._discrepancy(
                torch.cat([refined, c], dim=-1),
                torch.cat([data["target"] * factors, data["c_target"]], dim=-1),
            )
            return apart + (data["weight"] * (y - data["partner"]).square()).mean()

        yield Phase("refiner", self.network, batch, loss, self.train_steps, self.learning_rate)

    def _discrepancy(self, x: Tensor, y: Tensor) -> Tensor:
        if self.kernel == "energy":
            return energy_distance(x, y)
        return gaussian_mmd(x, y, self.scales)

    def _named(self, conditions: Conditions, x: Tensor) -> Tensor:
        """The named conditions (N, k), in the order of the constructor."""
        named = [conditions[name] for name in self.condition_dims]
        return torch.cat(named, dim=1) if named else x.new_zeros(len(x), 0)

    # -- application --------------------------------------------------------------------------

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor | None = None) -> Tensor:
        """The moved coordinates (N, dim) of x (N, dim); uses no noise."""
        moved = self.network(x, c=self._named(conditions, x))
        return torch.cat([x[:, : self.moving] + moved, x[:, self.moving :]], dim=1)
