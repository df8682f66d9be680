"""The formulas of GFLASH: how a shower's profiles follow from its energy and the medium.

Grindhammer & Peters, hep-ex/0001020, appendix A, with the numbers of Geant4 where the two differ
(docs/gflash.md). Energies in GeV in the logarithms, depths in radiation lengths, y = E / E_c.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from hepbridge.simulate.gflash.compiled import compiled
from hepbridge.simulate.gflash.medium import Medium

__all__ = ["Profile", "Radial", "exponentials", "origins", "profile", "radial"]


class Profile(NamedTuple):
    """One shower's longitudinal profile, drawn from their distribution.

    The energy follows f(t) = β (βt)^(α-1) exp(-βt) / Γ(α), and so does the number of spots.

    Attributes:
        alpha, beta: of the energy.
        spots: number of spots.
        spot_alpha, spot_beta: of the number of spots.
        tau: what turns a depth t into τ, the depth in units of the centre of gravity.
        log_e: ln(E / GeV).
    """

    alpha: float
    beta: float
    spots: float
    spot_alpha: float
    spot_beta: float
    tau: float
    log_e: float


class Radial(NamedTuple):
    """f(r) = p 2rR_c²/(r²+R_c²)² + (1-p) 2rR_t²/(r²+R_t²)² at one depth, R_c and R_t in mm."""

    core: float
    r_core: float
    r_tail: float


# Below some 50 MeV the logarithms run out of their range; these keep the profile a profile.
_LEAST_T, _LEAST_ALPHA, _MOST_SIGMA = 0.1, 1.1, 0.5


@compiled
def _spread(offset: float, slope: float, log_y: float) -> float:
    """σ(ln T) or σ(ln α) = 1 / (offset + slope ln y), at most 0.5."""
    inverse = offset + slope * log_y
    return 1.0 / inverse if inverse > 1.0 / _MOST_SIGMA else _MOST_SIGMA


@compiled
def profile(medium: Medium, energy_mev: float, g1: float, g2: float) -> Profile:
    """The profile of a shower for two standard normal numbers.

    ln T and ln α (T = (α-1)/β: depth of the maximum) are normal with correlation ρ.
    """
    log_e = math.log(energy_mev / 1000.0)
    log_y = math.log(energy_mev / medium.critical_mev)
    t = max(log_y - 0.812, _LEAST_T)
    alpha = max(0.81 + (0.458 + 2.26 / medium.z) * log_y, _LEAST_ALPHA)
    if medium.sampling > 0.0:
        t = max(t - 0.55 * medium.sampling - 0.69 * (1.0 - medium.ehat), _LEAST_T)
        alpha = max(alpha - 0.476 * medium.sampling, _LEAST_ALPHA)
        sigma_t, sigma_a = _spread(-2.5, 1.25, log_y), _spread(-0.82, 0.79, log_y)
        rho = 0.784 - 0.023 * log_y
    else:
        sigma_t, sigma_a = _spread(-1.4, 1.26, log_y), _spread(-0.58, 0.86, log_y)
        rho = 0.705 - 0.023 * log_y
    rho = min(max(rho, -1.0), 1.0)
    together, apart = math.sqrt((1.0 + rho) / 2.0), math.sqrt((1.0 - rho) / 2.0)
    mean_alpha = alpha
    t *= math.exp(sigma_t * (together * g1 + apart * g2))
    alpha = max(alpha * math.exp(sigma_a * (together * g1 - apart * g2)), _LEAST_ALPHA)
    if medium.sampling > 0.0:
        spots = 10.3 / medium.resolution * math.exp(0.959 * log_e)
        spot_t = t * (0.813 + 0.0019 * medium.z)
        spot_alpha = alpha * (0.844 + 0.0026 * medium.z)
    else:
        spots = 93.0 * math.log(medium.z) * math.exp(0.876 * log_e)
        spot_t = t * (0.698 + 0.00212 * medium.z)
        spot_alpha = alpha * (0.639 + 0.00334 * medium.z)
    # τ = t / <t> of this shower, times what the mean shower has as ratio of <t> to T
    tau = (alpha - 1.0) / (alpha * t) * mean_alpha / (mean_alpha - 1.0)
    return Profile(
        alpha, (alpha - 1.0) / t, spots, spot_alpha, (spot_alpha - 1.0) / spot_t, tau, log_e
    )


@compiled
def exponentials(log_e: float, tau: float) -> tuple[float, float, float]:
    """exp(-τ/p_3), exp(k_3 τ) and exp(k_4 τ) of the radial profile.

    In even steps of τ each is a geometric sequence, which is how the kernel gets them.
    """
    return (
        math.exp(-tau / (1.313 - 0.0686 * log_e)),
        math.exp(-2.59 * tau),
        math.exp((0.3585 + 0.0412 * log_e) * tau),
    )


@compiled
def radial(
    medium: Medium,
    log_e: float,
    tau: float,
    powers: tuple[float, float, float],
    origin: tuple[float, float, float],
) -> Radial:
    """Weight of the core and the radii of core and tail at depth ``tau``.

    ``powers`` are the exponentials of ``tau``, ``origin`` what they are multiplied with, from
    `origins`.
    """
    z = medium.z
    r_core = 0.0251 + 0.00319 * log_e + (0.1162 - 0.000381 * z) * tau
    x = origin[0] * powers[0]
    core = (2.632 - 0.00094 * z) * x * math.exp(-x)
    r_tail = origin[1] * powers[1] + origin[2] * powers[2]
    if medium.sampling > 0.0:
        passive, thin = 1.0 - medium.ehat, medium.sampling * math.exp(-tau)
        near = medium.sampling * math.exp(-((tau - 1.0) ** 2))
        r_core += 0.0397 * thin - 0.0203 * passive
        r_tail -= 0.495 * thin + 0.14 * passive
        core += passive * (0.348 - 0.642 * near)
    core = min(max(core, 0.0), 1.0)
    return Radial(core, abs(r_core) * medium.moliere_mm, abs(r_tail) * medium.moliere_mm)


@compiled
def origins(medium: Medium, log_e: float) -> tuple[float, float, float]:
    """exp(p_2/p_3), k_1 exp(-k_3 k_2) and k_1 exp(-k_4 k_2)."""
    p2, k1, k2 = 0.401 + 0.00187 * medium.z, 0.659 - 0.00309 * medium.z, 0.645
    _, a, b = exponentials(log_e, k2)
    return math.exp(p2 / (1.313 - 0.0686 * log_e)), k1 / a, k1 / b
