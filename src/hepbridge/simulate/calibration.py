"""From visible to incident energy: sampling fractions and calibration factors, with their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from hepbridge.core.errors import DataError
from hepbridge.data.cells import Length
from hepbridge.data.geometry import Geometry
from hepbridge.simulate.slices import Name, Strict

__all__ = ["Calibration", "Factors", "SamplingFraction", "calibration_factors", "sampling_fraction"]

Floats = NDArray[np.float64]

_BLOCKS = 100  # of the jackknife


class Calibration(Strict):
    """Factors from visible to incident energy, one per layer (or one for all), and their origin."""

    factors: Annotated[tuple[Length, ...], Field(min_length=1)]
    source: Name


@dataclass(frozen=True)
class SamplingFraction:
    """Visible over incident energy, r = E_vis / E_inc of a shower.

    Attributes:
        value, error: mean of r and its standard error.
        resolution: standard deviation of r over its mean.
        layers, layer_errors: mean of E_layer / E_inc of every layer and its standard error; the
            layers add up to ``value``.
        n: showers.
    """

    value: float
    error: float
    resolution: float
    layers: Floats
    layer_errors: Floats
    n: int


@dataclass(frozen=True)
class Factors:
    """Calibration factors of all layers (n_layers,), and their standard errors."""

    values: Floats
    errors: Floats

    def calibration(self, source: str) -> Calibration:
        """What goes into a detector's description; ``source`` says how it was measured."""
        return Calibration(factors=tuple(float(v) for v in self.values), source=source)


def sampling_fraction(cells: ArrayLike, energy: ArrayLike, geometry: Geometry) -> SamplingFraction:
    """The sampling fraction of showers: what the active slices see of the incident energy.

    Energy that leaves the detector or misses the cells is not seen either, so this is the sampling
    fraction in the strict sense only where all of a shower is contained.

    Args:
        cells: visible energies (N, n_cells).
        energy: incident energies (N,), in the same unit.
        geometry: of the cells.

    Raises DataError for fewer than two showers, wrong shapes, or energies that are not positive.
    """
    ratios = _ratios(cells, energy, geometry)
    total, n = ratios.sum(axis=1), len(ratios)
    mean, spread = float(total.mean()), float(total.std(ddof=1))
    return SamplingFraction(
        mean,
        spread / n**0.5,
        spread / mean if mean > 0 else np.inf,
        ratios.mean(axis=0),
        ratios.std(axis=0, ddof=1) / n**0.5,
        n,
    )


def calibration_factors(
    cells: ArrayLike,
    energy: ArrayLike,
    geometry: Geometry,
    groups: Sequence[int] | None = None,
) -> Factors:
    """Factors c that make the response Σ c_g E_g / E_inc equal to 1 on average, and narrowest.

    With m the mean and S the covariance of the groups' E_g / E_inc:
    ``c = S⁻¹ m / (mᵀ S⁻¹ m)``, the linear unbiased estimator of least variance; with one group,
    c = 1 / m. Errors are those of a jackknife over (at most) 100 blocks of showers.

    Args:
        cells, energy, geometry: as for `sampling_fraction`.
        groups: for every layer the number of the group whose factor it has
            (`hepbridge.simulate.detector.Detector.equal_layers`); default: one group.

    Raises DataError as `sampling_fraction` does; for fewer than ten showers per group; and if a
    factor is not positive (a group that sees hardly anything: join it to its neighbour).
    """
    ratios = _ratios(cells, energy, geometry)
    n_layers = ratios.shape[1]
    labels = np.zeros(n_layers, dtype=np.int64) if groups is None else np.asarray(groups)
    if labels.shape != (n_layers,):
        raise DataError(f"{labels.size} groups are given, but there are {n_layers} layers")
    names, of_layer = np.unique(labels, return_inverse=True)
    if len(ratios) < 10 * len(names):
        raise DataError(
            f"{len(ratios)} showers are too few for {len(names)} factors; use ten for each"
        )
    r = ratios @ (of_layer[:, None] == np.arange(len(names))).astype(np.float64)
    if not (r.mean(axis=0) > 0).all():
        missing = names[int(np.argmin(r.mean(axis=0)))]
        raise DataError(f"the layers of group {missing} see no energy at all")
    off = r / r.mean(axis=0) - 1  # groups may differ by orders of magnitude
    blocks = np.array_split(off, min(_BLOCKS, len(off)))
    count = np.array([len(b) for b in blocks])
    first, second = (np.stack(m) for m in ([b.sum(0) for b in blocks], [b.T @ b for b in blocks]))
    best = _narrowest(count.sum(), first.sum(0), second.sum(0)) / r.mean(axis=0)
    if not (best > 0).all():
        raise DataError(
            f"the layers of group {names[int(np.argmin(best))]} would get the factor "
            f"{best.min():.3g}, which is no calibration; join the group to another one"
        )
    left_out = _narrowest(count.sum() - count, first.sum(0) - first, second.sum(0) - second)
    left_out, k = left_out / r.mean(axis=0), len(blocks)
    errors = np.sqrt((k - 1) / k * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))
    return Factors(best[of_layer], errors[of_layer])


def _narrowest(n: NDArray[np.int64] | np.int64, first: Floats, second: Floats) -> Floats:
    """S⁻¹ m / (mᵀ S⁻¹ m) from number (…), sum (…, g) and products (…, g, g) of r / r₀ - 1.

    The factors are in units of 1 / r₀. A singular S has its pseudo-inverse in place of S⁻¹.
    """
    shift = first / np.expand_dims(n, -1)
    mean = 1 + shift
    covariance = second / np.expand_dims(n, (-1, -2)) - shift[..., :, None] * shift[..., None, :]
    direction = (np.linalg.pinv(covariance, hermitian=True) @ mean[..., None])[..., 0]
    norm = (mean * direction).sum(axis=-1, keepdims=True)
    # no spread at all: any unbiased factors are as narrow
    out: Floats = np.where(norm > 0, direction, mean) / np.where(
        norm > 0, norm, (mean**2).sum(axis=-1, keepdims=True)
    )
    return out


def _ratios(cells: ArrayLike, energy: ArrayLike, geometry: Geometry) -> Floats:
    """E_layer / E_inc (N, n_layers)."""
    sums = geometry.layer_sums(np.asarray(cells))
    incident = np.asarray(energy, dtype=np.float64).reshape(-1)
    if len(incident) != len(sums):
        raise DataError(f"{len(sums)} showers but {len(incident)} incident energies")
    if len(sums) < 2:
        raise DataError(f"{len(sums)} showers are too few to measure a sampling fraction")
    if not ((incident > 0) & np.isfinite(incident)).all() or not np.isfinite(sums).all():
        raise DataError("energies must be finite, incident energies also positive")
    out: NDArray[Any] = sums / incident[:, None]
    return out
