"""From files to the samples of an evaluation: cells of one plane in memory, all else block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hepbridge.core.errors import DataError
from hepbridge.core.progress import Bar, progress
from hepbridge.data import io
from hepbridge.data.cell_map import CellMap
from hepbridge.data.formats.base import Reader
from hepbridge.data.formats.points import PointReader, is_points, open_points
from hepbridge.data.geometry import Geometry
from hepbridge.data.join import join
from hepbridge.metrics.kinds import is_plane
from hepbridge.metrics.shapes.layout import Layout
from hepbridge.metrics.shapes.shapes import SPECTRUM_SHOWERS, THRESHOLD_MEV, Block, Shapes

__all__ = ["BLOCK_BYTES", "read_samples"]

AnyReader = Reader | PointReader

BLOCK_BYTES = 1 << 26
"""Of cells that are in memory at a time."""


def read_samples(
    files: Mapping[str, Sequence[Path]],
    geometry: Geometry | CellMap | None = None,
    *,
    threshold_mev: float = THRESHOLD_MEV,
    block_bytes: int = BLOCK_BYTES,
) -> dict[str, Any]:
    """The samples that `hepbridge.metrics.evaluate` wants, from files; those of one name are joined.

    The first sample decides: showers of one plane of cells in x and y are loaded; of any other
    calorimeter, and of points, only the `Shapes` are kept, and files are read once, in blocks, with memory
    that does not grow with the number of cells. ``geometry`` says where the cells are where files do
    not. Layers of points without a geometry are those that suit the first 1,000 showers of the
    first sample. Showers without any energy are allowed in all but one plane.

    Raises DataError for files that cannot be read or do not fit each other.
    """
    first = next(iter(files.values()))[0]
    dense = geometry if isinstance(geometry, Geometry) else None
    if not is_points(first):
        with io.open_reader(first, geometry=dense, allow_empty_showers=True) as opened:
            found = opened.geometry
        if is_plane(found):
            return {
                name: join(
                    [io.load(p, geometry=dense) for p in paths], [str(path) for path in paths]
                )
                for name, paths in files.items()
            }
        layout = Layout.of(found)
    else:
        layout = _layout_of_points(first, geometry)
    cells = geometry if isinstance(geometry, CellMap) else None
    out: dict[str, Any] = {}
    with ExitStack() as stack:
        readers: dict[str, list[AnyReader]] = {name: [] for name in files}
        for name, paths in files.items():
            for path in paths:
                reader = _opened(path, dense, cells)
                stack.callback(reader.close)
                readers[name].append(reader)
        every = sum(len(r) for parts in readers.values() for r in parts)
        bar = stack.enter_context(progress("read", every))
        for name, parts in readers.items():
            out[name] = _shapes(name, parts, layout, threshold_mev, block_bytes, bar)
    return out


def _layout_of_points(path: Path, geometry: Geometry | CellMap | None) -> Layout:
    if isinstance(geometry, Geometry):
        return Layout.of(geometry)
    if isinstance(geometry, CellMap):
        return Layout.of_cell_map(geometry)
    with open_points(path) as points:
        return Layout.of_points(points.read(0, SPECTRUM_SHOWERS), path.stem)


def _opened(path: Path, geometry: Geometry | None, cells: CellMap | None) -> AnyReader:
    if is_points(path):
        return open_points(path, cells=cells)
    return io.open_reader(path, geometry=geometry, allow_empty_showers=True)


def _blocks(part: AnyReader, block_bytes: int) -> Iterator[Block]:
    if isinstance(part, Reader):
        return part.blocks(max(1, block_bytes // (4 * part.geometry.n_cells)))
    return part.blocks()


def _shapes(
    name: str,
    parts: Sequence[AnyReader],
    layout: Layout,
    threshold_mev: float,
    block_bytes: int,
    bar: Bar,
) -> Shapes:
    energy = np.concatenate([part.incident_energy for part in parts])
    blocks = chain.from_iterable(_blocks(part, block_bytes) for part in parts)
    try:
        return Shapes.of_blocks(
            blocks,
            energy,
            layout,
            threshold_mev=threshold_mev,
            meta=dict(parts[0].meta),
            advance=lambda n: bar.advance(n, name),
        )
    except DataError as error:
        raise DataError(f"{name!r}: {error}") from error
