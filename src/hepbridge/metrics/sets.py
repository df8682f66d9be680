"""Which rows are compared: one `SampleSet` per fixed incident energy, or one mixed set."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.rng import stream
from hepbridge.core.units import GEV
from hepbridge.metrics.energies import MAX_FIXED
from hepbridge.metrics.kinds import S, kind_of, require_samples

__all__ = [
    "MAX_FIXED",
    "MIN_SHOWERS",
    "SampleSet",
    "check_distinct",
    "check_names",
    "check_row_energies",
    "check_samples",
    "fixed_energies",
    "make_sets",
]

log = logging.getLogger(__name__)

MIN_SHOWERS = 50  # fewer say nothing about a distribution
_TOLERANCE = 1e-4  # relative difference at which incident energies count as equal


@dataclass(frozen=True)
class SampleSet(Generic[S]):
    """Samples of equal size that are compared with each other.

    ``incident_energy`` is in MeV, None at mixed energies; there, row i of every sample has the
    same incident energy. ``floor_source`` is "ref2", "split" (``ref2`` is one half of what was
    given as reference) or None (no floor).
    """

    label: str
    incident_energy: float | None
    ref: S
    ref2: S | None
    candidates: dict[str, S]
    floor_source: str | None

    @property
    def n(self) -> int:
        return len(self.ref)

    @property
    def mixed(self) -> bool:
        return self.incident_energy is None

    def every(self) -> dict[str, S]:
        """All samples by name, "ref" and maybe "ref2" first."""
        second = {} if self.ref2 is None else {"ref2": self.ref2}
        return {"ref": self.ref, **second, **self.candidates}


def fixed_energies(showers: S) -> NDArray[np.float64] | None:
    """The incident energies (MeV), if at most 10 with at least 50 showers each; else None."""
    values, counts = np.unique(showers.incident_energy, return_counts=True)
    if len(values) > MAX_FIXED or counts.min() < MIN_SHOWERS:
        return None
    return values


def make_sets(
    ref: S, candidates: Mapping[str, S], ref2: S | None, *, seed: int = 0
) -> list[SampleSet[S]]:
    """Cut samples into sets of equal size n, the smallest sample's; longer samples lose their tail.

    Without ``ref2`` a fixed-energy reference is split at random into two halves, and everything
    is compared at the size of a half, because a floor only fits distances at its own n.

    Raises DataError for too few showers, another geometry, or other incident energies than ``ref``,
    for cells in another unit than the incident energies (`hepbridge.data.response`), and as
    `check_distinct` does.
    """
    others = dict(candidates) if ref2 is None else {**candidates, "ref2": ref2}
    check_samples(ref, others)
    for name, sample in {"ref": ref, **others}.items():
        kind_of(sample).check_units(sample, repr(name))
    energies = fixed_energies(ref)
    if energies is None:
        sets = [_mixed(ref, others)]
        check_distinct(ref, others)
        return sets
    for name, sample in others.items():
        strange = ~np.isclose(sample.incident_energy[:, None], energies, rtol=_TOLERANCE).any(
            axis=1
        )
        if strange.any():
            row = int(np.flatnonzero(strange)[0])
            raise DataError(
                f"{name!r} has {int(strange.sum())} showers at incident energies that the "
                f"reference does not have (first: row {row} at "
                f"{sample.incident_energy[row] / GEV:g} GeV); the reference has "
                f"{', '.join(f'{e / GEV:g}' for e in energies)} GeV"
            )
    sets = [_fixed(float(e), ref, others, seed) for e in energies]
    check_distinct(ref, others)
    return sets


def check_samples(ref: S, others: Mapping[str, S]) -> None:
    """Raise DataError unless all samples share a geometry that has rows and can be weighted."""
    require_samples({"ref": ref, **others})
    kind_of(ref).check(ref, others)


def check_distinct(ref: S, others: Mapping[str, S]) -> None:
    """Raise DataError for a ``ref2`` with showers of the reference (equal event ids and cells).

    It would make a floor of nothing. Warns of candidates that have showers of either.
    """
    for name, sample in others.items():
        for whose, full in {"the reference": ref, "ref2": others.get("ref2")}.items():
            if full is None or name == whose or not (twice := _in_common(full, sample)):
                continue
            words = f"{name!r} has {twice} showers of {whose} (equal event ids and cells)"
            if name == "ref2":
                raise DataError(f"{words}; the floor needs an independent second full simulation")
            log.warning("%s: it is no independent sample, and looks closer than it is", words)


def _in_common(a: S, b: S) -> int:
    """How many showers two samples share: equal event ids, and equal in `Kind.learnt`.

    Ids alone are those of particles, of which each simulation makes a shower of its own.
    """
    if not np.isin(np.unique(a.event_ids[:, 0]), b.event_ids[:, 0]).any():
        return 0  # the usual case
    at = {event: row for row, event in enumerate(map(tuple, b.event_ids.tolist()))}
    shared = [(k, at[e]) for k, e in enumerate(map(tuple, a.event_ids.tolist())) if e in at]
    if not shared:
        return 0
    mine, theirs = np.array(shared).T
    first, second = kind_of(a).learnt(a[mine]), kind_of(b).learnt(b[theirs])
    return int(np.isclose(first, second, rtol=_TOLERANCE).all(axis=1).sum())


def check_names(names: Mapping[str, object]) -> None:
    """Raise ConfigError unless the candidates' names can stand in tables and file names."""
    if not isinstance(names, Mapping):
        raise ConfigError(
            f'candidates must be given by name, {{"refined": refined}}, got {type(names).__name__}'
        )
    if not names:
        raise ConfigError(
            "there is no candidate to evaluate; give at least one, as name -> showers"
        )
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*", name):
            raise ConfigError(
                f"candidate name {name!r} is not allowed: start with a letter or digit, then "
                "letters, digits, space, and . _ + -"
            )
        if name in ("ref", "ref2", "floor"):
            raise ConfigError(f"candidate name {name!r} is reserved; choose another")


def check_row_energies(ref: S, sample: S, name: str) -> None:
    """Raise DataError unless row i of both has the same incident energy (1e-4 relative)."""
    n = min(len(ref), len(sample))
    mine, theirs = sample.incident_energy[:n], ref.incident_energy[:n]
    wrong = ~np.isclose(mine, theirs, rtol=_TOLERANCE, atol=0.0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"at mixed incident energies, row i of {name!r} must have the incident energy of row i "
            f"of the reference; {int(wrong.sum())} of {n} rows differ (first: row {row}, "
            f"{mine[row] / GEV:g} GeV against {theirs[row] / GEV:g} GeV)"
        )


def _fixed(energy: float, ref: S, others: Mapping[str, S], seed: int) -> SampleSet[S]:
    label = f"{energy / GEV:g} GeV"
    ref = ref[ref.incident_energy == energy]
    at = {
        name: s[np.isclose(s.incident_energy, energy, rtol=_TOLERANCE, atol=0.0)]
        for name, s in others.items()
    }
    source = "ref2"
    if "ref2" not in at:
        source = "split"
        order = stream(seed, "reference halves", label).permutation(len(ref))
        half = len(ref) // 2
        at["ref2"] = ref[np.sort(order[half : 2 * half])]
        ref = ref[np.sort(order[:half])]
    return _cut(label, energy, ref, at, source)


def _mixed(ref: S, others: Mapping[str, S]) -> SampleSet[S]:
    for name, sample in others.items():
        check_row_energies(ref, sample, name)
    return _cut("mixed", None, ref, others, "ref2" if "ref2" in others else None)


def _cut(
    label: str,
    energy: float | None,
    ref: S,
    others: Mapping[str, S],
    source: str | None,
) -> SampleSet[S]:
    sizes = {"ref": len(ref), **{name: len(s) for name, s in others.items()}}
    n = min(sizes.values())
    if n < MIN_SHOWERS:
        halved = (
            "; a reference without a second sample is split in half" if source == "split" else ""
        )
        raise DataError(
            f"{label}: too few showers: {', '.join(f'{k} {v}' for k, v in sizes.items())}; "
            f"at least {MIN_SHOWERS} of each are needed{halved}"
        )
    cut = {name: s[:n] for name, s in others.items()}
    ref2 = cut.pop("ref2", None)
    return SampleSet(label, energy, ref[:n], ref2, cut, source)
