"""Do the data lie where the response was simulated? Beyond it, an unfolding extrapolates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hepbridge.core.errors import DataError
from hepbridge.data.tables import Table

__all__ = ["support"]

TAIL = 1e-3  # on each side of a column: what is beyond is thinly simulated
_UNLIKELY = 1e-3  # probability below which more data in the tails are told of


def support(
    response: Table, data: Table, names: Sequence[str], *, tail: float = TAIL
) -> dict[str, Any]:
    """Where the data (detector level) lie beyond the simulated events of the response.

    For each column ``outside``, the number and fraction of data events beyond the smallest and largest
    simulated value, or undefined where no simulated one is; and ``tails``, those beyond the quantiles
    ``tail`` and 1 − ``tail`` of the simulation, ``expected`` if both have one distribution, with the
    probability of as many or more. ``any``: events outside in one column or more. Each column is looked at by
    itself: combinations that were never simulated are not seen. Weights do not enter.

    Raises DataError for columns that are not there or have no value in the response.
    """
    from scipy.stats import binom

    if not 0 < tail < 0.5:
        raise DataError(f"the tail is a fraction between 0 and 0.5, not {tail}")
    n, anywhere, rows = len(data), np.zeros(len(data), bool), {}
    for name in names:
        simulated = response.column(name)[response.is_defined(name)]
        if not len(simulated):
            raise DataError(f"column {name!r} of the response has no value in any event")
        seen, there = data.column(name, response.units[name]), data.is_defined(name)
        low, high = float(simulated.min()), float(simulated.max())
        inner = np.quantile(simulated, [tail, 1 - tail])
        # of discrete values more than the tail may lie at its quantile: count strictly beyond
        share = float(((simulated < inner[0]) | (simulated > inner[1])).sum() / len(response))
        below, above = there & (seen < low), there & (seen > high)
        novel = ~there if name not in response.defined else np.zeros(n, bool)
        outside = below | above | novel
        beyond = int((there & ((seen < inner[0]) | (seen > inner[1]))).sum())
        p = float(binom.sf(beyond - 1, n, min(1.0, share + 1.0 / len(response))))
        anywhere |= outside
        rows[name] = {
            "low": low,
            "high": high,
            "below": int(below.sum()),
            "above": int(above.sum()),
            "undefined": int(novel.sum()),
            "outside": int(outside.sum()),
            "fraction": float(outside.mean()),
            "tails": beyond,
            "tails_fraction": beyond / n,
            "expected": share,
            "p": p,
            "unlikely": p < _UNLIKELY,
        }
    return {
        "n": n,
        "n_response": len(response),
        "tail": tail,
        "any": int(anywhere.sum()),
        "any_fraction": float(anywhere.mean()),
        "columns": rows,
    }
