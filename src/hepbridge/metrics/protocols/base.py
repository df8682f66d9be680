"""What a protocol is, and samples that it reads in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.formats.base import Reader
from hepbridge.data.geometry import Geometry
from hepbridge.data.io import open_reader
from hepbridge.data.showers import Showers

__all__ = ["EvaluationProtocol", "Source"]

Block = tuple[NDArray[np.float32], NDArray[np.float64]]
"""Cells (n, n_cells) and incident energies (n,), MeV."""

_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class Source:
    """A sample that is read, as often as needed, in blocks that fit into memory.

    ``blocks()`` starts a new reading; ``n`` is the number of showers; ``path`` names the files.
    """

    name: str
    n: int
    blocks: Callable[[], Iterator[Block]]
    path: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_showers(cls, name: str, showers: Showers, geometry: Geometry) -> Source:
        """Showers in memory. Raises DataError if their cells are not those of ``geometry``."""
        _check(showers.geometry, geometry, repr(name))
        if showers.weights is not None:
            raise DataError(f"{name!r} has weights; this protocol counts showers")
        rows = _rows_of(geometry)

        def blocks() -> Iterator[Block]:
            for start in range(0, len(showers), rows):
                part = slice(start, start + rows)
                yield showers.cells[part], showers.incident_energy[part]

        return cls(name, len(showers), blocks, None, dict(showers.meta))

    @classmethod
    def of_files(
        cls,
        name: str,
        paths: Sequence[Path],
        geometry: Geometry,
        *,
        sampling_fraction: float | None = None,
    ) -> Source:
        """Files one after another; cell energies are divided by ``sampling_fraction``, if given.

        A file that stores its geometry must have the cells of ``geometry``; how deep its layers lie
        does not matter. Showers without any energy are allowed.

        Raises DataError for files that do not fit, ConfigError for a fraction outside (0, 1].
        """
        if sampling_fraction is not None and not 0 < sampling_fraction <= 1:
            raise ConfigError(
                f"a sampling fraction lies between 0 and 1, not at {sampling_fraction}"
            )
        n, meta = 0, dict[str, Any]()
        for path in paths:
            with _opened(path, geometry) as reader:
                n += len(reader)
                meta = meta or dict(reader.meta)
        blocks = partial(_read, tuple(paths), geometry, 1.0 / (sampling_fraction or 1.0))
        return cls(name, n, blocks, " ".join(map(str, paths)), meta)


class EvaluationProtocol(Protocol):
    """A published evaluation. Made from plain keyword options; unknown ones are a ConfigError."""

    @property
    def geometry(self) -> Geometry:
        """The cells that all samples must have."""

    def evaluate(
        self,
        ref: Source,
        candidates: Mapping[str, Source],
        ref2: Source | None = None,
        *,
        classifiers: Sequence[str] = (),
        runs: int = 10,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Compare candidates with ``ref``; the record consists of plain JSON values.

        ``ref2``, a second full simulation, is judged as a candidate: the floor of every number.
        ``classifiers`` names those of the protocol's classifier tests that are run, ``runs`` times.
        """


def _read(paths: Sequence[Path], geometry: Geometry, factor: float) -> Iterator[Block]:
    for path in paths:
        with closing(_opened(path, geometry)) as reader:
            for showers in reader.blocks(_rows_of(geometry)):
                if showers.weights is not None:
                    raise DataError(f"{path} has weights; this protocol counts showers")
                cells = showers.cells if factor == 1.0 else showers.cells * np.float32(factor)
                yield cells, showers.incident_energy


def _opened(path: Path, geometry: Geometry) -> Reader:
    """A reader of the file; it takes ``geometry`` where the file does not say what its cells are."""
    try:
        return open_reader(path, geometry=geometry, allow_empty_showers=True)
    except DataError as error:
        try:
            reader = open_reader(path, allow_empty_showers=True)
        except DataError:
            raise error from None
        try:
            _check(reader.geometry, geometry, str(path))
        except DataError:
            reader.close()
            raise
        return reader


def _check(found: Geometry, asked: Geometry, where: str) -> None:
    """Raise DataError unless both have the same cells, whatever the depth of their layers."""
    if [p.cells for p in found.planes()] != [p.cells for p in asked.planes()]:
        raise DataError(
            f"{where}: has geometry {found.name!r} with {found.n_cells} cells in "
            f"{len(found.planes())} layers, but the protocol asks for the cells of {asked.name!r}: "
            f"{asked.n_cells} in {len(asked.planes())} layers"
        )


def _rows_of(geometry: Geometry) -> int:
    return max(1, _BLOCK_BYTES // (4 * geometry.n_cells))
