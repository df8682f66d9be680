"""The record of a protocol (`hepbridge.metrics.protocols`) as tables, for terminal and page alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from hepbridge.report.text import number, shorthand

__all__ = ["NAMES", "Numbers", "Record", "as_table", "numbers", "places", "protocol_tables"]

NAMES = {
    "e_tot": "E_tot / E_inc",
    "e_tot_fixed": "E_tot / E_inc, each energy",
    "e_layer": "layer energies",
    "voxel": "voxel energies",
    "centre": "centres in eta, phi",
    "width": "widths in eta, phi",
    "sparsity": "sparsity",
    "radial": "centre, width in r",
    "fpd": "FPD",
    "kpd": "KPD",
    "auc_low": "AUC, low level",
    "auc_high": "AUC, high level",
}
_E3 = 1e3  # separations, FPD and KPD are given in units of 1e-3, as in the published tables
_WORDS = ("better", "worse", "worst")  # columns of words, not of numbers
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Numbers:
    """A table: ``rows`` of texts under ``heads``, the first of which names the row."""

    title: str
    caption: str
    heads: list[str]
    rows: list[list[str]]

    def words(self, column: int) -> bool:
        """Whether a column holds words, set to the left."""
        return column == 0 or self.heads[column] in _WORDS


def protocol_tables(record: Record) -> Iterator[Table]:
    """For every candidate its numbers, and its place among the published ones, for the terminal."""
    for name, found in record["candidates"].items():
        yield as_table(numbers(record, name))
        if found["ranking"]:
            yield as_table(places(record, name))


def numbers(record: Record, name: str) -> Numbers:
    """The numbers of a candidate, as the protocol has them and corrected, beside their floors."""
    found = record["candidates"][name]
    floor = record["floor"] or {}
    rows = []
    for group, row in found["groups"].items():
        ground = floor.get("groups", {}).get(group, {})
        cells = [
            _value(of.get(key), _E3)
            for key in ("separation", "separation_all")
            for of in (row, ground)
        ]
        chance = _value(row["expected"], _E3)
        rows.append([NAMES[group], *cells, chance, _value(row["chi2_ndf"]), row["worst"]])
    for key in ("fpd", "kpd"):
        cells = [
            _with(of, *pair, _E3)
            for pair in (("value", "error"), ("unbiased", "unbiased_error"))
            for of in (found[key], floor.get(key, {}))
        ]
        rows.append([NAMES[key], *cells, "0", "", ""])
    for key, row in found["classifier"].items():
        ground = floor.get("classifier", {}).get(key, {})
        for score, chance in (("auc", "0.5"), ("jsd", "0")):
            cells = [_with(of, score, f"{score}_std") for of in (row, ground)]
            rows.append([f"{score.upper()}, {key}", *cells, "", "", chance, "", ""])
    return Numbers(
        f"{record['protocol']} {record['dataset']}: {name} against full simulation "
        f"({found['n']:,} and {record['samples']['ref']['n']:,} showers)",
        "Separation power, FPD and KPD in units of 1e-3, AUC and JSD as they are; smaller is "
        "better. protocol: as published; corrected: with everything outside the plotted range, "
        "and without the bias of repeated draws; by chance: a perfect candidate of this size; "
        "floor: the second full simulation, for the column before it.",
        ["quantity", "protocol", "floor", "corrected", "floor", "by chance", "chi2/ndf", "worst"],
        rows,
    )


def places(record: Record, name: str) -> Numbers:
    """The place of a candidate, whose record has a ``ranking``, among the published entries."""
    source = record["published"]
    size = (
        ""
        if source["same_size"]
        else (
            f" The published numbers are for {source['n']:,} showers; with fewer, chance alone makes "
            "separation powers, FPD and KPD larger, and classifiers weaker."
        )
    )
    rows = []
    for metric, row in record["candidates"][name]["ranking"].items():
        scale = 1.0 if metric.startswith("auc") else _E3
        neighbours = (
            "–" if pair is None else f"{pair[0]} {_value(pair[1], scale)}"
            for pair in (row["better"], row["worse"])
        )
        rows.append(
            [
                NAMES[metric],
                _value(row["value"], scale),
                f"{row['rank']} of {row['of']}",
                *neighbours,
                _value(row["floor"], scale),
            ]
        )
    return Numbers(
        f"{name} among the published entries of data set {record['dataset']}",
        f"{source['title']}, arXiv:{source['arxiv']}.{size}",
        ["metric", "value", "place", "better", "worse", "Geant4"],
        rows,
    )


def as_table(shown: Numbers) -> Table:
    """For the terminal."""
    out = Table(
        title=shown.title,
        caption=shown.caption,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for k, head in enumerate(shown.heads):
        out.add_column(head, justify="left" if shown.words(k) else "right")
    for row in shown.rows:
        out.add_row(*row)
    return out


def _value(value: float | None, scale: float = 1.0) -> str:
    return "–" if value is None else number(value * scale)


def _with(row: Record, value: str, error: str, scale: float = 1.0) -> str:
    if row.get(value) is None:
        return "–"
    return shorthand(row[value] * scale, (row[error] or 0.0) * scale)
