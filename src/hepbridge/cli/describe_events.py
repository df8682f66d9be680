"""What a file of event tables or of point clouds is: records for ``hepbridge info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["is_foreign", "points", "tables"]


def is_foreign(path: Path) -> bool:
    """Parquet file, NumPy archive, or a ROOT file without showers: event tables of another program."""
    from hepbridge.core.errors import HepbridgeError
    from hepbridge.data import io

    if not path.is_file():
        return False
    with open(path, "rb") as handle:
        head = handle.read(4)
    if head != b"root":
        return head in (b"PAR1", b"PK\x03\x04")
    try:
        io.open_reader(path).close()
    except HepbridgeError:
        return True
    return False


def tables(path: Path) -> dict[str, Any]:
    """The tables of a file: rows, columns with unit, mean and spread, and how often flags are set."""
    from hepbridge.data.formats.tables import read_tables_manifest
    from hepbridge.data.table_files import read_tables

    found, provenance = {}, {}
    for name, table in read_tables(path).items():
        columns = {}
        for column, values in table.columns.items():
            there = values[table.is_defined(column)]
            columns[column] = {
                "unit": table.units[column],
                "undefined": len(table) - len(there),
                "mean": float(there.mean()) if len(there) else None,
                "std": float(there.std()) if len(there) else None,
            }
        found[name] = {
            "rows": len(table),
            "weighted": table.weights is not None,
            "columns": columns,
            "flags": {flag: int(on.sum()) for flag, on in table.flags.items()},
        }
        provenance = dict(table.meta)
    return {
        "kind": "tables",
        "name": str(path),
        "tables": found,
        "provenance": provenance,
        "made_by": read_tables_manifest(path),
    }


def points(path: Path) -> dict[str, Any]:
    """How many showers and points, of which energies; read in pieces."""
    from hepbridge.core.units import GEV
    from hepbridge.data.formats.points import open_points

    showers = filled = 0
    energies: list[float] = []
    with open_points(path) as reader:
        for part in reader.blocks():
            showers, filled = showers + len(part), filled + len(part.energy)
            energy = part.incident_energy
            energies += [float(energy.min()) / GEV, float(energy.max()) / GEV]
    return {
        "kind": "points",
        "name": str(path),
        "showers": showers,
        "points_per_shower": filled / showers,
        "incident_energy_gev": {"min": min(energies), "max": max(energies)},
    }
