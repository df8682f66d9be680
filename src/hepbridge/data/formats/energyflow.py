"""The Z + jets files of EnergyFlow (Zenodo 3548091): both levels of a sample in archives of NumPy."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.files import file_digest
from hepbridge.data.formats.base import damaged
from hepbridge.data.showers import row_ids
from hepbridge.data.tables import Table

__all__ = ["RADIUS", "is_energyflow", "load_energyflow"]

RADIUS = 0.4  # of the jets; the widths and τ2 of the files are divided by it
_PREFIXES = {"particle": "gen_", "detector": "sim_"}
_NEEDED = ("jets", "mults", "widths", "tau2s", "sdms", "zgs")
_UNITS = {"pt": "GeV", "rapidity": "1", "phi": "rad", "mass": "GeV"}


def is_energyflow(path: str | Path) -> bool:
    """Is this an archive with the arrays of both levels?"""
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            return {f"{p}{key}" for p in _PREFIXES.values() for key in _NEEDED} <= set(file.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return False


def load_energyflow(paths: str | Path | Sequence[str | Path]) -> dict[str, Table]:
    """Tables ``particle`` and ``detector`` of one file or of several of a sample, in order.

    Columns as those of `hepbridge.simulate.zjets`: pt, rapidity, phi, mass, width, multiplicity,
    ln_rho, z_g, tau21. The width is multiplied by R = 0.4, which the files divide it by. τ21 is τ2 over
    the width, as in arXiv:1911.09107, where ours is τ2 / τ1. Jets that fail soft drop (mass or z_g 0)
    have no ln ρ and no z_g. All events pass; the particles of the files are not read.

    Raises DataError for a file that is damaged, or lacks an array, or has arrays of unequal lengths.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    parts = [_tables(Path(file)) for file in files]
    return {level: Table.joined([part[level] for part in parts]) for level in _PREFIXES}


def _tables(path: Path) -> dict[str, Table]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    with damaged(path), open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
        arrays = {
            f"{prefix}{key}": _array(file, f"{prefix}{key}", path)
            for prefix in _PREFIXES.values()
            for key in _NEEDED
        }
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path}: arrays of unequal lengths: {lengths}")
    n = next(iter(lengths.values()))
    ids = row_ids(int(file_digest(path)[:15], 16), 0, n)
    return {
        level: _level({key: arrays[f"{prefix}{key}"] for key in _NEEDED}, ids, path)
        for level, prefix in _PREFIXES.items()
    }


def _level(arrays: dict[str, NDArray[Any]], ids: NDArray[np.uint64], path: Path) -> Table:
    jets = arrays["jets"]
    if jets.ndim != 2 or jets.shape[1] < 4:
        raise DataError(f"{path}: jets have shape {jets.shape}; (N, 4) is needed: pt, y, phi, m")
    width, mass = arrays["widths"], arrays["sdms"]
    splits = (mass > 0) & (arrays["zgs"] > 0)
    spread = width > 0
    columns = {
        **dict(zip(_UNITS, jets[:, :4].T, strict=True)),
        "width": RADIUS * width,
        "multiplicity": arrays["mults"],
        "ln_rho": 2.0 * np.log(np.where(splits, mass, 1.0) / jets[:, 0]),
        "z_g": arrays["zgs"],
        "tau21": np.divide(arrays["tau2s"], width, out=np.zeros(len(width)), where=spread),
    }
    return Table.from_columns(
        columns,
        {name: _UNITS.get(name, "1") for name in columns},
        defined={"ln_rho": splits, "z_g": splits, "tau21": spread},
        flags={"pass": np.ones(len(width), bool), "matched": np.ones(len(width), bool)},
        event_ids=ids,
        meta={"source": "EnergyFlow Z + jets with Delphes, doi:10.5281/zenodo.3548091"},
        where=str(path),
    )


def _array(file: Any, name: str, path: Path) -> NDArray[Any]:
    if name not in file.files:
        raise DataError(
            f"{path}: has no array {name!r}; a file of EnergyFlow's Z + jets has gen_ and sim_ "
            f"{', '.join(_NEEDED)}"
        )
    return np.asarray(file[name], dtype=np.float64)
