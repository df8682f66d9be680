"""Which rows may be called different when many are looked at: error control over all rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hepbridge.metrics.distance import Floats
from hepbridge.metrics.floor import Floor

__all__ = ["adjusted_p"]


def adjusted_p(distances: Sequence[float], floors: Sequence[Floor]) -> Floats:
    r"""p-values (rows,), corrected for the number of rows, from the maximum of all rows.

    .. math::

        t_j = \frac{\mathrm{EMD}_j - \text{mean floor}_j}{\sigma_{\text{floor},j}}, \qquad
        p_j = \frac{1 + \#\{s: \max_i t_{si} \ge t_j\}}{S + 1}

    with the splits s = 1 … S of the floors: how often the *largest* of all rows of a full
    simulation is as large as this row (Westfall & Young 1993, single step). The chance that any row
    of a perfect candidate gets p ≤ α is at most about α, and rows that are correlated are not
    punished for it, as a Bonferroni correction would.

    ``min(p)`` is a verdict of its own. It finds one row that is far off, to which the *number* of
    rows above the floor's quantile is blind; that number in turn finds many rows that are a
    little off. Rows of several sets are given together: their splits are independent, so pairing
    them by number is as good as any other pairing.

    A row whose floor does not vary has p = 1 at or below its floor, and the smallest possible above.
    """
    t, null = [], []
    for distance, floor in zip(distances, floors, strict=True):
        scale = floor.std
        if scale > 0:
            t.append((distance - floor.mean) / scale)
            null.append((floor.distances - floor.mean) / scale)
        else:
            t.append(np.inf if distance > floor.q95 else -np.inf)
    splits = len(floors[0].distances)
    largest = np.max(null, axis=0) if null else np.full(splits, -np.inf)
    return np.array([(1 + (largest >= value).sum()) / (splits + 1) for value in t])
