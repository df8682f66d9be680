"""From file names on the command line to samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hepbridge.core.errors import ConfigError

if TYPE_CHECKING:
    from hepbridge.data.cell_map import CellMap
    from hepbridge.data.geometry import Geometry
    from hepbridge.data.showers import Showers

__all__ = ["RESERVED", "by_name", "cells_of", "is_model", "joined"]

RESERVED = ("ref", "ref2", "floor")


def is_model(name: str) -> bool:
    """True if ``name`` means a model: ``*.safetensors``, or a bare word that is no file here."""
    return name.endswith(".safetensors") or not (
        "/" in name or "\\" in name or "." in name or Path(name).exists()
    )


def by_name(pairs: Sequence[str]) -> dict[str, list[Path]]:
    """Files of each candidate from ``NAME=FILE`` words; files of one name keep their order.

    >>> files = by_name(["gflash=a.h5", "refined=r.h5", "gflash=b.h5"])
    >>> [str(path) for path in files["gflash"]]
    ['a.h5', 'b.h5']
    """
    files: dict[str, list[Path]] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise ConfigError(
                f"{pair!r} does not name a candidate; write NAME=FILE, e.g. gflash=fast.h5"
            )
        if name in RESERVED:
            raise ConfigError(f"candidate name {name!r} is reserved; choose another")
        files.setdefault(name, []).append(Path(path))
    return files


def joined(paths: Sequence[Path]) -> Showers:
    """Load the files and put their showers one after another."""
    from hepbridge.data import io
    from hepbridge.data.join import join

    return join([io.load(p) for p in paths], [str(p) for p in paths])


def cells_of(name: str | None, particle: str | None = None) -> Geometry | CellMap | None:
    """Where cells are: of a detector (name or YAML), a binning file (.xml) or a map of cells (.h5).

    ``particle`` says whose, if a binning file has those of several.
    """
    if name is None:
        return None
    suffix = Path(name).suffix.lower()
    if suffix in (".h5", ".hdf5"):
        from hepbridge.data.cell_map import CellMap

        return CellMap.load(name)
    if suffix == ".xml":
        from hepbridge.data.binning_xml import read_binning

        return read_binning(Path(name), particle).geometry
    from hepbridge.simulate.detector import load_detector

    return load_detector(name).geometry()
