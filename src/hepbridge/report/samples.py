"""The showers of an evaluation, cut into the sets of its tables, with the rows of those tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hepbridge.core.errors import DataError
from hepbridge.data.showers import Showers
from hepbridge.metrics.kinds import Sample
from hepbridge.metrics.sets import SampleSet, fixed_energies, make_sets

__all__ = ["DrawnSet", "Samples", "drawn_sets", "same_events"]

Samples = tuple[Any, Mapping[str, Any], Any]
"""Reference, candidates, second reference (or None): `Showers`, or `Shapes` of any calorimeter."""


@dataclass(frozen=True)
class DrawnSet:
    """One column of the figures: evaluated showers, ensembles, and the rows of the table."""

    samples: SampleSet[Any]
    bands: dict[str, list[Showers]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.samples.label

    @property
    def mixed(self) -> bool:
        return self.samples.mixed

    @property
    def title(self) -> str:
        return "Mixed incident energies" if self.mixed else f"{self.label} showers"


def drawn_sets(
    record: Mapping[str, Any],
    samples: Samples,
    mixed: Samples | None = None,
    bands: Mapping[str, Sequence[Showers]] | None = None,
) -> list[DrawnSet]:
    """The sets of an evaluation, cut as the metrics cut them: figures show what was measured.

    ``mixed`` adds a mixed-energy set to fixed ones; its distances are shown if the record has them.
    Raises DataError if the record was not made from these showers.
    """
    ref, candidates, ref2 = samples
    sets = make_sets(ref, candidates, ref2, seed=record["seed"])
    if mixed is not None:
        sets += make_sets(*mixed, seed=record["seed"])
    entries = {entry["label"]: entry for entry in record["sets"]}
    strange = entries.keys() - {s.label for s in sets}
    if strange or len({s.label for s in sets}) < len(sets):
        raise DataError(
            f"the evaluation has the sets {', '.join(entries)}, the showers "
            f"{', '.join(s.label for s in sets)}; pass the showers that were evaluated"
        )
    return [
        DrawnSet(
            s,
            _members(bands or {}, s),
            {row["observable"]: row for row in entries[s.label]["rows"]}
            if s.label in entries
            else {},
        )
        for s in sets
    ]


def _members(
    bands: Mapping[str, Sequence[Showers]], samples: SampleSet[Any]
) -> dict[str, list[Showers]]:
    """The showers of the ensembles that belong to a set."""
    chosen = {}
    for name, ensemble in bands.items():
        members = []
        for showers in ensemble:
            if samples.incident_energy is None:
                here = np.full(len(showers), fixed_energies(showers) is None)
            else:
                here = np.isclose(
                    showers.incident_energy, samples.incident_energy, rtol=1e-4, atol=0.0
                )
            if here.any():
                members.append(showers[here][: samples.n])
        if members:
            chosen[name] = members
    return chosen


def same_events(a: Sample, b: Sample) -> bool:
    """True if row i of both is the same event: input and output can be compared one by one."""
    return np.array_equal(a.event_ids, b.event_ids)
