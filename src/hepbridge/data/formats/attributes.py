"""Provenance, geometry and manifest as attributes of an HDF5 file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hepbridge.core.errors import DataError
from hepbridge.data.geometry import Geometry

__all__ = ["UNITS_KEY", "fixed_text", "plain", "read_attributes", "write_attributes"]

UNITS_KEY, GEOMETRY_KEY = "units", "geometry"
MANIFEST_KEY, META_KEY = "hepbridge_manifest", "hepbridge_meta"  # the latter: what has no HDF5 type
RESERVED = (UNITS_KEY, GEOMETRY_KEY, MANIFEST_KEY, META_KEY)


def read_attributes(
    file: h5py.File, path: Path
) -> tuple[dict[str, Any], dict[str, Any] | None, Geometry | None]:
    """(provenance, manifest, geometry) of a file."""
    meta = {name: plain(file.attrs[name]) for name in file.attrs}
    records: dict[str, Any] = {}
    for key in (MANIFEST_KEY, META_KEY, GEOMETRY_KEY):
        try:
            records[key] = json.loads(meta[key])
        except (KeyError, TypeError, ValueError) as error:
            if key in meta and key != GEOMETRY_KEY:  # a foreign file's geometry may be prose
                raise DataError(f"{path}: the attribute {key!r} is not JSON ({error})") from error
    if not isinstance(records.get(MANIFEST_KEY, {}), dict):
        raise DataError(f"{path}: the attribute {MANIFEST_KEY!r} is not a JSON object")
    geometry = records.get(GEOMETRY_KEY)
    for key in records:
        if key != GEOMETRY_KEY or isinstance(geometry, dict):
            del meta[key]
    if isinstance(extra := records.get(META_KEY), dict):
        meta.update(extra)
    return (
        meta,
        records.get(MANIFEST_KEY),
        Geometry.from_dict(geometry) if isinstance(geometry, dict) else None,
    )


def write_attributes(
    file: h5py.File,
    meta: Mapping[str, Any],
    geometry: Geometry | None,
    manifest: Mapping[str, Any] | None,
) -> None:
    """Provenance and manifest, and of showers the unit and the geometry."""
    extra = {}
    for name, value in meta.items():
        if name != UNITS_KEY:
            if _native(name, value):
                file.attrs[name] = fixed_text(value) if isinstance(value, str) else value
            else:
                extra[name] = value
    try:
        if extra:
            file.attrs[META_KEY] = fixed_text(json.dumps(extra))
        if manifest is not None:
            file.attrs[MANIFEST_KEY] = fixed_text(json.dumps(manifest))
    except (TypeError, ValueError) as error:
        raise DataError(f"meta and manifest must be JSON-able: {error}") from error
    if geometry is not None:
        file.attrs[UNITS_KEY] = fixed_text("MeV")
        file.attrs[GEOMETRY_KEY] = fixed_text(json.dumps(geometry.to_dict()))


def _native(name: str, value: Any) -> bool:
    """Can HDF5 hold this attribute so that it comes back as it was?"""
    if name in RESERVED or not name or not name.isprintable():
        return False
    if isinstance(value, str):
        return value.isprintable() and value != ""
    return isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63)


def fixed_text(text: str) -> np.ndarray[Any, Any]:
    """Text of fixed length: unlike variable text it lies where the file has checksums."""
    raw = text.encode()
    return np.array(raw, dtype=h5py.string_dtype("utf-8", len(raw)))


def plain(value: Any) -> Any:
    """An attribute's value as plain Python."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return plain(value.item())
    return value if isinstance(value, str | bool | int | float | list) else str(value)
