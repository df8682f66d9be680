"""The self-contained page of a report: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hepbridge.metrics.kinds import Sample
from hepbridge.report import diagnosis, failures, learning_curves
from hepbridge.report.groups import lines
from hepbridge.report.jinja import image, render, versions
from hepbridge.report.plate import Plate
from hepbridge.report.text import plus_minus
from hepbridge.report.words import GRADES, MARKS, against_baselines, grade, halved, judge, losses

__all__ = ["page"]

_NAMES = {"ref": "ref (full simulation)", "ref2": "ref2 (second full simulation)"}


def page(
    record: Mapping[str, Any],
    plates: Sequence[tuple[Plate, bytes | None]],
    samples: Mapping[str, Sample],
    mixed: Mapping[str, Sample],
    *,
    fast: str | None,
    refined: str | None,
) -> str:
    """The page as text, from ``plates`` with their PNG bytes.

    ``samples`` are those of the record, and ``mixed`` those that only the figures show.
    """
    names = list(
        dict.fromkeys(n for s in record["sets"] for row in s["rows"] for n in row["candidates"])
    )
    drawn = [(plate, None if png is None else image(png)) for plate, png in plates]
    return render(
        "report.html.j2",
        {"grade": grade},
        record=record,
        names=names,
        fast=fast,
        refined=refined,
        judgements=sorted(judge(record), key=lambda j: j.name != refined),
        losses=losses(record, fast, refined),
        comparisons=against_baselines(record, fast, refined),
        halved=halved(record),
        grades=GRADES,
        marks=MARKS,
        plus_minus=plus_minus,
        lines=lines,
        figures=[
            (p, png) for p, png in drawn if p.key not in (learning_curves.KEY, *failures.KEYS)
        ],
        where=[(p, png) for p, png in drawn if p.key in failures.KEYS],
        suspects=diagnosis.suspect_rows(record, refined or names[-1]),
        coverage=diagnosis.coverage_rows(record),
        memorised=diagnosis.memorisation_words(record),
        advised=diagnosis.advice_rows(record, grouped=False),
        advice=diagnosis.advice(record),
        curves=[(p, png) for p, png in drawn if p.key == learning_curves.KEY],
        samples=[
            {
                "name": _NAMES.get(name, name),
                "energies": _range(samples[name]) if name in samples else "–",
                **listed,
            }
            for name, listed in record["samples"].items()
        ]
        + [
            {"name": f"{name}, mixed (figures only)", **_listed(showers)}
            for name, showers in mixed.items()
        ],
        classifiers=_classifier_rows(record),
        versions=versions(record["hepbridge"]),
    )


def _listed(showers: Sample) -> dict[str, Any]:
    """What the table of samples says of showers that are not in the record."""
    return {
        "energies": _range(showers),
        "n": len(showers),
        "path": None,
        "uid": f"{int(showers.event_ids[0, 0]):016x}",
        "meta": showers.meta,
    }


def _range(showers: Sample) -> str:
    low, high = showers.incident_energy.min() / 1000.0, showers.incident_energy.max() / 1000.0
    return f"{low:.4g} GeV" if high - low < 1e-4 * high else f"{low:.4g} to {high:.4g} GeV"


def _classifier_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per set, candidate, classifier and kind of input."""
    return [
        {"label": entry["label"], "candidate": name, "kind": kind, "level": level, **result}
        for entry in record["sets"]
        for name, kinds in entry["classifier"].items()
        for kind, levels in kinds.items()
        for level, result in levels.items()
    ]
