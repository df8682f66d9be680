"""One file of showers to be refined: its request, its pieces, and how they become the output."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from hepbridge import __version__
from hepbridge.core.errors import ConfigError, DataError, OutputError
from hepbridge.core.files import atomic_path, check_output, file_digest, save_array
from hepbridge.core.jobs import (
    RESULT,
    Chunk,
    Piece,
    Request,
    chunks,
    is_answer,
    new_file,
    parts_folder,
    piece_array,
    pieces,
    together,
    work_to_do,
)
from hepbridge.data import io
from hepbridge.data.formats.base import Reader
from hepbridge.data.geometry import Geometry
from hepbridge.data.response import check_units
from hepbridge.deploy.contents import Contents
from hepbridge.deploy.trained import Trained
from hepbridge.systems import model_file
from hepbridge.systems.checks import (
    LOOK,
    check_domain,
    check_response,
    outside_domain,
    wrong_geometry,
)
from hepbridge.systems.inference import TILE, refine_cells

__all__ = ["Options", "RefineJob"]

CHUNK = 256 * TILE  # rows of one piece of work, at most
PIECE_BYTES = 1 << 26  # of its cells, about


@dataclass(frozen=True)
class Options:
    """What is asked of a refinement; all but seed and member change no bit of the result."""

    seed: int = 0
    member: int = 0
    batch: int = 16 * TILE
    device: str = "cpu"
    strict: bool = False
    overwrite: bool = False


@dataclass
class RefineJob:
    """One input and its output. Raises what is wrong with the input's header when it is made."""

    trained: Trained
    fast: Path
    output: Path
    options: Options
    n: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    mine: list[Chunk] = field(default_factory=list)  # those of this shard
    pieces: list[Piece] = field(default_factory=list)  # all of them, once they are begun
    stack: ExitStack = field(default_factory=ExitStack)  # holds the folder of the pieces

    def __post_init__(self) -> None:
        self.fast, self.output = self.fast.absolute(), self.output.absolute()
        if self.output.resolve() == self.fast.resolve():
            raise ConfigError(f"the output {self.output} is the input; choose another name")
        io.written_format(self.output)
        model = self.trained.load()
        with _opened(self.fast, model) as reader:
            self.n = len(reader)
        fit = PIECE_BYTES // (4 * model.geometry.n_cells) // TILE
        self.chunks = chunks(self.n, min(CHUNK, max(1, fit) * TILE))
        self.mine = self.chunks

    @cached_property
    def request(self) -> Request:
        return Request(
            {
                "command": "refine",
                "model": self.trained.digest,
                "input": file_digest(self.fast),
                "seed": self.options.seed,
                "member": self.options.member,
                "hepbridge": __version__,
            }
        )

    def needed(self) -> bool:
        """False if the output is there. Raises OutputError if another file is in its place, and
        DataError for units that cannot be."""
        self._seen = _state(self.fast)
        overwrite = self.options.overwrite
        if not work_to_do(self.output, self.request, io.read_manifest, overwrite=overwrite):
            return False
        check_output(self.output, overwrite=overwrite)
        with _opened(self.fast, self.trained.load()) as reader:
            first = reader.read(0, LOOK)
        check_units(first, str(self.fast))
        check_response(self.trained.load(), first, str(self.fast), strict=self.options.strict)
        return True

    def begin(self) -> list[Piece]:
        """The pieces of this shard, in a folder that is made for them."""
        self._folder = self.stack.enter_context(parts_folder(self.output, self.request))
        geometry = self.trained.load().geometry
        work = _Work(self.trained, self.fast, self.output, geometry, self.options, self.request)
        self.pieces = pieces(work, self.chunks, self._folder)
        first = self.chunks.index(self.mine[0])
        return self.pieces[first : first + len(self.mine)]

    def leave(self) -> None:
        """Keep the pieces for another shard."""
        self.stack.pop_all()

    def clear(self) -> None:
        """Remove what another process, late as it was, put into the folder of the pieces."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, made: Iterator[Piece]) -> None:
        """The output, from an iterator over all pieces that waits for each."""
        model = self.trained.load()
        how = {
            "refined_by": model.recipe.system,
            "refined_model": self.trained.digest,
            "refined_seed": self.options.seed,
        }
        manifest, contents = dict(self.request.fields), Contents()
        with (
            together(self.output, self.request, io.read_manifest),
            self.stack,
            new_file(self.output, self._folder, overwrite=self.options.overwrite) as path,
            _opened(self.fast, model) as reader,
            io.open_writer(
                path, like={**reader.meta, **how}, n=self.n, manifest=manifest
            ) as writer,
        ):
            for piece in made:
                cells = piece_array(piece, model.geometry.n_cells)
                refined = reader.read_with(cells, piece.chunk.start)
                refined.columns["outside_domain"] = outside_domain(model, refined, warn=False)
                contents.add(refined)
                writer.append(refined)
            manifest[RESULT] = contents.record()
            if _state(self.fast) != self._seen:
                raise DataError(f"{self.fast}: was changed while it was read; run again")


def _state(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def _opened(fast: Path, model: model_file.Model) -> Reader:
    """The file of fast showers. Raises ModelFileError if it is good, but of another geometry."""
    try:
        return io.open_reader(fast, geometry=model.geometry)
    except DataError as error:
        with io.open_reader(fast) as reader:
            if reader.geometry.digest() != model.geometry.digest():
                raise wrong_geometry(model, reader.geometry) from error
        raise


@dataclass(frozen=True)
class _Work:
    """One chunk of rows, as a task that can be sent to another process."""

    trained: Trained
    fast: Path
    output: Path
    geometry: Geometry
    options: Options
    request: Request

    def __call__(self, chunk: Chunk, path: Path) -> None:
        if self._too_late():
            return
        model, options = self.trained.load(), self.options
        with io.open_reader(self.fast, geometry=self.geometry) as reader:
            showers = reader.read(chunk.start, chunk.stop)
        if len(showers) != len(chunk):
            raise DataError(f"{self.fast}: has lost rows while it was read; run again")
        check_domain(model, showers)
        outside_domain(model, showers, strict=options.strict)
        cells = refine_cells(
            model,
            showers.cells,
            showers.incident_energy,
            showers.event_ids,
            conditions=showers.conditions,
            seed=options.seed,
            member=options.member,
            batch=options.batch,
            device=options.device,
        )
        try:
            with atomic_path(path, overwrite=True) as temporary:
                save_array(temporary, cells)
        except OutputError:
            if not self._too_late():
                raise

    def _too_late(self) -> bool:
        """Whether another process has made the output (and removed the folder of the pieces)."""
        if self.options.overwrite or not self.output.exists():
            return False
        return is_answer(io.read_manifest(self.output), self.request)
