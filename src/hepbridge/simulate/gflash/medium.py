"""What GFLASH has to know of a detector: an effective medium, and where its energy becomes visible."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError
from hepbridge.simulate.detector import Detector
from hepbridge.simulate.materials import Material, material

__all__ = ["Medium", "Stack", "medium_of", "stack_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SCATTERING_ENERGY_MEV = 21.2
STEP_X0 = 0.1
SAMPLING_SHARE = 0.05  # of the radiation lengths that are passive: below, a medium is homogeneous


class Medium(NamedTuple):
    """An effective medium: mass-weighted means over all slabs (hep-ex/0001020, section 3).

    Attributes:
        z: effective atomic number.
        x0_mm: radiation length.
        critical_mev: critical energy.
        moliere_mm: Molière radius.
        sampling: radiation lengths between active slabs, 1 / F_S; 0 in a homogeneous medium.
        ehat: e/mip = 1 / (1 + 0.007 (Z_passive - Z_active)); 1 in a homogeneous medium.
        resolution: sampling fluctuations c in σ(E)/E = c / sqrt(E/GeV); 0 in a homogeneous medium.
    """

    z: float
    x0_mm: float
    critical_mev: float
    moliere_mm: float
    sampling: float
    ehat: float
    resolution: float


class Stack(NamedTuple):
    """The steps of a shower along z, K of them, with the layer that sees each.

    Attributes:
        depth: (K + 1,) edges in radiation lengths below the front face.
        log_depth: (K + 1,) its logarithm.
        z_mm: (K + 1,) the same edges in mm.
        layer: (K,) layer, -1 where nothing sees the shower.
        visible: (K,) part of the energy of a step that its layer sees.
    """

    depth: Floats
    log_depth: Floats
    z_mm: Floats
    layer: Ints
    visible: Floats


@dataclass(frozen=True)
class _Slab:
    """A slab and its thickness in mm, in radiation lengths and in MeV that a MIP loses."""

    material: Material
    mm: float
    layer: int
    active: bool

    @property
    def depth(self) -> float:
        return self.mm / self.material.x0_mm

    @property
    def mip(self) -> float:
        return self.mm * self.material.mip_mev_per_mm


def _slabs(detector: Detector) -> list[_Slab]:
    known = {s.material: material(s.material, detector.materials) for s in detector.slabs()}
    return [
        _Slab(known[s.material], s.z1_mm - s.z0_mm, s.layer, s.active) for s in detector.slabs()
    ]


def medium_of(
    detector: Detector, *, published: bool = False, resolution: float | None = None
) -> Medium:
    """The effective medium of a detector.

    The critical energy is Rossi's, E_c = 2.66 MeV (X0 Z/A)^1.1 with X0 in g/cm², and the Molière
    radius follows from it. In a homogeneous medium, unless it is to be as ``published``, it is that
    of Geant4's GFlashHomoShowerParameterisation, which inserts X0 in mm (docs/gflash.md).

    The sampling fluctuations are as given or Wigmans' estimate for a gap of d mm of active material
    that sees a fraction f of minimum ionising particles: c = 2.7 % sqrt(d / f) (Calorimetry, Oxford
    2000, chapter 4).

    Raises:
        ConfigError: ``resolution`` is not between 0.001 and 10, or is given for a homogeneous
            medium.
    """
    if resolution is not None and not 0.001 <= resolution <= 10:
        raise ConfigError(f"resolution must be between 0.001 and 10, got {resolution!r}")
    slabs = _slabs(detector)
    mass = sum(s.mm * s.material.density_g_cm3 for s in slabs)
    weights = [s.mm * s.material.density_g_cm3 / mass for s in slabs]
    density = mass / sum(s.mm for s in slabs)
    z = sum(w * s.material.z_eff for w, s in zip(weights, slabs, strict=True))
    a = sum(w * s.material.a_eff for w, s in zip(weights, slabs, strict=True))
    x0_g = 1 / sum(w / s.material.x0_g_cm2 for w, s in zip(weights, slabs, strict=True))
    x0_mm = 10 * x0_g / density
    passive = sum(s.depth for s in slabs if not s.active)
    if passive <= SAMPLING_SHARE * sum(s.depth for s in slabs):
        if resolution is not None:
            raise ConfigError(
                f"detector {detector.name!r} is homogeneous (at most {SAMPLING_SHARE:.0%} of its "
                "radiation lengths are passive) and has no sampling fluctuations: leave resolution "
                "out"
            )
        critical = 2.66 * math.pow((x0_g if published else x0_mm) * z / a, 1.1)
        return Medium(z, x0_mm, critical, x0_mm * SCATTERING_ENERGY_MEV / critical, 0.0, 1.0, 0.0)
    # MIPs lose E_c in one radiation length; per mass, losses of the materials add up
    lost = sum(
        w * s.material.critical_energy_mev / s.material.x0_g_cm2
        for w, s in zip(weights, slabs, strict=True)
    )
    active = [s for s in slabs if s.active]
    units = len(_groups(slabs))
    ehat = 1 / (1 + 0.007 * (_mean_z(slabs, active=False) - _mean_z(slabs, active=True)))
    fraction = sum(s.mip for s in active) / sum(s.mip for s in slabs)
    gap = sum(s.mm for s in active) / units
    return Medium(
        z,
        x0_mm,
        x0_g * lost,
        10 / density * SCATTERING_ENERGY_MEV / lost,
        sum(s.mm for s in slabs) / units / x0_mm,
        ehat,
        resolution or 0.027 * math.sqrt(gap / fraction),
    )


def _mean_z(slabs: list[_Slab], *, active: bool) -> float:
    """Mean Z, weighted by radiation lengths: thin light layers do not shower."""
    chosen = [s for s in slabs if s.active == active]
    return sum(s.depth * s.material.z_eff for s in chosen) / sum(s.depth for s in chosen)


def _groups(slabs: list[_Slab]) -> list[list[int]]:
    """Runs of neighbouring active slabs, as lists of their numbers."""
    groups: list[list[int]] = []
    for i, s in enumerate(slabs):
        if s.active:
            if groups and groups[-1][-1] == i - 1:
                groups[-1].append(i)
            else:
                groups.append([i])
    return groups


def stack_of(detector: Detector, medium: Medium) -> Stack:
    """The steps: 0.1 X0 or less, cut where another layer begins to see the shower.

    An active slab samples the shower as it is *there*, so it stands for the depth from the middle
    of the gap before it to the middle of the gap behind it; beyond the outermost active slabs half
    of the next gap is taken. A layer sees the part of the energy that minimum ionising particles
    leave in its active slabs, times e/mip.
    """
    slabs = _slabs(detector)
    depth = np.concatenate([[0.0], np.cumsum([s.depth for s in slabs])])
    z_mm = np.concatenate([[0.0], np.cumsum([s.mm for s in slabs])])
    groups = _groups(slabs)
    gaps = [depth[b[0]] - depth[a[-1] + 1] for a, b in itertools.pairwise(groups)]
    first, last = (gaps[0] / 2, gaps[-1] / 2) if gaps else (0.0, 0.0)
    # a MIP's loss in one radiation length of the whole
    mip = sum(s.mip for s in slabs) / depth[-1]
    edges, layers, visible = [0.0], [-1], [0.0]
    for number, group in enumerate(groups):
        begin, end = depth[group[0]], depth[group[-1] + 1]
        before = gaps[number - 1] / 2 if number else min(first, begin)
        after = gaps[number] / 2 if number < len(gaps) else last
        begin, end = begin - before, end + after
        edges[-1] = begin
        for i in group:
            # neighbouring active slabs share the window of their group where they touch
            stop = end if i == group[-1] else depth[i + 1]
            seen = slabs[i].mip / (mip * (stop - begin)) * medium.ehat
            edges.append(stop)
            layers.append(slabs[i].layer)
            visible.append(seen)
            begin = stop
    return _cut(np.array([0.0, *edges]), layers, visible, depth, z_mm)


def _cut(
    edges: Floats, layers: list[int], visible: list[float], depth: Floats, z_mm: Floats
) -> Stack:
    """Windows between ``edges`` cut into steps."""
    steps, of = [0.0], []
    for number, (begin, end) in enumerate(itertools.pairwise(edges)):
        n = math.ceil((end - begin) / STEP_X0 - 1e-9)
        if n > 0:
            steps += [begin + STEP_X0 * k for k in range(1, n)] + [float(end)]
            of += [number] * n
    at = np.array(steps)
    z = np.interp(at, depth, z_mm)
    log = np.log(np.maximum(at, np.finfo(float).tiny))
    return Stack(at, log, z, np.array(layers)[of].astype(np.int64), np.array(visible)[of])
