"""The table of an evaluation for the terminal and for Markdown documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from hepbridge.report.text import name_of, plus_minus, times
from hepbridge.report.words import MARKS, grade

__all__ = ["as_record", "markdown", "table"]

_COLOURS = {"floor": "green", "above": "yellow", "far": "red", "none": ""}
_KEY = "✓ at most the 95 % quantile of the floor, ▲ above it, ▲▲ at least 3 times the floor"


def as_record(evaluation: Any) -> dict[str, Any]:
    """The record of an `Evaluation`, or of the content of a ``metrics.json``."""
    return dict(evaluation) if isinstance(evaluation, Mapping) else evaluation.to_dict()


def table(evaluation: Any) -> Table:
    """Floor and EMD ± sigma (floor ratio) of every candidate, one block per set."""
    record = as_record(evaluation)
    names = _names(record)
    out = Table(
        title="Distance to full simulation (EMD)",
        caption=_caption(record),
        title_justify="left",
        caption_justify="left",
    )
    out.add_column("")
    out.add_column("observable")
    out.add_column("floor", justify="right")
    for name in names:
        out.add_column(name, justify="right")
    for entry in record["sets"]:
        for i, row in enumerate(entry["rows"]):
            cells = [
                Text(words, style=_COLOURS[kind])
                for words, kind in (_cell(row["candidates"].get(n)) for n in names)
            ]
            out.add_row(
                entry["label"] if i == 0 else "",
                Text(_title(record, row)),
                _floor(row),
                *cells,
                end_section=i + 1 == len(entry["rows"]),
            )
    return out


def markdown(evaluation: Any) -> str:
    """The same table in Markdown (GitHub flavour), ending with a newline."""
    record = as_record(evaluation)
    names = _names(record)
    lines = [
        "| | observable | floor | " + " | ".join(names) + " |",
        "|---|---|---:|" + "---:|" * len(names),
    ]
    for entry in record["sets"]:
        for row in entry["rows"]:
            cells = [_cell(row["candidates"].get(name))[0] for name in names]
            columns = [entry["label"], _title(record, row).replace("*", "\\*"), _floor(row), *cells]
            lines.append("| " + " | ".join(columns) + " |")
    return "\n".join([*lines, "", _caption(record).replace("*", "\\*")]) + "\n"


def _names(record: Mapping[str, Any]) -> list[str]:
    return list(
        dict.fromkeys(n for s in record["sets"] for row in s["rows"] for n in row["candidates"])
    )


def _title(record: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    unit = f" [{row['unit']}]" if row["unit"] else ""
    return (
        f"{name_of(row['observable'])}{unit}{'*' if row['observable'] in record['starred'] else ''}"
    )


def _floor(row: Mapping[str, Any]) -> str:
    return plus_minus(row["floor"]["mean"], row["floor"]["std"]) if row["floor"] else "–"


def _cell(cell: Mapping[str, Any] | None) -> tuple[str, str]:
    if cell is None:
        return "–", "none"
    kind = grade(cell)
    ratio = "" if cell["ratio"] is None else f" ({times(cell['ratio'])})"
    return f"{plus_minus(cell['emd'], cell['sigma'])}{ratio} {MARKS[kind]}".rstrip(), kind


def _caption(record: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{s['label']}: n = {s['n']:,}" for s in record["sets"])
    starred = " * enters a training loss and is left out of verdicts." if record["starred"] else ""
    return f"{sizes}. In brackets: times the floor. {_KEY}.{starred}"
