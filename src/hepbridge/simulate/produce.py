"""A file of simulated showers: in pieces, resumable, complete or not there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge import __version__
from hepbridge.core.errors import ConfigError, DataError, HepbridgeError, OutputError
from hepbridge.core.files import atomic_path, check_output, save_array
from hepbridge.core.jobs import (
    EXECUTORS,
    Chunk,
    Request,
    chunks,
    cores,
    new_file,
    parts_folder,
    pieces,
    together,
    work_to_do,
)
from hepbridge.data import io
from hepbridge.data.showers import Showers
from hepbridge.simulate.detector import Detector
from hepbridge.simulate.engines import Engine
from hepbridge.simulate.gun import Gun

__all__ = ["produce"]

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 26  # of cells in one piece of work, about
SUFFIXES = (".h5", ".hdf5")


def produce(
    engine: Engine,
    detector: Detector,
    gun: Gun,
    n: int | None,
    output: str | Path,
    *,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    chunk: int | None = None,
    workers: int | None = None,
    executor: str = "local",
    overwrite: bool = False,
) -> bool:
    """Simulate ``n`` showers into a file.

    The file holds the showers, their event ids, the conditions of the beam, everything that defines
    the sample as attributes, and a manifest of the request. If a file with an equal manifest is
    there, it is complete and nothing is done (returns False). An interrupted run, even a killed
    one, goes on where it stopped. Neither the pieces, nor the number of workers, nor interruptions
    change a bit of the file.

    Args:
        n: number of showers; None: as many as the gun's file of energies has.
        seed: of the engine (default: that of the gun).
        options: further arguments of the engine.
        chunk: showers in one piece of work.
        workers: processes, or threads of an engine that is threaded (default: `cores`).
        executor: a name in `EXECUTORS`: who runs the pieces.

    Raises:
        ConfigError, DataError, OutputError, MissingExtraError: as the message says.
        SimulationError: the engine failed; finished pieces are kept.
    """
    output, n = _checked_output(output), _number(n, gun)
    run = EXECUTORS[executor]
    workers = cores() if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    todo = chunks(n, _chunk(engine, detector, chunk))
    options = dict(options or {})
    described = engine.describe(detector, gun.particles, options)
    alone = {"threads": workers} if engine.threaded else {}
    processes = 1 if engine.threaded else workers
    work = _Work(engine, detector, gun, gun.seed if seed is None else seed, options | alone)
    request = Request(
        {
            "command": "simulate",
            "engine": engine.name,
            "detector": detector.to_dict(),
            "beam": gun.record(),
            "n": n,
            "seed": work.seed,
            "described": described,
            "hepbridge": __version__,
        }
    )
    if not work_to_do(output, request, io.read_manifest, overwrite=overwrite):
        return False
    check_output(output, overwrite=overwrite)
    with (
        together(output, request, io.read_manifest),
        parts_folder(output, request) as folder,
        new_file(output, folder, overwrite=overwrite) as path,
    ):
        title = f"simulate {engine.name}"
        try:
            made = run(pieces(work, todo, folder), rows=n, workers=processes, title=title)
            parts = [piece.path for piece in made]
        except HepbridgeError as error:
            kept = len(list(folder.glob("*.npy")))
            words = (
                f"\n{kept} of {len(todo)} pieces are finished and kept; the same command goes on"
            )
            raise type(error)(f"{error}{words if kept else ''}") from error
        meta = {**_provenance(work), **described, "seed": work.seed}
        _write(work, todo, parts, path, meta, request)
    return True


@dataclass(frozen=True)
class _Work:
    """One piece, as a task that can be sent to another process."""

    engine: Engine
    detector: Detector
    gun: Gun
    seed: int
    options: dict[str, Any]

    def __call__(self, chunk: Chunk, path: Path) -> None:
        beam = self.gun.beam(chunk.start, chunk.stop)
        cells = self.engine.simulate()(self.detector, beam, seed=self.seed, **self.options)
        wanted = (len(chunk), self.detector.geometry().n_cells)
        if cells.shape != wanted:
            raise DataError(
                f"{self.engine.name} returned cells of shape {cells.shape}, not {wanted}"
            )
        with atomic_path(path, overwrite=True) as temporary:
            save_array(temporary, cells.astype(np.float32, copy=False))

    def showers(self, chunk: Chunk, cells: NDArray[np.float32]) -> Showers:
        """What the file says about a piece."""
        beam = self.gun.beam(chunk.start, chunk.stop)
        conditions = beam.conditions(self.gun.conditions)
        return Showers.from_arrays(
            cells,
            conditions.pop("incident_energy"),
            geometry=self.detector.geometry(),
            conditions=dict(conditions),
            event_ids=beam.event_ids,
            where=self.engine.name,
            first_row=chunk.start,
            allow_empty_showers=True,
        )


def _provenance(work: _Work) -> dict[str, Any]:
    """Everything that defines the sample, for the attributes of its file."""
    beam, detector = work.gun.record(), work.detector
    return {
        "simulation": f"{work.engine.title} (hepbridge {__version__})",
        "engine": work.engine.name,
        "hepbridge": __version__,
        "detector": detector.name,
        "detector_digest": detector.digest(),
        "detector_yaml": detector.to_yaml(),
        "particle": beam.pop("particle"),
        "beam_seed": beam.pop("seed"),
        **beam,
    }


def _write(
    work: _Work,
    todo: list[Chunk],
    parts: list[Path],
    path: Path,
    meta: dict[str, Any],
    request: Request,
) -> None:
    empty, n, manifest = 0, todo[-1].stop, request.fields
    with io.open_writer(path, like=meta, n=n, manifest=manifest) as writer:
        for block in chunks(n, _chunk(work.engine, work.detector, None)):
            # not piece by piece: the bits of a compressed file depend on the blocks it is written in
            inside = [
                np.load(part, mmap_mode="r", allow_pickle=False)[
                    max(block.start - piece.start, 0) : block.stop - piece.start
                ]
                for piece, part in zip(todo, parts, strict=True)
                if piece.start < block.stop and block.start < piece.stop
            ]
            showers = work.showers(block, np.concatenate(inside))
            empty += int((showers.e_sum == 0).sum())
            writer.append(showers)
    if empty:
        log.warning(
            "%d of %d showers left no energy in any cell; such a file is read with "
            "allow_empty_showers=True only",
            empty,
            n,
        )


def _checked_output(output: str | Path) -> Path:
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"cannot write {output}: simulated showers go into a file that ends in "
            f"{' or '.join(SUFFIXES)}, which holds all that defines them"
        )
    return output


def _number(n: int | None, gun: Gun) -> int:
    size = gun.energies.size
    if n is None and size is None:
        raise ConfigError("the number of showers is missing: pass --n, or energies file:E.h5")
    n = size if n is None else n
    assert n is not None
    if n < 1:
        raise ConfigError(f"the number of showers must be at least 1, not {n}")
    if size is not None and n > size:
        raise ConfigError(f"{n} showers are asked for, but the file has {size} energies")
    return n


def _chunk(engine: Engine, detector: Detector, chunk: int | None) -> int:
    if chunk is None:
        return max(1, min(engine.chunk, PIECE_BYTES // (4 * detector.geometry().n_cells)))
    if chunk < 1:
        raise ConfigError(f"chunk must be at least 1, not {chunk}")
    return chunk
