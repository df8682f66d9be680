"""The record of a protocol (`hepbridge.metrics.protocols`) as tables and as a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from hepbridge.report.text import number, shorthand
from hepbridge.report.writer import check_directory, replacing

__all__ = ["protocol_tables", "write_protocol"]

_NAMES = {
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
Record = Mapping[str, Any]


def write_protocol(record: Record, out_dir: str | Path, *, overwrite: bool = False) -> Path:
    """Write ``metrics.json`` into a new folder; returns its path. Raises OutputError."""
    out_dir = check_directory(out_dir, overwrite=overwrite)
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    with replacing(out_dir) as folder:
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    return out_dir / "metrics.json"


def protocol_tables(record: Record) -> Iterator[Table]:
    """For every candidate its numbers, and its place among the published ones."""
    for name, found in record["candidates"].items():
        yield _numbers(record, name, found)
        if found["ranking"]:
            yield _places(record, name, found)


def _numbers(record: Record, name: str, found: Record) -> Table:
    out = _table(
        f"{record['protocol']} {record['dataset']}: {name} against full simulation "
        f"({found['n']:,} and {record['samples']['ref']['n']:,} showers)",
        "Separation power, FPD and KPD in units of 1e-3, AUC and JSD as they are; smaller is "
        "better. protocol: as published; corrected: with everything outside the plotted range, "
        "and without the bias of repeated draws; by chance: a perfect candidate of this size; "
        "floor: the second full simulation, for the column before it.",
        ["quantity", "protocol", "floor", "corrected", "floor", "by chance", "chi2/ndf", "worst"],
    )
    floor = record["floor"] or {}
    for group, row in found["groups"].items():
        ground = floor.get("groups", {}).get(group, {})
        cells = [
            _value(of.get(key), _E3)
            for key in ("separation", "separation_all")
            for of in (row, ground)
        ]
        chance = _value(row["expected"], _E3)
        out.add_row(_NAMES[group], *cells, chance, _value(row["chi2_ndf"]), row["worst"])
    for key in ("fpd", "kpd"):
        cells = [
            _with(of, *names, _E3)
            for names in (("value", "error"), ("unbiased", "unbiased_error"))
            for of in (found[key], floor.get(key, {}))
        ]
        out.add_row(_NAMES[key], *cells, "0", "", "")
    for key, row in found["classifier"].items():
        ground = floor.get("classifier", {}).get(key, {})
        for score, chance in (("auc", "0.5"), ("jsd", "0")):
            cells = [_with(of, score, f"{score}_std") for of in (row, ground)]
            out.add_row(f"{score.upper()}, {key}", *cells, "", "", chance, "", "")
    return out


def _places(record: Record, name: str, found: Record) -> Table:
    source = record["published"]
    size = (
        ""
        if source["same_size"]
        else (
            f" The published numbers are for {source['n']:,} showers; with fewer, chance alone makes "
            "separation powers, FPD and KPD larger, and classifiers weaker."
        )
    )
    out = _table(
        f"{name} among the published entries of data set {record['dataset']}",
        f"{source['title']}, arXiv:{source['arxiv']}.{size}",
        ["metric", "value", "place", "better", "worse", "Geant4"],
    )
    for metric, row in found["ranking"].items():
        scale = 1.0 if metric.startswith("auc") else _E3
        neighbours = (
            "–" if pair is None else f"{pair[0]} {_value(pair[1], scale)}"
            for pair in (row["better"], row["worse"])
        )
        out.add_row(
            _NAMES[metric],
            _value(row["value"], scale),
            f"{row['rank']} of {row['of']}",
            *neighbours,
            _value(row["floor"], scale),
        )
    return out


def _table(title: str, caption: str, heads: list[str]) -> Table:
    out = Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for k, head in enumerate(heads):
        out.add_column(
            head, justify="left" if k == 0 or head in ("better", "worse", "worst") else "right"
        )
    return out


def _value(value: float | None, scale: float = 1.0) -> str:
    return "–" if value is None else number(value * scale)


def _with(row: Record, value: str, error: str, scale: float = 1.0) -> str:
    if row.get(value) is None:
        return "–"
    return shorthand(row[value] * scale, (row[error] or 0.0) * scale)
