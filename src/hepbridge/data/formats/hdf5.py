"""What an HDF5 file declares is checked before any memory is taken for it."""

from __future__ import annotations

from pathlib import Path

import h5py

from hepbridge.core.errors import DataError

__all__ = ["check_declared"]

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
