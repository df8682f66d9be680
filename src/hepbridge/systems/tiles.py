"""How many rows are computed together, such that it changes no bit of any of them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hepbridge.core.rng import stream
from hepbridge.systems.refiner import Refiner

__all__ = ["TILE", "Tiles", "forget", "one_thread", "padded", "tiles_of"]

TILE = 256  # rows of a full tile
_SMALLER = (4, 8, 16, 32, 64, 128)
_TRIED = 64  # different rows of a trial


class Tiles:
    """The tile sizes at which a refiner gives the same bits for a row, whatever is beside it.

    A matrix product may add up in another order if it has other shapes, and vectorised functions
    may treat the end of an array in another way. So a row is safe only in a tile of fixed size,
    256 here, with the last one filled up; one shower then costs as much as 256. But with today's
    libraries the same holds for several sizes at once: rows of a tile of 4 equal those of a tile of
    256 to the bit. No library promises that, so each process tries it for each refiner and size when it is
    first wanted: 64 random showers stand in four places each of a tile of 256 and are computed again
    in tiles of the smaller size. A size is used only if all results are equal.

    Safe to use by several threads at once.

    Args:
        refiner: on its device and in evaluation mode.
        energy: a range of incident energies, MeV, to try.
        others: ranges of the further conditions.
    """

    def __init__(
        self,
        refiner: Refiner,
        energy: tuple[float, float],
        others: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self._refiner = weakref.ref(refiner)
        self._lock = threading.Lock()
        self._safe: dict[int, bool] = {}
        rng = stream(0, "tiles")
        n_cells = refiner.geometry.n_cells
        low, high = energy
        e = low * (high / low) ** rng.random((_TRIED, 1))
        cells = e / n_cells * rng.exponential(size=(_TRIED, n_cells)) ** 3
        cells[:, 1:] *= rng.random((_TRIED, n_cells - 1)) < 0.7
        noise = rng.standard_normal((_TRIED, refiner.noise_dim))
        named = {name: a + (b - a) * rng.random(_TRIED) for name, (a, b) in (others or {}).items()}
        device = next(refiner.buffers(), next(refiner.parameters(), torch.empty(0))).device
        self._cells, self._noise = (_tensor(a, device) for a in (cells, noise))
        named = {"incident_energy": e[:, 0], **named}
        self._conditions = {name: _tensor(a, device) for name, a in named.items()}
        self._order = torch.from_numpy(rng.permutation(np.arange(TILE) % _TRIED)).to(device)

    def place(self, rows: int) -> int:
        """The smallest safe tile for ``rows`` rows, at most 256."""
        for size in _SMALLER:
            if size >= rows and self.safe(size):
                return size
        return TILE

    def safe(self, size: int) -> bool:
        """Whether tiles of ``size`` rows may be mixed with full ones; 256: whether places may."""
        if size not in self._safe:
            with self._lock, torch.inference_mode():
                self._safe[size] = self._try(size)
        return self._safe[size]

    def _try(self, size: int) -> bool:
        full = self._refine(self._order)
        truth = torch.empty_like(full[:_TRIED])
        truth[self._order] = full
        if not torch.equal(truth[self._order], full):
            return False  # not even the place in a full tile is free
        tiles = torch.split(self._order[: max(_TRIED, size)], size)
        return all(torch.equal(self._refine(rows), truth[rows]) for rows in tiles)

    def _refine(self, rows: Tensor) -> Tensor:
        refiner = self._refiner()
        if refiner is None:
            raise RuntimeError("the refiner of these tiles is gone")
        conditions = {name: values[rows] for name, values in self._conditions.items()}
        return refiner.refine(self._cells[rows], conditions, self._noise[rows])


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Products on the CPU by one thread: how they are split among several may change their last bit."""
    threads = torch.get_num_threads()
    try:
        if device.type == "cpu" and threads != 1:
            torch.set_num_threads(1)
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def padded(array: NDArray[Any], size: int, dtype: Any = np.float32) -> Tensor:
    """Rows as a tensor of ``dtype``, filled up to ``size`` by repeating the last one."""
    out = np.empty((size, *array.shape[1:]), dtype=dtype)
    out[: len(array)] = array
    out[len(array) :] = array[-1]
    return torch.from_numpy(out)


def _tensor(array: NDArray[np.float64], device: torch.device) -> Tensor:
    return torch.from_numpy(array.astype(np.float32)).to(device)


_KNOWN: weakref.WeakKeyDictionary[Refiner, dict[Any, Tiles]] = weakref.WeakKeyDictionary()


def forget(refiner: Refiner) -> None:
    """Forget what was tried: the refiner has other networks now than in the middle of its training."""
    _KNOWN.pop(refiner, None)


def tiles_of(
    refiner: Refiner,
    device: torch.device,
    energy: tuple[float, float],
    others: Mapping[str, tuple[float, float]] | None = None,
) -> Tiles:
    """The `Tiles` of a refiner on ``device``; the same object as long as the refiner lives."""
    known = _KNOWN.setdefault(refiner, {})
    if device not in known:
        known[device] = Tiles(refiner, energy, others)
    return known[device]
