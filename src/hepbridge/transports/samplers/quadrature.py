"""Weights that integrate the polynomial through some points exactly."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["weights"]


def weights(points: Sequence[float], moments: Sequence[float]) -> list[float]:
    r"""The integrals :math:`w_j = \int K(u)\, L_j(u)\, du` of the Lagrange polynomials of the points.

    ``moments``: :math:`m_p = \int K(u)\, u^p\, du`, p = 0 … (number of points - 1), of the kernel K.
    With :math:`L_j(u) = \prod_{i \ne j} (u - u_i) / (u_j - u_i)`, :math:`\sum_j w_j f(u_j) = \int K f`
    for every polynomial f of that degree.
    """
    found = []
    for j, here in enumerate(points):
        basis = [1.0]  # coefficients of L_j, the constant first
        for other in (*points[:j], *points[j + 1 :]):
            raised, kept = [0.0, *basis], [*basis, 0.0]  # u times it, and it
            basis = [(u - other * v) / (here - other) for u, v in zip(raised, kept, strict=True)]
        found.append(sum(c * m for c, m in zip(basis, moments, strict=True)))
    return found
