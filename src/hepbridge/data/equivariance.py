"""How directions and positions move under the symmetries of a detector, and which of them hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers

__all__ = ["invariant_elements", "plane_matrices"]

Floats = NDArray[np.float64]

_EXACT = 1e-6  # of a distance in the detector
_MIN_HIT_SHARE = 0.05  # a cell that is nearly always empty has no normal mean
_MOST_CELLS, _MOST_ROWS = 100, 20_000


def plane_matrices(geometry: Geometry) -> Floats | None:
    """The matrices A (g, 2, 2) that go with ``geometry.permutations()`` (g, n_cells).

    Element k of the symmetry turns a shower with cells E into one with cells ``E[permutation k]``, and
    every vector v of the (x, y) plane into :math:`A_k v`: cell i has what cell ``permutation[i]`` had,
    so :math:`A_k` carries the centre of the latter to that of the former. None if the positions of
    the cells are not known or do not fix the matrices (rings that are not cut into sectors).
    """
    permutations = geometry.permutations()
    if len(permutations) > 1 and not geometry.layers and geometry.axes[-2:] != ("x", "y"):
        return None
    if len(permutations) == 1:
        return np.eye(2)[None]
    centres = np.stack([geometry.x_mm, geometry.y_mm], axis=1)
    centres = centres / max(float(np.abs(centres).max()), 1e-12)
    if np.linalg.matrix_rank(centres, tol=1e-6) < 2:
        return None
    matrices = np.stack([(np.linalg.pinv(centres[p]) @ centres).T for p in permutations])
    exact = all(
        np.abs(centres[p] @ a.T - centres).max() < _EXACT
        for p, a in zip(permutations, matrices, strict=True)
    )
    return np.round(matrices, 12) if exact else None


def invariant_elements(
    showers: Showers,
    columns: Mapping[str, Floats],
    matrices: Mapping[str, Floats],
    *,
    alpha: float = 1e-4,
) -> list[int]:
    """Numbers of the symmetry elements under which showers and conditions *together* are invariant.

    An element turns cells and vectors at once. It is kept unless some mean of the statistics

    .. math:: h_i, \\quad c_k, \\quad h_i c_k, \\qquad h_i = \\sqrt{E_i / \\textstyle\\sum_j E_j}

    of the most energetic cells differs between the sample and its image: the differences of each row
    are tested against zero, the largest pull with Bonferroni's correction at level ``alpha``. The first
    two sets of means say whether sample and image cover the same conditions, the last whether the
    response at a condition is that at its image. Kept elements that are no group are not used: [0],
    the identity, is left.

    Args:
        showers: N of them; weights are not used.
        columns: name -> (N, k) conditions.
        matrices: name -> (g, k, k) how these move; those without are scalars.
    """
    moves = showers.geometry.permutations()
    showers = showers[:_MOST_ROWS]
    columns = {name: value[:_MOST_ROWS] for name, value in columns.items()}
    h = np.sqrt(showers.cells / np.maximum(showers.e_sum, 1e-12)[:, None])
    often = (h > 0).mean(axis=0) >= _MIN_HIT_SHARE
    tested = np.argsort(-np.where(often, h.mean(axis=0), -1), kind="stable")[:_MOST_CELLS]
    tested = tested[often[tested]]
    c = np.concatenate(list(columns.values()), axis=1)
    kept = [0]
    for element in range(1, len(moves)):
        image = np.concatenate(
            [
                value @ matrices[name][element].T if name in matrices else value
                for name, value in columns.items()
            ],
            axis=1,
        )
        a, b = h[:, tested], h[:, moves[element][tested]]
        differences = [a - b, c - image]
        differences += [a * c[:, k : k + 1] - b * image[:, k : k + 1] for k in range(c.shape[1])]
        d = np.concatenate(differences, axis=1)
        error = d.std(axis=0, ddof=1) / len(d) ** 0.5
        scale = np.abs(np.concatenate([h.max(axis=0), np.abs(c).max(axis=0)])).max()
        real = error > 1e-9 * scale
        pulls = np.abs(d.mean(axis=0)[real]) / error[real]
        least = alpha / max(int(real.sum()), 1)
        if not real.any() or 2 * (1 - ndtr(pulls.max())) >= least:
            kept.append(element)
    return kept if _closed(moves[kept]) else [0]


def _closed(moves: NDArray[np.int64]) -> bool:
    """Do the permutations (g, n) form a group?"""
    known = {tuple(move) for move in moves.tolist()}
    return all(tuple(a[b].tolist()) in known for a in moves for b in moves)
