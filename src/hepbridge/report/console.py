"""The table of an evaluation for the terminal and for Markdown documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hepbridge.report.groups import Group, lines
from hepbridge.report.text import above_floor, name_of, plus_minus, shorthand, times
from hepbridge.report.words import MARKS, grade, halved

__all__ = ["as_record", "classifier_markdown", "classifier_table", "markdown", "table"]

_COLOURS = {"floor": "green", "above": "yellow", "far": "red", "none": ""}
_KEY = "✓ at most the 95 % quantile of the floor, ▲ above it, ▲▲ at least 3 times the floor"


def as_record(evaluation: Any) -> dict[str, Any]:
    """The record of an `Evaluation`, or of the content of a ``metrics.json``."""
    return dict(evaluation) if isinstance(evaluation, Mapping) else evaluation.to_dict()


def table(evaluation: Any) -> Table:
    """Floor and EMD(uncertainty) with floor ratio of every candidate, one block per set.

    Narrow enough for three candidates on a terminal of 80 columns, hence the plain names.
    """
    record = as_record(evaluation)
    names = _names(record)
    out = Table(
        title="Distance to full simulation (EMD)",
        caption=_caption(record),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    out.add_column("observable", no_wrap=True)
    out.add_column("floor", justify="right")
    for name in names:
        out.add_column(name, justify="right")
    for entry in record["sets"]:
        out.add_row(Text(entry["label"], style="bold"))
        shown = list(lines(entry["rows"]))
        for i, row in enumerate(shown):
            if isinstance(row, Group):
                title, floor = f"{row.name} ({len(row.rows)})", ""
                found = [row.cell(n) for n in names]
            else:
                title = _title(record, row, row["observable"]).replace("cell widths", "cells")
                floor = _floor(row, shorthand)
                found = [_cell(row["candidates"].get(n), shorthand) for n in names]
            cells = [Text(words, style=_COLOURS[kind]) for words, kind in found]
            out.add_row(Text(title), floor, *cells, end_section=i + 1 == len(shown))
    return out


def markdown(evaluation: Any) -> str:
    """The same table in Markdown (GitHub flavour), ending with a newline."""
    record = as_record(evaluation)
    names = _names(record)
    rows = [
        "| | observable | floor | " + " | ".join(names) + " |",
        "|---|---|---:|" + "---:|" * len(names),
    ]
    for entry in record["sets"]:
        for row in lines(entry["rows"]):
            if isinstance(row, Group):
                cells = [f"{words} {MARKS[kind]}".strip() for words, kind in map(row.cell, names)]
                rows.append("| " + " | ".join([entry["label"], row.title, "", *cells]) + " |")
                continue
            cells = [_cell(row["candidates"].get(name), plus_minus)[0] for name in names]
            title = _title(record, row, name_of(row["observable"])).replace("*", "\\*")
            columns = [entry["label"], title, _floor(row, plus_minus), *cells]
            rows.append("| " + " | ".join(columns) + " |")
    return "\n".join([*rows, "", _caption(record).replace("*", "\\*")]) + "\n"


def classifier_table(evaluation: Any) -> Table | None:
    """AUC, floor and AUC − floor of every classifier test; None if there is none."""
    tests = _tests(as_record(evaluation), shorthand)
    if not tests:
        return None
    out = Table(
        title="Classifier test (AUC; 0.5: indistinguishable)",
        caption="AUC − floor with its one-sided 95 % upper limit.",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for head in _TEST_COLUMNS:
        out.add_column(head, no_wrap=True)
    for cells in tests:
        out.add_row(*map(Text, cells))
    return out


def classifier_markdown(evaluation: Any) -> str:
    """The table of classifier tests in Markdown, ending with a newline; empty if there are none."""
    tests = _tests(as_record(evaluation), plus_minus)
    if not tests:
        return ""
    rows = [_TEST_COLUMNS, ("---",) * 3 + ("---:",) * 3, *tests]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows) + "\n"


_TEST_COLUMNS = ("set", "candidate", "classifier, level", "AUC", "floor", "AUC − floor")


def _tests(
    record: Mapping[str, Any], write: Callable[[float, float], str]
) -> list[tuple[str, ...]]:
    """The cells of every classifier test, in the order of the page."""
    return [
        (
            entry["label"],
            name,
            f"{kind}, {level}",
            write(test["auc"], test["se"]),
            "–" if test["floor_auc"] is None else write(test["floor_auc"], test["floor_se"]),
            above_floor(test).replace(" at 95 %", ""),
        )
        for entry in record["sets"]
        for name, kinds in entry["classifier"].items()
        for kind, levels in kinds.items()
        for level, test in levels.items()
    ]


def _names(record: Mapping[str, Any]) -> list[str]:
    return list(
        dict.fromkeys(n for s in record["sets"] for row in s["rows"] for n in row["candidates"])
    )


def _title(record: Mapping[str, Any], row: Mapping[str, Any], name: str) -> str:
    unit = f" [{row['unit']}]" if row["unit"] else ""
    return f"{name}{unit}{'*' if row['observable'] in record['starred'] else ''}"


def _floor(row: Mapping[str, Any], write: Callable[[float, float], str]) -> str:
    return write(row["floor"]["mean"], row["floor"]["std"]) if row["floor"] else "–"


def _cell(cell: Mapping[str, Any] | None, write: Callable[[float, float], str]) -> tuple[str, str]:
    if cell is None:
        return "–", "none"
    kind = grade(cell)
    ratio = "" if cell["ratio"] is None else f" ({times(cell['ratio'])})"
    return f"{write(cell['emd'], cell['sigma'])}{ratio} {MARKS[kind]}".rstrip(), kind


def _caption(record: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{s['label']}: n = {s['n']:,}" for s in record["sets"])
    starred = " * enters a training loss and is left out of verdicts." if record["starred"] else ""
    half = halved(record)
    return f"{sizes}. In brackets: times the floor. {_KEY}.{starred}{' ' if half else ''}{half}"
