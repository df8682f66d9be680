"""What conditions say of every coordinate by itself: mean, spread, and how often it is empty."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["ConditionFrame", "gather", "n_features", "spread"]

_RIDGE = 0.1  # weight of a coefficient's square, times 4 for every degree
_SPREAD_DEGREE = 2  # of the polynomial of ln sigma^2: its estimate is far noisier than the mean's
_FAR = 4.0  # |ln sigma^2 - its average| at most
_MOST_LOGIT = 13.0
_MOST_ROWS = 100_000  # teach the polynomials; more do not change them
_ROUNDS = 8  # of Fisher scoring and of Newton's method
_EDGE = 2e-6


def n_features(columns: int, degree: int) -> int:
    """Number of polynomials of total degree up to ``degree`` in so many variables."""
    return comb(columns + degree, degree)


class ConditionFrame(nn.Module):
    r"""Standardise coordinates that may be :math:`-\infty`, given conditions c.

    .. math:: r = \frac{y - B^\mathsf{T} f(c)}{\sigma(c)}, \quad \ln \sigma^2 = G^\mathsf{T} f(c), \quad
              \ln\frac{p_0}{1 - p_0} = H^\mathsf{T} f(c)

    for finite y and for the probability :math:`p_0` that it is :math:`-\infty`; f are the products of
    Chebyshev polynomials in the conditions up to a total degree. B, G maximise the Gaussian, H the
    binomial likelihood, with a small penalty on high degrees, so that a cell with few hits has a
    smooth frame. Outside the fitted box of conditions its nearest point is used.

    If r is distributed like F, `spread` makes a normal coordinate of it, and `gather` takes it back:

    .. math:: z = \Phi^{-1}\bigl(p_0(c)\, U\bigr) \text{ or }
              \Phi^{-1}\bigl(p_0(c) + (1 - p_0(c))\, F(r)\bigr),

    the map of `ConditionalQuantile` with an atom that depends on all conditions.

    Args:
        dim: number of coordinates y.
        columns: of c.
        degree: the largest total degree; ln sigma^2 has 2 at most, p_0 one less than the mean.

    Source: log-linear models of the variance, Harvey, Econometrica 44 (1976) 461.
    """

    def __init__(self, dim: int, columns: int, degree: int) -> None:
        super().__init__()
        powers = [
            e for e in itertools.product(range(degree + 1), repeat=columns) if sum(e) <= degree
        ]
        powers.sort(key=sum)
        self.degree = degree
        self.lower = tuple(
            n_features(columns, d) for d in (min(_SPREAD_DEGREE, degree), max(degree - 1, 0))
        )
        self.powers: Tensor
        self.low: Tensor
        self.high: Tensor
        self.mean: Tensor
        self.log_variance: Tensor
        self.logit: Tensor
        self.register_buffer("powers", torch.tensor(powers, dtype=torch.int64), persistent=False)
        self.register_buffer("low", -torch.ones(columns))
        self.register_buffer("high", torch.ones(columns))
        self.register_buffer("mean", torch.zeros(len(powers), dim))
        self.register_buffer("log_variance", torch.zeros(self.lower[0], dim))
        self.register_buffer("logit", torch.zeros(self.lower[1], dim))

    # -- learning -----------------------------------------------------------------------------

    @torch.no_grad()
    def fit(self, y: Tensor, c: Tensor, moves: Tensor, matrices: Tensor) -> None:
        """Learn from rows y (N, dim), finite or -inf, and c (N, columns).

        ``moves`` (g, dim) and ``matrices`` (g, columns, columns) are symmetries of both: all images of
        the rows are used, so that the frame has the symmetry exactly.
        """
        step = -(-len(y) * len(moves) // _MOST_ROWS)
        y, c = y[::step], c[::step]
        images = torch.cat([y[:, move] for move in moves])
        columns = torch.cat([c @ a.T for a in matrices.to(c)])
        self.low.copy_(columns.amin(dim=0))
        self.high.copy_(torch.maximum(columns.amax(dim=0), self.low + 1e-6))
        f = self._features(columns).double().numpy()
        ridge = _RIDGE * 4.0 ** self.powers.sum(dim=1).double().numpy()
        ridge[0] = 1e-9
        whole = f.T @ f
        for k in range(images.shape[1]):
            column = images[:, k].double().numpy()
            hit = column > -np.inf
            self.logit[:, k] = torch.from_numpy(_logit(f[:, : self.lower[1]], ~hit, ridge))
            if not hit.any():
                continue
            some, gram = (f, whole) if hit.all() else (f[hit], f[hit].T @ f[hit])
            mean, spread = _location_scale(some, gram, column[hit], ridge, self.lower[0])
            self.mean[:, k] = torch.from_numpy(mean)
            self.log_variance[:, k] = torch.from_numpy(spread)

    # -- application --------------------------------------------------------------------------

    def forward(self, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, sigma and p_0 (N, dim) at the conditions c (N, columns)."""
        f = self._features(c)
        level = self.log_variance[:1]
        change = f[:, 1 : self.lower[0]] @ self.log_variance[1:]
        sigma = torch.exp(0.5 * (level + change.clamp(-_FAR, _FAR)))
        logit = f[:, : self.lower[1]] @ self.logit
        # beyond the largest logit: always hit, or never
        certain = torch.where(self.logit[0] > 0, 1.0, 0.0)
        always = self.logit[0].abs() > 2 * _MOST_LOGIT
        p0 = torch.where(always, certain, torch.sigmoid(logit.clamp(-_MOST_LOGIT, _MOST_LOGIT)))
        return f @ self.mean, sigma, p0

    def _features(self, c: Tensor) -> Tensor:
        x = torch.minimum(torch.maximum(c, self.low), self.high)
        x = (2.0 * x - (self.low + self.high)) / (self.high - self.low)
        chebyshev = [torch.ones_like(x), x]
        for _ in range(self.degree - 1):
            chebyshev.append(2.0 * x * chebyshev[-1] - chebyshev[-2])
        table = torch.stack(chebyshev[: self.degree + 1], dim=2)
        out = table[:, 0].index_select(1, self.powers[:, 0])
        for k in range(1, x.shape[1]):
            out = out * table[:, k].index_select(1, self.powers[:, k])
        return out


def spread(z: Tensor, p0: Tensor, noise: Tensor, hit: Tensor) -> Tensor:
    """Normal coordinates of normal coordinates ``z`` of the finite values, and of the others by ``noise``."""
    e = torch.where(
        hit,
        p0 + (1 - p0) * torch.erf(z * 0.5**0.5),
        p0 * (1 + torch.erf(noise * 0.5**0.5)) - 1,
    )
    out = 2**0.5 * torch.erfinv(e.clamp(-1 + _EDGE, 1 - _EDGE))
    return torch.where(p0 > 0, out, z)


def gather(z: Tensor, p0: Tensor) -> tuple[Tensor, Tensor]:
    """Normal coordinates of the finite values, and which values are finite: `spread` taken back."""
    e = (torch.erf(z * 0.5**0.5) - p0) / (1 - p0).clamp_min(1e-6)
    hit = (e > -1) & (p0 < 1)
    out = 2**0.5 * torch.erfinv(e.clamp(-1 + _EDGE, 1 - _EDGE))
    return torch.where(p0 > 0, out, z), hit


def _location_scale(
    f: NDArray[np.float64],
    gram: NDArray[np.float64],
    y: NDArray[np.float64],
    ridge: NDArray[np.float64],
    lower: int,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Coefficients of mean and ln sigma^2 of y (N,) in features f (N, F)."""
    mean = np.linalg.solve(gram + np.diag(ridge), f.T @ y)
    square = (y - f @ mean) ** 2
    g = f[:, :lower]
    spread = np.zeros(lower)
    spread[0] = np.log(max(float(square.mean()), 1e-4))
    inverse = np.linalg.inv(gram[:lower, :lower] + np.diag(10 * ridge[:lower]))
    for _ in range(_ROUNDS):
        change = np.clip(g[:, 1:] @ spread[1:], -_FAR, _FAR)
        gradient = g.T @ (square * np.exp(-spread[0] - change) - 1) - 10 * ridge[
            :lower
        ] * spread * (np.arange(lower) > 0)
        spread = spread + np.clip(inverse @ gradient, -1, 1)
    return mean, spread


def _logit(
    f: NDArray[np.float64], empty: NDArray[np.bool_], ridge: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Coefficients of the logit of P(empty) in features f (N, F), by Newton's method."""
    out = np.zeros(f.shape[1])
    fraction = empty.mean()
    if fraction in (0.0, 1.0):
        out[0] = (4 * fraction - 2) * 2 * _MOST_LOGIT
        return out
    out[0] = np.log(fraction / (1 - fraction))
    penalty = ridge[: len(out)]
    for _ in range(_ROUNDS):
        p = 1 / (1 + np.exp(-np.clip(f @ out, -_MOST_LOGIT, _MOST_LOGIT)))
        hessian = (f * (p * (1 - p))[:, None]).T @ f + np.diag(penalty)
        step = np.linalg.solve(hessian, f.T @ (empty - p) - penalty * out)
        out = out + step / max(1.0, float(np.abs(step).max()) / 3)
        if np.abs(step).max() < 1e-4:
            break
    return out
