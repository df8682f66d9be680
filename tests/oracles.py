"""Closed forms that transports are held against. Nothing here imports the code under test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from scipy.special import logsumexp

Array = NDArray[np.float64]


def gaussian_sb_cross_covariance(s0: Array, s1: Array, epsilon: float) -> Array:
    """Cov(x_0, x_1) (d, d) of the static Schrödinger bridge between N(m0, s0) and N(m1, s1).

        C = 1/2 (s0^{1/2} D s0^{-1/2} - eps 1),   D = (4 s0^{1/2} s1 s0^{1/2} + eps^2 1)^{1/2},

    for the reference x_1 | x_0 ~ N(x_0, eps 1), which is entropic transport with cost |x - y|^2 / 2
    and regulariser eps. It does not depend on the means. Source: Janati et al. 2020
    (arXiv:2006.02572); Bunne et al. 2023 (arXiv:2202.05722), theorem 3.
    """
    s0, s1 = np.atleast_2d(s0), np.atleast_2d(s1)
    one = np.eye(len(s0))
    root = np.real(sqrtm(s0))
    d = np.real(sqrtm(4.0 * root @ s1 @ root + epsilon**2 * one))
    return 0.5 * (root @ d @ np.linalg.inv(root) - epsilon * one)


def monge_matrix(s0: Array, s1: Array) -> Array:
    """A (d, d) of the optimal map x -> m1 + A (x - m0) between Gaussians (Bures): eps -> 0."""
    s0, s1 = np.atleast_2d(s0), np.atleast_2d(s1)
    root = np.real(sqrtm(s0))
    inverse = np.linalg.inv(root)
    return inverse @ np.real(sqrtm(root @ s1 @ root)) @ inverse


def sinkhorn(a: Array, b: Array, x: Array, y: Array, epsilon: float, rounds: int = 200) -> Array:
    """Entropic plan (n, m) between weighted points: cost |x - y|^2 / 2, in the log domain.

    x (n, d) with weights a (n,), y (m, d) with weights b (m,).
    """
    kernel = -0.5 * ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1) / epsilon
    f, g = np.zeros(len(a)), np.zeros(len(b))
    for _ in range(rounds):
        f = np.log(a) - logsumexp(kernel + g[None, :], axis=1)
        g = np.log(b) - logsumexp(kernel + f[:, None], axis=0)
    return np.exp(f[:, None] + kernel + g[None, :])


def ipf_of_lines(
    m0: float, s0: float, m1: float, s1: float, gammas: Array, iterations: int, reference: str
) -> tuple[float, float, float]:
    """Mean, variance of x_K and Cov(x_0, x_K) under the forward chain of exact mean matching.

    One dimension, variances s0 and s1: every mean map is a line F_k(x) = p_k x + q_k, and the
    regressions of mean matching are the conditional expectations of a Gaussian chain. This is the
    method without networks, sampling error and cache; what differs from the closed form
    `gaussian_sb_cross_covariance` is the error of the K steps. The last step is without noise, as
    in sampling.
    """
    steps = len(gammas)
    keep = 1.0 - np.asarray(gammas) if reference == "ou" else np.ones(steps)
    forward = [(p, 0.0) for p in keep]
    backward = [(1.0, 0.0)] * steps
    for _ in range(iterations):
        backward = _reversal(m0, s0, forward, gammas)
        forward = _reversal(m1, s1, backward[::-1], gammas[::-1])[::-1]
    mean, var, cov = m0, s0, s0
    for k, (p, q) in enumerate(forward):
        noise = 2.0 * gammas[k] if k < steps - 1 else 0.0
        mean, var, cov = p * mean + q, p * p * var + noise, p * cov
    return mean, var, cov


def _reversal(
    mean: float, var: float, lines: list[tuple[float, float]], gammas: Array
) -> list[tuple[float, float]]:
    """Mean matching against a chain of lines: R(y) = y + M(E[x | y]) - M(y) for each step."""
    answer = []
    for (p, q), gamma in zip(lines, gammas, strict=True):
        next_mean, next_var = p * mean + q, p * p * var + 2.0 * gamma
        slope = p * var / next_var  # E[x | y] = mean + slope (y - next_mean)
        answer.append((1.0 + p * slope - p, p * (mean - slope * next_mean)))
        mean, var = next_mean, next_var
    return answer
