"""HDF5 files that would never end, or take all memory: text in a heap that is not as long as it says."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hepbridge.core.errors import DataError
from hepbridge.data import io
from hepbridge.data.formats.hdf5 import open_hdf5
from hepbridge.data.formats.points import load_points
from hepbridge.data.formats.tables import is_tables, load_tables


def _foreign(path: Path, **attributes: str) -> Path:
    with h5py.File(path, "w") as file:
        file["incident_energies"] = np.full((3, 1), 100.0)
        file["showers"] = np.ones((3, 100))
        for name, text in attributes.items():
            file.attrs[name] = text  # h5py writes text of variable length
    return path


def _spoil(path: Path) -> None:
    """Size 0 for the free space, object 0, of every collection of the heap."""
    content = bytearray(path.read_bytes())
    start = content.find(b"GCOL\x01")
    assert start >= 0
    while start >= 0:
        place = start + 16
        while int.from_bytes(content[place : place + 2], "little"):
            size = int.from_bytes(content[place + 8 : place + 16], "little")
            place += 16 + (size + 7) // 8 * 8
        content[place + 8 : place + 16] = bytes(8)
        start = content.find(b"GCOL\x01", start + 1)
    path.write_bytes(content)


def test_text_of_variable_length_is_read(tmp_path: Path) -> None:
    path = _foreign(tmp_path / "a.h5", particle="e-", detector="x" * 5000, note="ünïcode")
    with open_hdf5(path) as file:
        assert file.attrs["particle"] == "e-" and len(file.attrs["detector"]) == 5000
    assert io.load(path).meta["note"] == "ünïcode"


@pytest.mark.parametrize("read", [open_hdf5, io.load, load_points, load_tables])
def test_a_heap_without_an_end_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """Without the check these calls never return (the time limit of the test ends them)."""
    path = _foreign(tmp_path / "a.h5", format="hepbridge-tables")
    _spoil(path)
    with pytest.raises(DataError, match="heap of its text is damaged at byte"):
        read(path)
    assert not is_tables(path)


@pytest.mark.parametrize("block", [0, 512])
@pytest.mark.parametrize("lost", [0, 8], ids=["length", "place too"])
@pytest.mark.parametrize("read", [open_hdf5, io.load, load_points, load_tables])
def test_a_text_longer_than_the_file_is_refused(
    tmp_path: Path, read: Callable[[Path], object], lost: int, block: int
) -> None:
    """Without the check HDF5 takes 3.8 GB before it finds the text to be shorter."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=block) as file:
        file["incident_energies"], file["showers"] = np.full((3, 1), 100.0), np.ones((3, 100))
        file.attrs["format"] = "hepbridge-tables"
    content = bytearray(path.read_bytes())
    heap = content.find(b"GCOL\x01") - block
    reference = len("hepbridge-tables").to_bytes(4, "little") + heap.to_bytes(8, "little")
    place = content.find(reference)
    assert place > 0
    content[place + 3 : place + 4 + lost] = bytes([0xE3]) * (1 + lost)
    path.write_bytes(content)
    before = _peak()
    with pytest.raises(DataError, match="the text 'format' is longer than the file"):
        read(path)
    assert _peak() - before < 500


def test_a_column_of_text_without_an_end_is_refused(tmp_path: Path) -> None:
    path = _foreign(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["word"] = ["ab", "c", "de"]
    assert list(io.load(path).columns["word"]) == ["ab", "c", "de"]
    _spoil(path)
    with pytest.raises(DataError, match="heap of its text is damaged at byte"):
        io.load(path)


def test_numbers_like_references_are_read(tmp_path: Path) -> None:
    """Data that happen to hold the place of the heap are no references: their lengths fit no text."""
    path = _foreign(tmp_path / "a.h5", particle="e-")
    heap = path.read_bytes().find(b"GCOL\x01")
    numbers = np.arange(4000, dtype=np.uint64) % 7 + np.uint64(heap)
    with h5py.File(path, "a") as file:
        file["numbers"] = numbers
    assert io.load(path).meta["particle"] == "e-"


def _peak() -> float:
    """Largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
