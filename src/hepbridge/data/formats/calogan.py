"""HDF5 as CaloGAN and *Getting High* (ILD) publish their showers: read, never written.

CaloGAN (doi:10.17632/pvn3xc3wy5, arXiv:1712.10321; CaloFlow's samples alike): datasets ``energy``
(N, 1), GeV, ``layer_0`` (N, 3, 96), ``layer_1`` (N, 12, 12), ``layer_2`` (N, 12, 6), MeV, and
``overflow`` (N, 3), which becomes a column. ILD (doi:10.5281/zenodo.3826103, arXiv:2005.05334): a group
``30x30`` with ``energy`` (N, 1), GeV, and ``layers`` (N, 30, 30, 30), MeV.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path

import h5py
import numpy as np

from hepbridge.core.errors import DataError
from hepbridge.core.units import GEV
from hepbridge.data.cells import CellLayer, XYCells
from hepbridge.data.formats.base import Block, Format, Reader, check_unit, damaged
from hepbridge.data.formats.calochallenge import open_calochallenge_writer
from hepbridge.data.formats.hdf5 import check_declared, open_hdf5, passes
from hepbridge.data.geometry import Geometry

__all__ = ["CALOGAN", "FORMAT", "ILD", "CaloganReader"]


def _stack(
    name: str, layers: list[tuple[tuple[int, int], tuple[float, float], float]], symmetry: str
) -> Geometry:
    """Layers of (cells in x and y, their size in mm, depth in mm), one behind the other."""
    ends = [0.0, *accumulate(depth for *_, depth in layers)]
    cells = [XYCells(n=n, pitch_mm=pitch) for n, pitch, _ in layers]
    spans = pairwise(round(end, 6) for end in ends)
    return Geometry.of_layers(
        name, [CellLayer(*x) for x in zip(cells, spans, strict=True)], symmetry
    )


CALOGAN = _stack(
    "calogan",
    [
        ((3, 96), (160.0, 5.0), 90.0),
        ((12, 12), (40.0, 40.0), 347.0),
        ((12, 6), (40.0, 80.0), 43.0),
    ],
    "D2",
)
# depths as of detector ild-ecal; which of the file's two axes is x does not say its description
ILD = _stack(
    "ild-ecal",
    [((30, 30), (5.0, 5.0), 4.875)] * 20 + [((30, 30), (5.0, 5.0), 6.975)] * 10,
    "D4",
)
_LAYERS: dict[str, tuple[int, ...]] = {
    "layer_0": (3, 96),
    "layer_1": (12, 12),
    "layer_2": (12, 6),
}
_GROUP = "30x30"


class CaloganReader(Reader):
    """An open file of CaloGAN or of *Getting High*.

    Args:
        geometry: another one with as many cells, instead of `CALOGAN` or `ILD`.
        unit: of the cells (default MeV); incident energies are GeV.

    Raises DataError on a missing dataset, and on rows or cells that do not fit.
    """

    def __init__(
        self,
        path: Path,
        *,
        geometry: Geometry | None = None,
        unit: str | None = None,
        allow_empty_showers: bool = False,
    ) -> None:
        self.path, self.allow_empty_showers = path, allow_empty_showers
        self.unit, self.meta = check_unit(unit or "MeV", path), {}
        with damaged(path):
            self._file = open_hdf5(path)
            try:
                self._open(geometry)
            except BaseException:
                self._file.close()
                raise

    def _open(self, geometry: Geometry | None) -> None:
        file, path = self._file, self.path
        ild = _is_ild(file)
        own = ILD if ild else CALOGAN
        shapes = {f"{_GROUP}/layers": (30, 30, 30)} if ild else _LAYERS
        energy = file[f"{_GROUP}/energy" if ild else "energy"]
        self._layers = [file[name] for name in shapes]
        self._overflow = None if ild else file.get("overflow")
        n = energy.size or 0
        if n == 0:
            raise DataError(f"{path}: holds no showers")
        for dataset, shape in zip(self._layers, shapes.values(), strict=True):
            check_declared(dataset, path)
            if dataset.shape != (n, *shape) or dataset.dtype.kind not in "fiu":
                raise DataError(
                    f"{path}: {dataset.name[1:]!r} must be numbers of shape {(n, *shape)}, one row for "
                    f"each of the {n} energies, got {dataset.dtype} of shape {dataset.shape}"
                )
        check_declared(energy, path)
        if energy.dtype.kind not in "fiu":
            raise DataError(f"{path}: {energy.name[1:]!r} must be numbers, got {energy.dtype}")
        if self._overflow is not None and self._overflow.shape[:1] != (n,):
            raise DataError(f"{path}: 'overflow' has other rows than the {n} energies")
        if geometry is not None and geometry.n_cells != own.n_cells:
            raise DataError(
                f"{path}: {own.n_cells} cells per shower, but geometry {geometry.name!r} has "
                f"{geometry.n_cells}; leave the geometry out to take {own.name!r}"
            )
        self.geometry = geometry or own
        self.incident_energy = energy[...].reshape(-1).astype(np.float64) * GEV

    def _block(self, start: int, stop: int) -> Block:
        rows = slice(start, stop)
        cells = [layer[rows].reshape(max(0, stop - start), -1) for layer in self._layers]
        columns = {} if self._overflow is None else {"overflow": self._overflow[rows]}
        return Block(np.concatenate(cells, axis=1), columns=columns)

    def close(self) -> None:
        self._file.close()


def _is_ild(file: h5py.File) -> bool:
    return all(isinstance(file.get(f"{_GROUP}/{k}"), h5py.Dataset) for k in ("energy", "layers"))


def _is_calogan(file: h5py.File) -> bool:
    return all(isinstance(file.get(name), h5py.Dataset) for name in ("energy", *_LAYERS))


FORMAT = Format(
    "calogan",
    (),  # no suffix: never chosen for writing
    lambda path: passes(path, lambda file: _is_calogan(file) or _is_ild(file)),
    CaloganReader,
    open_calochallenge_writer,
)
