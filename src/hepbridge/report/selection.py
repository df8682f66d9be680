"""Model selection: the candidates of several reports in one table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.metrics import Evaluation
from hepbridge.report.text import number, p_value, times
from hepbridge.report.words import judge, mean_auc, mean_error, mean_ratios

__all__ = ["read_metrics", "selection", "selection_table"]

_SURE = 2.0  # standard errors
_COLOURS = {"compatible": "green", "distinguishable": "red", "unknown": ""}

Record = Mapping[str, Any]


def read_metrics(path: str | Path) -> dict[str, Any]:
    """The record of a ``metrics.json``, or of the one in a report's folder.

    Raises DataError for a file that is missing, no JSON, no evaluation, or of another version.
    """
    path = Path(path)
    path = path / "metrics.json" if path.is_dir() else path
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give a metrics.json") from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON, so no metrics.json of a report") from error
    if not isinstance(record, dict) or "sets" not in record:
        raise DataError(
            f"{path} is not the metrics.json of an evaluation of showers; reports of a challenge's "
            "protocol and of unfoldings cannot be ranked by this command"
        )
    try:
        Evaluation.from_dict(record)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return record


def selection(records: Mapping[str, Record]) -> dict[str, Any]:
    """``candidates``, the closest first, ``best`` and ``words`` on what is resolved.

    ``records``: report -> content of its ``metrics.json``. Each candidate has ``report``, ``name``
    (with the report before it where two reports use a name for different showers),
    ``ratio_geometric_mean``, ``excess`` and ``excess_upper95`` of its worst row, the highest ``auc``
    with ``auc_se`` and ``floor_auc``, and its ``verdict`` with ``p``. Candidates are ordered by the
    geometric mean of the floor ratios; one that lies within two standard errors of the best is
    named beside it. A candidate that is the same in several reports is listed once.

    Raises ConfigError for less than two candidates, DataError for records that were not made with
    the same reference, second reference, observables, stars and seed.
    """
    _check_alike(records)
    rows: list[dict[str, Any]] = []
    seen: dict[str, list[tuple[Any, dict[str, Any]]]] = {}
    for report, record in records.items():
        for judgement in judge(record):
            identity = _identity(record, judgement.name)
            if any(identity == known for known, _ in seen.get(judgement.name, [])):
                continue
            row = _row(report, record, judgement.name, judgement.status)
            seen.setdefault(judgement.name, []).append((identity, row))
            rows.append(row)
    for found in seen.values():
        if len(found) > 1:
            for _, row in found:
                row["name"] = f"{row['report']}: {row['name']}"
    if len(rows) < 2:
        raise ConfigError("there is one candidate only; give reports with at least two")
    rows.sort(
        key=lambda row: (
            math.inf if row["ratio_geometric_mean"] is None else row["ratio_geometric_mean"]
        )
    )
    return {"best": rows[0]["name"], "words": _words(rows), "candidates": rows}


def selection_table(found: Mapping[str, Any]) -> Table:
    """The table of `selection` for the terminal."""
    out = Table(
        title="Candidates, the closest to full simulation first",
        caption=f"{found['words']} p: of a perfect model, to have rows this far above the floor.",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for head in (
        "candidate",
        "times the floor",
        "worst excess (95 % limit)",
        "AUC (floor)",
        "verdict",
    ):
        out.add_column(head, justify="left" if head in ("candidate", "verdict") else "right")
    for row in found["candidates"]:
        auc = "–" if row["auc"] is None else f"{row['auc']:.3f}"
        floor = "" if row["floor_auc"] is None else f" ({row['floor_auc']:.3f})"
        excess = "–"
        if row["excess"] is not None:
            excess = f"{number(row['excess'])} (< {number(row['excess_upper95'])})"
        verdict = row["verdict"] if row["p"] is None else f"{row['verdict']} ({p_value(row)})"
        out.add_row(
            row["name"],
            times(row["ratio_geometric_mean"]),
            excess,
            auc + floor,
            Text(verdict, style=_COLOURS[row["verdict"]]),
        )
    return out


def _row(report: str, record: Record, name: str, status: str) -> dict[str, Any]:
    verdict = (record.get("verdict") or {}).get(name)
    cells = [
        row["candidates"][name]
        for entry in record["sets"]
        for row in entry["rows"]
        if row["observable"] not in record["starred"]
    ]
    excesses = [c for c in cells if c["excess"] is not None]
    worst = max(excesses, key=lambda c: c["excess_upper95"], default=None)
    tests = [
        test
        for entry in record["sets"]
        for levels in entry["classifier"].get(name, {}).values()
        for test in levels.values()
    ]
    strongest = max(tests, key=lambda test: test["auc"], default=None)
    mean = mean_auc(record, name)
    return {
        "report": report,
        "name": name,
        "ratio_geometric_mean": mean_ratios(record).get(name),
        "ratio_error": mean_error(record, name),
        "excess": None if worst is None else worst["excess"],
        "excess_upper95": None if worst is None else worst["excess_upper95"],
        "auc": None if strongest is None else strongest["auc"],
        "auc_se": None if strongest is None else strongest["se"],
        "floor_auc": None if strongest is None else strongest["floor_auc"],
        "mean_auc": None if mean is None else mean[0],
        "verdict": status,
        "p": None if verdict is None else verdict.get("p_global", verdict["p"]),
        "p_bound": 0.0
        if verdict is None
        else verdict["p_bound"] * (2.0 if "p_global" in verdict else 1.0),
    }


def _words(rows: Sequence[Mapping[str, Any]]) -> str:
    best = rows[0]
    if best["ratio_geometric_mean"] is None:
        return "No floor, so no order: a second full simulation (evaluate --ref2) gives one."
    near = [
        row["name"]
        for row in rows[1:]
        if row["ratio_geometric_mean"]
        and best["ratio_geometric_mean"]
        and math.log(row["ratio_geometric_mean"] / best["ratio_geometric_mean"])
        <= _SURE * math.hypot(row["ratio_error"], best["ratio_error"])
    ]
    words = f"Closest in distance: {best['name']}"
    words += f", not resolved from {', '.join(near)}." if near else ", beyond two standard errors."
    tested = [row for row in rows if row["auc"] is not None]
    if tested:
        hardest = min(tested, key=lambda row: row["auc"])
        words += f" Hardest for the classifiers: {hardest['name']}."
    return words


def _identity(record: Record, name: str) -> Any:
    """What a candidate is: its showers and the distances that were found."""
    distances = [row["candidates"][name]["emd_sample"] for s in record["sets"] for row in s["rows"]]
    return record["samples"][name]["uid"], record["samples"][name]["n"], distances


def _check_alike(records: Mapping[str, Record]) -> None:
    """Raise DataError unless all records measure against the same, in the same way."""
    (first, base), *others = records.items()
    for name, record in others:
        for what, look in _LOOKS.items():
            mine, its = look(base), look(record)
            if mine != its:
                raise DataError(
                    f"{first} and {name} cannot be compared, their {what} differ: {_shown(mine)} "
                    f"against {_shown(its)}; evaluate all candidates alike, or in one command "
                    "(hepbridge evaluate --cand A=… --cand B=…)"
                )


def _sample_of(name: str) -> Any:
    def look(record: Record) -> Any:
        found = record["samples"].get(name)
        return None if found is None else {"uid": found["uid"], "showers": found["n"]}

    return look


_LOOKS = {
    "metric versions": lambda r: r["format_version"],
    "references": _sample_of("ref"),
    "second references": _sample_of("ref2"),
    "sets": lambda r: {s["label"]: s["n"] for s in r["sets"]},
    "observables": lambda r: sorted({row["observable"] for s in r["sets"] for row in s["rows"]}),
    "starred observables": lambda r: sorted(r["starred"]),
    "classifiers": lambda r: sorted(
        {kind for s in r["sets"] for kinds in s["classifier"].values() for kind in kinds}
    ),
    "seeds": lambda r: r["seed"],
    "floors": lambda r: [
        None if row["floor"] is None else row["floor"]["mean"]
        for s in r["sets"]
        for row in s["rows"]
    ],
}


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value[:4])) or "none"
    return "none" if value is None else str(value)
