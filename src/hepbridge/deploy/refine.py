"""Refining files: in constant memory, resumable, complete or not there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hepbridge import __version__
from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.files import atomic_path, check_output, file_digest
from hepbridge.core.jobs import Chunk, Request, chunks, parts_folder, run_chunks, work_to_do
from hepbridge.data import io
from hepbridge.data.formats.base import Reader
from hepbridge.data.geometry import Geometry
from hepbridge.data.response import check_units
from hepbridge.systems import model_file
from hepbridge.systems.inference import (
    TILE,
    check_domain,
    outside_domain,
    refine_cells,
    wrong_geometry,
)

__all__ = ["refine_file"]

log = logging.getLogger(__name__)

CHUNK = 256 * TILE  # rows of one piece of work
_LOOK = 1024  # first rows, which show the units


def refine_file(
    model: str | Path,
    fast: str | Path,
    output: str | Path,
    *,
    seed: int = 0,
    member: int = 0,
    batch: int = 16 * TILE,
    workers: int = 1,
    strict: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
) -> bool:
    """Refine a file of fast showers into another file.

    All that the input carries (event ids, weights, conditions, the user's columns) is kept. The
    output holds a manifest of the request; if it exists with an equal manifest it is complete and
    nothing is done (returns False). An interrupted run continues where it stopped. Batch size,
    number of workers and interruptions change no bit of the result.

    Raises:
        DataError, ModelFileError, DomainError, OutputError, ConfigError: as the message says.
    """
    model_path, fast, output = model_file.locate(str(model)), Path(fast), Path(output)
    if output.resolve() == fast.resolve():
        raise ConfigError(f"the output {output} is the input; choose another name")
    loaded = _model(str(model_path))  # refuses a bad model before the data are hashed
    with _opened(fast, loaded) as reader:
        request = Request(
            {
                "command": "refine",
                "model": file_digest(model_path),
                "input": file_digest(fast),
                "seed": seed,
                "member": member,
                "hepbridge": __version__,
            }
        )
        if not work_to_do(output, request, io.read_manifest, overwrite=overwrite):
            return False
        check_output(output, overwrite=overwrite)
        check_units(reader.read(0, _LOOK), str(fast))
        work = _Work(
            str(model_path), str(fast), loaded.geometry, seed, member, batch, device, strict
        )
        made = {
            "refined_by": loaded.recipe.system,
            "refined_model": request.fields["model"],
            "refined_seed": seed,
        }
        todo = chunks(len(reader), CHUNK)
        with (
            parts_folder(output, request) as folder,
            io.open_writer(
                output,
                like={**reader.meta, **made},
                n=len(reader),
                manifest=request.fields,
                overwrite=overwrite,
            ) as writer,
        ):
            parts = run_chunks(work, todo, folder, workers=workers, title="refine")
            for chunk, part in zip(todo, parts, strict=True):
                showers = reader.read(chunk.start, chunk.stop)
                refined = showers.with_cells(np.load(part, allow_pickle=False), **made)
                refined.columns["outside_domain"] = outside_domain(loaded, showers, warn=False)
                writer.append(refined)
    return True


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

    model_path: str
    fast: str
    geometry: Geometry
    seed: int
    member: int
    batch: int
    device: str
    strict: bool

    def model(self) -> Any:
        return _model(self.model_path)

    def __call__(self, chunk: Chunk, path: Path) -> None:
        with io.open_reader(self.fast, geometry=self.geometry) as reader:
            showers = reader.read(chunk.start, chunk.stop)
        check_domain(self.model(), showers)
        outside_domain(self.model(), showers, strict=self.strict)
        cells = refine_cells(
            self.model(),
            showers.cells,
            showers.incident_energy,
            showers.event_ids,
            conditions=showers.conditions,
            seed=self.seed,
            member=self.member,
            batch=self.batch,
            device=self.device,
        )
        with atomic_path(path, overwrite=True) as temporary, open(temporary, "wb") as handle:
            np.save(handle, cells, allow_pickle=False)


@lru_cache(maxsize=1)
def _model(path: str) -> Any:
    """The model, read once per process."""
    return model_file.load(path)
