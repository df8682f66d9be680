"""What an HDF5 file declares is checked before any memory is taken for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py

from hepbridge.core.errors import DataError

__all__ = ["check_declared", "passes"]

# Deflate packs at most 1032 : 1. A dataset that declares far more than its stored bytes can hold
# is damaged or hostile; small ones are harmless.
MAX_RATIO, HARMLESS_BYTES = 2000, 1 << 26


def check_declared(dataset: h5py.Dataset, path: Path) -> None:
    """Refuse a dataset that declares more than its stored bytes can hold, before allocating it."""
    declared, stored = dataset.nbytes, dataset.id.get_storage_size()
    if declared > HARMLESS_BYTES and declared > MAX_RATIO * stored:
        raise DataError(
            f"{path}: {dataset.name[1:]!r} declares {declared:.3g} bytes {dataset.shape} but only "
            f"{stored} are stored; the file is truncated, damaged or not what it claims to be"
        )


def passes(path: str | Path, test: Callable[[h5py.File], bool]) -> bool:
    """Whether ``path`` is an HDF5 file that passes a test; a damaged one does not.

    Whoever opens it then says what is wrong with it.
    """
    try:
        if not (Path(path).is_file() and h5py.is_hdf5(path)):
            return False
        with h5py.File(path, "r") as file:
            return test(file)
    except (OSError, RuntimeError, KeyError):
        return False
