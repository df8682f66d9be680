"""Few incident energies, or a spectrum of them?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_FIXED", "counts_alike"]

MAX_FIXED = 10  # more distinct incident energies than this are a spectrum


def counts_alike(incident_energy: NDArray[np.float64]) -> NDArray[np.int64]:
    """For every shower the number of showers of its incident energy; in a spectrum of all."""
    values, index, counts = np.unique(incident_energy, return_inverse=True, return_counts=True)
    if len(values) > MAX_FIXED:
        return np.full(len(incident_energy), len(incident_energy))
    alike: NDArray[np.int64] = counts[index]
    return alike
