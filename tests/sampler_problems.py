"""Diffusions whose denoiser and whose samples are known: normal data and a mixture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import ndtr
from torch import Tensor

MEAN = torch.tensor([0.4, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.45], [0.45, 0.5]], dtype=torch.float64)

WEIGHTS = np.array([0.3, 0.5, 0.2])  # the mixture
PLACES = np.array([-1.5, 0.2, 1.6])
WIDTHS = np.array([0.3, 0.5, 0.25])


# -- normal data in two dimensions ---------------------------------------------------------------


def normal_denoise(x: Tensor, sigma: float) -> Tensor:
    """E[x0 | x] = m + S (S + sigma^2)^-1 (x - m)."""
    noisy = COVARIANCE + sigma**2 * torch.eye(2, dtype=torch.float64)
    return MEAN + (x - MEAN) @ torch.linalg.solve(noisy, COVARIANCE)


def normal_path(x: Tensor, sigma: float, then: float) -> Tensor:
    """Along the path: in the eigenvectors of S, x - m goes as sqrt(s^2 + sigma^2)."""
    s2, vectors = torch.linalg.eigh(COVARIANCE)
    ratio = ((s2 + then**2) / (s2 + sigma**2)).sqrt()
    return MEAN + (x - MEAN) @ vectors @ torch.diag(ratio) @ vectors.T


def moments(
    run: Callable[[Tensor, Tensor], Tensor], draws: int, sigma: float
) -> tuple[Tensor, Tensor]:
    """Exact mean (2,) and covariance (2, 2) of the output of a map that is affine in x and noise.

    x is from the truth at noise level ``sigma``, the noise standard normal: the map is applied to the
    mean and to unit vectors, nothing is drawn.
    """
    inputs = 2 * (1 + draws)
    basis = torch.eye(inputs, dtype=torch.float64).reshape(inputs, 1 + draws, 2)
    rows = torch.cat([torch.zeros_like(basis[:1]), basis])
    out = run(MEAN + rows[:, 0], rows[:, 1:].permute(1, 0, 2).contiguous())
    slopes = (out[1:] - out[0]).T  # (2, inputs)
    spread = torch.eye(inputs, dtype=torch.float64)
    spread[:2, :2] = COVARIANCE + sigma**2 * torch.eye(2, dtype=torch.float64)
    return out[0], slopes @ spread @ slopes.T


# -- a mixture in one dimension ------------------------------------------------------------------


def mixture_denoise(x: Tensor, sigma: float) -> Tensor:
    """E[x0 | x] of the mixture: of each component, weighted with its posterior."""
    weights, places, widths = (torch.from_numpy(a).to(x) for a in (WEIGHTS, PLACES, WIDTHS))
    variance = widths**2 + sigma**2
    away = x - places  # (N, 1) - (3,)
    chance = torch.softmax(weights.log() - 0.5 * variance.log() - 0.5 * away**2 / variance, dim=1)
    return (chance * (places + widths**2 / variance * away)).sum(dim=1, keepdim=True)


def mixture_path(x: Tensor, sigma: float, then: float) -> Tensor:
    """The path of the mixture by an adaptive method of eighth order, in u = ln sigma."""

    def slope(u: float, y: NDArray[np.float64]) -> NDArray[np.float64]:
        here = torch.from_numpy(y)[:, None]
        return (here - mixture_denoise(here, math.exp(u))).numpy()[:, 0]

    ends = math.log(sigma), math.log(then)
    done = solve_ivp(slope, ends, x[:, 0].numpy(), "DOP853", rtol=1e-12, atol=1e-12)
    return torch.from_numpy(done.y[:, -1])[:, None]


def mixture_cdf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(ndtr((x[:, None] - PLACES) / WIDTHS) @ WEIGHTS)


def mixture_draw(n: int, sigma: float, rng: np.random.Generator) -> Tensor:
    """n draws (n, 1) of the mixture with noise ``sigma``."""
    which = rng.choice(3, n, p=WEIGHTS)
    spread = np.sqrt(WIDTHS[which] ** 2 + sigma**2)
    return torch.from_numpy(PLACES[which] + spread * rng.standard_normal(n))[:, None]


# -- orders --------------------------------------------------------------------------------------


def order(steps: Sequence[int], errors: Sequence[float]) -> tuple[float, float]:
    """The order p of ln error = a - p ln n + b / n by least squares, and its standard error.

    b / n is the next order of the error: what is found is the slope at infinitely many steps.
    """
    n, y = np.asarray(steps, np.float64), np.log(errors)
    columns = np.stack([-np.log(n), np.ones_like(n), 1 / n], axis=1)
    found, *_ = np.linalg.lstsq(columns, y, rcond=None)
    scatter = float(((y - columns @ found) ** 2).sum()) / (len(n) - 3)
    return float(found[0]), float(scatter * np.linalg.inv(columns.T @ columns)[0, 0]) ** 0.5
