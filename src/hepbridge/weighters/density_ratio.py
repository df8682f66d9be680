"""The ratio of two densities, learned by a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Conditions, Phase
from hepbridge.core.rng import stream
from hepbridge.networks.mlp import ResidualMLP
from hepbridge.transports.options import whole_numbers
from hepbridge.weighters.contrast import Contrast

__all__ = ["DensityRatio"]

_CHUNK = 1 << 16  # rows evaluated at once: hidden layers of more would not fit into the caches


class DensityRatio(nn.Module):
    r"""A classifier f between two weighted samples, whose odds are the ratio of their densities.

    .. math:: w(x) = \frac{f(x)}{1 - f(x)} = e^{\ell(x)}
              \approx \frac{p_{num}(x)}{p_{den}(x)}, \qquad
              \mathcal{L} = \sum_i a_i \ln(1 + e^{-\ell(x_i)}) + b_i \ln(1 + e^{\ell(x_i)}),

    with the weights of numerator and denominator each normalised to :math:`\sum a = \sum b = 1`:
    w is a ratio of *densities*, the ratio of the totals stays outside. After training, the weights
    are divided by their mean over the denominator, so that this mean is 1 exactly (the mean found
    is kept in ``log_mean``: far from zero it says that the classifier is badly calibrated).

    The network knows :math:`\ell`, not f: gradients are finite and nothing is divided by zero. The
    logit is clipped at ``±bound``, in the loss as well, which for negative weights has no lower
    bound otherwise; and, once trained, at the outermost logits of the rows it was trained with
    (``limits``): a single event far from all of them would else decide a sum. `clipped` says which
    rows were. Negative weights: where the subtraction leaves nothing, what fluctuates above zero
    stays, and what fluctuates below cannot be a weight. Training rows are drawn in proportion to
    :math:`|a| + |b|`, from strata of equal probability, so that few large weights do not make
    noisy gradients. A part of the rows is held out; with ``patience`` in the training settings the
    weights of the lowest held-out loss are kept. Several ``members``, trained from different random
    numbers and with different parts held out, have their logits averaged: with few rows the held-out
    loss is noisy, and one of them alone may stop too late.

    Likelihood-ratio trick: Cranmer et al., arXiv:1506.02169; reweighting: Andreassen and Nachman,
    arXiv:1907.08209.

    Args:
        dim: coordinates of x, each of order one (model space).
        condition_dims: name -> columns, all standardised: inputs like x.
        members: classifiers whose logits are averaged.
        width, depth: of each residual network.
        bound: of the logit; 10 means weights between 1/22,000 and 22,000.
        batch: rows of a batch, both samples together.
        validation: part of the rows that each member holds out.
        train_steps, learning_rate: of each member.
    """

    def __init__(
        self,
        dim: int,
        condition_dims: Mapping[str, int] | None = None,
        *,
        members: int = 1,
        width: int = 32,
        depth: int = 2,
        bound: float = 10.0,
        batch: int = 1024,
        validation: float = 0.2,
        train_steps: int = 1000,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        counts = {"dim": dim, "members": members, "width": width, "depth": depth, "batch": batch}
        whole_numbers("density_ratio", counts | {"train_steps": train_steps})
        if not 0 < bound <= 80:  # e^88 overflows in float32
            raise ConfigError(f"density_ratio: bound must be in (0, 80], got {bound}")
        if not 0 < validation <= 0.5:
            raise ConfigError(f"density_ratio: validation must be in (0, 0.5], got {validation}")
        self.dim, self.condition_dims = dim, dict(condition_dims or {})
        self.bound, self.batch, self.validation = bound, batch, validation
        self.train_steps, self.learning_rate = train_steps, learning_rate
        columns = dim + sum(self.condition_dims.values())
        self.members = nn.ModuleList(
            ResidualMLP(columns, 1, 0, width, depth, time=False) for _ in range(members)
        )
        self.log_mean: Tensor
        self.limits: Tensor
        self.register_buffer("log_mean", torch.zeros(()))
        self.register_buffer("limits", torch.tensor([-bound, bound]))

    @property
    def planned_steps(self) -> int:
        return self.train_steps * len(self.members)

    # -- training -----------------------------------------------------------------------------

    def phases(self, contrast: Contrast, seed: int) -> Iterator[Phase]:
        """One phase per member; afterwards the limits are set, and the mean over the denominator."""
        if contrast.x.shape[1] != self.dim:
            raise ConfigError(f"density_ratio for {self.dim} columns got {contrast.x.shape[1]}")
        order = torch.from_numpy(stream(seed, "density ratio split").permutation(len(contrast)))
        held_out = max(1, round(self.validation * len(contrast)))
        for index, member in enumerate(self.members):
            mine = order.roll(-index * held_out)  # each member holds out other rows
            yield Phase(
                f"member {index}",
                member,
                self._batches(contrast.rows(mine[held_out:].sort()[0])),
                self._loss,
                self.train_steps,
                self.learning_rate,
                validate=self._validation(contrast.rows(mine[:held_out])),
            )
        self._normalise(contrast)

    def _batches(self, train: Contrast) -> Callable[[int, np.random.Generator], dict[str, Tensor]]:
        inputs = self._inputs(train.x, train.conditions)
        a, b = _normalised(train)
        share = (a.abs() + b.abs()).numpy()
        edges = np.cumsum(share)
        edges /= edges[-1]
        label = torch.stack([a, b], dim=1) * float(share.sum() / 2)  # divided by share when drawn
        label = (label / torch.from_numpy(np.where(share > 0, share, 1.0))[:, None]).float()

        def batch(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
            u = (np.arange(self.batch) + rng.random(self.batch)) / self.batch
            rows = torch.from_numpy(
                np.searchsorted(edges, u, side="right").clip(max=len(edges) - 1)
            )
            return {"inputs": inputs[rows], "label": label[rows]}

        return batch

    def _loss(self, module: nn.Module, data: dict[str, Tensor]) -> Tensor:
        return self._cross_entropy(module(data["inputs"])[:, 0], data["label"]).mean()

    def _cross_entropy(self, logit: Tensor, label: Tensor) -> Tensor:
        logit = logit.clamp(-self.bound, self.bound)
        return label[:, 0] * softplus(-logit) + label[:, 1] * softplus(logit)

    def _validation(self, held: Contrast) -> Callable[[nn.Module], float]:
        inputs = self._inputs(held.x, held.conditions)
        label = torch.stack(_normalised(held), dim=1).float()

        def validate(module: nn.Module) -> float:
            device = next(module.parameters()).device
            total = 0.0
            for x, y in zip(torch.split(inputs, _CHUNK), torch.split(label, _CHUNK), strict=True):
                loss = self._cross_entropy(module(x.to(device))[:, 0], y.to(device))
                total += float(loss.double().sum())
            return total / 2

        return validate

    @torch.no_grad()
    def _normalise(self, contrast: Contrast) -> None:
        logits = self.logits(contrast.x, contrast.conditions).clamp(-self.bound, self.bound)
        self.limits.copy_(torch.stack(logits.aminmax()))
        b = contrast.denominator
        self.log_mean.copy_(((b * logits.cpu().double().exp()).sum() / b.sum()).log())

    # -- application --------------------------------------------------------------------------

    def weights(self, x: Tensor, conditions: Conditions | None = None) -> Tensor:
        """The density ratio (N,) at x (N, dim)."""
        logits = self.logits(x, conditions).clamp(*self.limits)
        return (logits - self.log_mean).exp()

    def logits(self, x: Tensor, conditions: Conditions | None = None) -> Tensor:
        """The logit (N,) of the classifiers, neither clipped nor normalised."""
        inputs = self._inputs(x, conditions or {}).to(self.log_mean.device)
        return torch.cat([self._mean_logit(chunk) for chunk in torch.split(inputs, _CHUNK)])

    def clipped(self, x: Tensor, conditions: Conditions | None = None) -> Tensor:
        """Whether (N,) the logit of a row lies beyond the limits: its weight is only a bound."""
        logits = self.logits(x, conditions)
        return (logits < self.limits[0]) | (logits > self.limits[1])

    def _mean_logit(self, inputs: Tensor) -> Tensor:
        return torch.stack([member(inputs)[:, 0] for member in self.members]).mean(dim=0)

    def _inputs(self, x: Tensor, conditions: Conditions) -> Tensor:
        return torch.cat([x, *[conditions[name] for name in self.condition_dims]], dim=1).float()


def _normalised(contrast: Contrast) -> tuple[Tensor, Tensor]:
    """Both weights, each with the sum 1."""
    a, b = contrast.numerator, contrast.denominator
    return a / a.sum(), b / b.sum()
