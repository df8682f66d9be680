"""What the page says beyond distances: coverage, memorisation, sample size, suspicious showers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hepbridge.report.text import name_of, number, p_value, percent

__all__ = [
    "advice",
    "advice_rows",
    "coverage_rows",
    "memorisation_words",
    "suspect_rows",
    "telling_level",
]

_LEVEL = 0.05

Record = Mapping[str, Any]


def advice_rows(record: Record, *, grouped: bool = True) -> list[dict[str, Any]]:
    """Set, observable and `hepbridge.metrics.advice.Advice` of every row that has one.

    ``grouped``: also the rows that belong to a group, such as those of single layers.
    """
    return [
        {"label": entry["label"], "name": name_of(row["observable"]), **row["advice"]}
        for entry in record["sets"]
        for row in entry["rows"]
        if row.get("advice") and (grouped or row.get("group") is None)
    ]


def advice(record: Record) -> str:
    """The advice in two sentences; empty without a floor."""
    rows = advice_rows(record)
    if not rows:
        return ""
    coarse = max(rows, key=lambda row: row["resolves"])
    most = max(rows, key=lambda row: row["n_limit"])
    return (
        f"{coarse['n']:,} showers per sample cannot be relied on to show a difference below "
        f"{number(coarse['resolves'])} standard deviations in every row (the least sensitive: "
        f"{coarse['name']}, {coarse['label']}). To promise an excess below {coarse['goal']:g} in "
        f"every row even a perfect candidate needs about {_round(most['n_limit']):,} showers per "
        f"sample ({most['name']}, {most['label']}); to be sure of finding one of that size takes "
        f"{_round(max(row['n_resolve'] for row in rows)):,}."
    )


def coverage_rows(record: Record) -> list[dict[str, Any]]:
    """One row per set and candidate: number -> (value, se, floor, whether it is outside of it)."""
    return [
        {
            "label": entry["label"],
            "candidate": name,
            "n": entry["prdc"]["n"],
            "numbers": {
                key: {**found, "floor": floor, "low": _below(found, floor)}
                for key, found in numbers.items()
                for floor in [(entry["prdc"]["floor"] or {}).get(key)]
            },
        }
        for entry in record["sets"]
        for name, numbers in (entry.get("prdc") or {"candidates": {}})["candidates"].items()
    ]


def memorisation_words(record: Record) -> list[dict[str, str]]:
    """Per candidate ``status`` ("compatible", "distinguishable") and a sentence; none unasked."""
    found = record.get("memorisation")
    if not found:
        return []
    out = []
    for name, one in found["candidates"].items():
        copied = one["p"] < _LEVEL
        words = (
            f"{one['near']} of {one['n']:,} showers lie as near to a single training shower as "
            f"hardly any new full-simulation shower does; {one['near_expected']:.1f} are expected "
            f"({p_value(one)}), which makes {percent(max(0.0, one['near_share']))} ± "
            f"{percent(one['near_se'])} near duplicates. Closer than new full simulation: "
            f"{one['closer']:.3f} ± {one['closer_se']:.3f} (0.5: no closer)."
        )
        out.append(
            {
                "name": name,
                "status": "distinguishable" if copied else "compatible",
                "lead": "signs of memorised training showers"
                if copied
                else "no sign of memorisation",
                "words": words,
            }
        )
    return out


def suspect_rows(record: Record, name: str) -> list[dict[str, Any]]:
    """The most suspicious showers of a candidate in every set, from its `telling_level`."""
    return [
        {"label": entry["label"], "level": level, **suspect}
        for entry in record["sets"]
        if entry.get("failures")
        for level in [telling_level(entry, name)]
        for suspect in entry["failures"][level]["candidates"][name]["suspects"]
    ]


def telling_level(entry: Record, name: str) -> str:
    """The level of input that tells the candidate apart best."""
    levels: dict[str, Any] = entry["failures"]
    return max(levels, key=lambda level: float(levels[level]["candidates"][name]["auc"]))


def _below(found: Record, floor: Record | None) -> bool:
    return floor is not None and found["value"] < floor["q05"]


def _round(n: int) -> int:
    """Two significant digits: more would be a pretence."""
    return int(float(f"{n:.1e}"))
