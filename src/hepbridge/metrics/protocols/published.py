"""Published results beside which a number can be put."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

__all__ = ["published", "rank"]

_PER_MILLE = {"fpd", "kpd", "e_layer", "e_tot", "voxel", "centre", "width", "sparsity"}


@cache
def published(protocol: str) -> dict[str, Any]:
    """The table of a protocol: ``title``, ``arxiv``, ``doi``, ``source``, ``datasets``.

    ``datasets`` holds data set -> entry -> metric -> value; for all metrics smaller is better.
    Values are plain numbers (the file has FPD, KPD and separation powers in units of 10⁻³).
    """
    path = resources.files(__package__) / "tables" / f"{protocol}.yaml"
    table: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    table["datasets"] = {
        data: {name: {k: _value(k, v) for k, v in row.items()} for name, row in entries.items()}
        for data, entries in table["datasets"].items()
    }
    return table


def rank(
    entries: Mapping[str, Mapping[str, float]], metric: str, value: float, floor: str = "GEANT4"
) -> dict[str, Any] | None:
    """The place that ``value`` would have among published entries, the floor not counted.

    ``rank`` 1 is the best of ``of`` (published entries and this one); ``better`` and ``worse`` name
    the neighbours with their values, ``floor`` that of full simulation. None if nobody has published
    the metric.
    """
    known = sorted(
        (v[metric], name) for name, v in entries.items() if metric in v and name != floor
    )
    if not known:
        return None
    ahead = sum(v < value for v, _ in known)
    return {
        "rank": ahead + 1,
        "of": len(known) + 1,
        "better": list(known[ahead - 1][::-1]) if ahead else None,
        "worse": list(known[ahead][::-1]) if ahead < len(known) else None,
        "floor": entries[floor].get(metric) if floor in entries else None,
    }


def _value(metric: str, entry: float | list[float]) -> float:
    value = entry[0] if isinstance(entry, list) else entry
    return value / 1e3 if metric in _PER_MILLE else value
