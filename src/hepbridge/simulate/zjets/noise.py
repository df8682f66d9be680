"""Random numbers of the detector: a sequence for each event, whatever else is simulated with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from hepbridge.core.rng import stream

__all__ = ["Noise", "log_normal"]

Floats = NDArray[np.float64]


class Noise:
    """Uniform and normal numbers for the particles or towers of many events.

    Args:
        seed, uid: name the sequences, with the row of the event.
        rows: (N,) the rows of the events.
    """

    def __init__(self, seed: int, uid: int, rows: NDArray[np.int64]) -> None:
        self._streams = [stream(seed, "zjets detector", uid, int(row)) for row in rows]

    def uniform(self, event: NDArray[np.int64], width: int = 1) -> Floats:
        """The next numbers in [0, 1), (M, width), for M rows of ascending ``event`` 0 … N - 1."""
        counts = np.bincount(event, minlength=len(self._streams))
        pairs = zip(self._streams, counts, strict=True)
        drawn = [s.random((k, width)) for s, k in pairs]
        return np.concatenate([np.empty((0, width)), *drawn])

    def normal(self, event: NDArray[np.int64]) -> Floats:
        """The next standard normal numbers (M,), by inversion."""
        out: Floats = ndtri(np.maximum(self.uniform(event)[:, 0], 2.0**-54))
        return out


def log_normal(mean: Floats, sigma: Floats, normal: Floats) -> Floats:
    """Log-normal numbers of the given mean and standard deviation; 0 where the mean is 0.

    exp(a + b g) with b² = ln(1 + σ²/μ²) and a = ln μ - b²/2, g standard normal. Delphes smears with it:
    what is measured stays positive, and right on average.
    """
    positive = mean > 0
    safe = np.where(positive, mean, 1.0)
    b2 = np.log1p((sigma / safe) ** 2)
    return np.where(positive, np.exp(np.log(safe) - b2 / 2 + np.sqrt(b2) * normal), 0.0)
