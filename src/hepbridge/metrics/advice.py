"""What so many showers can see, and how many showers a goal needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from hepbridge.metrics.distance import Entries, Floats
from hepbridge.metrics.floor import Floor
from hepbridge.metrics.verdict import Z95

__all__ = ["GOAL", "Advice", "advise", "mean_error"]

GOAL = 0.03  # excess in standard deviations of the observable


@dataclass(frozen=True)
class Advice:
    """What a row with ``n`` showers per sample can say, in standard deviations of the observable.

    Attributes:
        resolves: a difference (EMD of the two truths) that is found with 95 % probability: smaller
            ones may well go unseen.
        limit: the 95 % upper limit on the excess that a perfect candidate gets: nothing smaller
            can be promised.
        goal: the excess that should be resolved or excluded.
        n_resolve, n_limit: showers per sample for ``resolves``, ``limit`` = ``goal``.
    """

    n: int
    resolves: float
    limit: float
    goal: float
    n_resolve: int
    n_limit: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def advise(floor: Floor, n: int, std_ref: float, error: float, goal: float = GOAL) -> Advice | None:
    r"""Advice from the floor at n showers; None where ``ref`` does not vary.

    .. math::

        \text{resolves} = \frac{q_{95} + 1.645\, s}{\sigma}, \qquad
        \text{limit} = \frac{1.645 \sqrt{2 \cdot 2 \sigma_\text{floor}^2}}{\sigma}, \qquad
        n_\text{goal} = n \left(\frac{\text{resolves, limit}}{\text{goal}}\right)^2

    q₉₅ and σ_floor are the floor's 95 % quantile and scatter, s = ``error`` is the standard error of
    the difference of the two means (`mean_error`), σ = ``std_ref``. The distance of two samples is
    on average at least that D of their truths (a norm is convex), and scatters by at most s, where
    each shower gives one value: replacing one shower moves an EMD by at most |x − x'| / n, and
    Efron and Stein's inequality adds up the 2n squares. So D ≥ q₉₅ + 1.645 s lies above q₉₅ with
    95 % probability, whatever the difference is. For observables of many entries per shower
    (spectra, profiles) this holds for differences that move all entries alike.

    ``limit`` is that of `hepbridge.metrics.verdict.excess`, with the floor's scatter also in place
    of the bootstrap's, which for a perfect candidate is about the same. Everything falls with √n,
    because the floor does.

    At n = 4,000 Gaussian values resolve a difference of 0.08 σ and limit the excess to 0.04 σ.
    """
    if not std_ref > 0:
        return None
    resolves = (floor.q95 + Z95 * error) / std_ref
    limit = 2.0 * Z95 * floor.std / std_ref
    needed = (int(np.ceil(n * (found / goal) ** 2)) for found in (resolves, limit))
    return Advice(n, resolves, limit, goal, *needed)


def mean_error(first: Entries, second: Entries | None = None) -> float:
    """Standard error of the difference of the means of two samples of n showers like ``first``.

    ``√(2 Σ_i a_i²)`` with the influence ``a_i = (sum of the values of shower i − mean · its mass) /
    total mass``: the ratio estimator with the shower as the unit. √(2 / n) σ for one value each.
    With ``second``, whose shower i has the incident energy of shower i of ``first``, it is
    ``√(Σ_i (a_i − b_i)²)``: the spread of the incident energies is in both, and is no error.
    """
    a = _influence(first)
    if second is None:
        return float(np.sqrt(2.0 * a @ a))
    difference = a - _influence(second)
    return float(np.sqrt(difference @ difference))


def _influence(entries: Entries) -> Floats:
    mass = np.ones(len(entries.values)) if entries.total_mass is None else entries.total_mass
    values = entries.values.astype(np.float64)
    mean = np.average(values, weights=mass)
    owner = np.arange(entries.n) if entries.owner is None else entries.owner
    influence: Floats = np.bincount(owner, mass * (values - mean), minlength=entries.n) / mass.sum()
    return influence
