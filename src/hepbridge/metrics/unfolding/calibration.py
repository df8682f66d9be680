r"""Are the posteriors p(x|y) of single events calibrated? Ranks of the truth among its samples.

For event i with truth t and K samples s of its posterior, the randomised rank is

.. math:: u_i = \frac{\#\{s < t\} + V_i}{K + 1}, \qquad V_i \in [0, 1 + \#\{s = t\}]\ \text{uniform}

If t and the samples are draws of one posterior, u is uniform on (0, 1) *exactly*, for every K and also with
ties and undefined values (an atom below all numbers): simulation-based calibration, arXiv:1804.06788. The
plain interval between two of K samples covers less than it says, because ranks are discrete; that of u does
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from hepbridge.core.errors import DataError
from hepbridge.metrics.distance import Floats

__all__ = ["LEVELS", "Calibration", "calibration", "ranks"]

LEVELS = (0.6827, 0.95)
_BINS = 20
_POINTS = 101  # of the curve


def ranks(samples: NDArray[Any], truth: NDArray[Any], rng: np.random.Generator) -> Floats:
    """Randomised ranks u (N,) of ``truth`` (N,) among ``samples`` (N, K); NaN is an undefined value.

    Raises DataError for other shapes, no samples, and infinities.
    """
    samples, truth = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    if samples.ndim != 2 or samples.shape[1] == 0 or truth.shape != samples.shape[:1]:
        raise DataError(
            "a calibration needs samples of shape (events, samples of each) and a truth of shape "
            f"(events,); got {samples.shape} and {truth.shape}"
        )
    if len(truth) == 0:
        raise DataError("a calibration needs events")
    if np.isinf(samples).any() or np.isinf(truth).any():
        raise DataError("posterior samples and truth must not be infinite (NaN: undefined)")
    below_all = -np.inf  # the place of what is undefined
    s = np.where(np.isnan(samples), below_all, samples)
    t = np.where(np.isnan(truth), below_all, truth)[:, None]
    less, equal = (s < t).sum(axis=1), (s == t).sum(axis=1)
    out: Floats = (less + rng.random(len(truth)) * (1 + equal)) / (samples.shape[1] + 1)
    return out


@dataclass(frozen=True)
class Calibration:
    """The calibration of the posteriors of one observable.

    Attributes:
        samples: K, for each event. effective: effective number of events.
        coverage: level -> (fraction of events within the central interval, its standard error).
        levels, curve: (P,) fraction of events with u below each level. band: (P,) its standard error if
            the posteriors are calibrated, √(p(1−p)/n).
        counts: (B,) events in equal bins of u, as a density (1: calibrated).
        chi2, ndf, p: of the counts, against uniform ones.
    """

    samples: int
    effective: float
    coverage: dict[float, tuple[float, float]]
    levels: Floats
    curve: Floats
    band: Floats
    counts: Floats
    chi2: float
    ndf: int
    p: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "n_effective": self.effective,
            "coverage": [
                {"level": level, "value": value, "sigma": sigma}
                for level, (value, sigma) in self.coverage.items()
            ],
            "levels": self.levels.tolist(),
            "curve": self.curve.tolist(),
            "band": self.band.tolist(),
            "counts": self.counts.tolist(),
            "chi2": self.chi2,
            "ndf": self.ndf,
            "p": self.p,
        }


def calibration(
    samples: NDArray[Any],
    truth: NDArray[Any],
    rng: np.random.Generator,
    *,
    weights: Floats | None = None,
    levels: Sequence[float] = LEVELS,
    bins: int = _BINS,
) -> Calibration:
    """Coverage, calibration curve and χ² of the ranks of ``truth`` (N,) among ``samples`` (N, K).

    ``coverage`` is the fraction of events with |u − 1/2| < level / 2, with the binomial error at its nominal
    value. Weighted events count as (Σw)²/Σw² ones. Raises DataError as `ranks`.
    """
    u = ranks(samples, truth, rng)
    n = len(u)
    w = np.full(n, 1.0 / n) if weights is None else np.asarray(weights) / np.sum(weights)
    if w.shape != u.shape or not (w >= 0).all():
        raise DataError("weights of a calibration are one number >= 0 for each event")
    effective = float(1.0 / (w @ w))
    grid = np.linspace(0.0, 1.0, _POINTS)
    order = np.argsort(u)
    cumulative = np.concatenate([[0.0], np.cumsum(w[order])])
    curve = cumulative[np.searchsorted(u[order], grid, side="right")]
    share = np.histogram(u, np.linspace(0, 1, bins + 1), weights=w)[0]
    statistic = float(effective * bins * ((share - 1 / bins) ** 2).sum())
    coverage = {
        float(level): (
            float(w[np.abs(u - 0.5) < level / 2].sum()),
            float(np.sqrt(level * (1 - level) / effective)),
        )
        for level in levels
    }
    return Calibration(
        int(np.shape(samples)[1]),
        effective,
        coverage,
        grid,
        curve,
        np.sqrt(grid * (1 - grid) / effective),
        share * bins,
        statistic,
        bins - 1,
        float(chi2.sf(statistic, bins - 1)),
    )
