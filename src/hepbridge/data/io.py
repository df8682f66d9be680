"""Reading and writing shower files: finds the format, which does the work."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hepbridge.core.errors import DataError, HepbridgeError, OutputError
from hepbridge.data.formats import FORMATS
from hepbridge.data.formats.base import Format, Reader, Writer
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers, require_showers

__all__ = ["load", "open_reader", "open_writer", "read_manifest", "save", "written_format"]


def load(
    path: str | Path,
    *,
    geometry: Geometry | None = None,
    rows: slice | int | None = None,
    unit: str | None = None,
    **options: Any,
) -> Showers:
    """The showers of a file.

    Args:
        path: HDF5 of the CaloChallenge, CaloGAN or ILD, SQuIRELS ``.npy`` or ROOT, recognised by its
            content.
        geometry: where the cells are; one that is stored in the file must agree with it. None
            takes the stored one, and that of the SQuIRELS calorimeter where there is none.
        rows: a slice, or the number of first rows; event ids stay those of the whole file.
        unit: "MeV" or "GeV" of the cells, where the file does not follow its format's custom.
        options: of the format, see its reader (``incident_energy``, ``tree``, …) and
            ``allow_empty_showers``.

    Raises:
        DataError: the file is not what it claims to be; the message says where and why.
    """
    with open_reader(path, geometry=geometry, unit=unit, **options) as reader:
        wanted = slice(rows) if isinstance(rows, int) else rows or slice(None)
        start, stop, step = wanted.indices(len(reader))
        if step < 1:
            raise DataError(f"{path}: rows={rows} runs backwards; the step must be positive")
        showers = reader.read(start, max(start, stop))
        return showers if step == 1 else showers[::step]


def save(
    showers: Showers,
    path: str | Path,
    *,
    overwrite: bool = False,
    manifest: Mapping[str, Any] | None = None,
) -> None:
    """Write showers to a file; its suffix chooses the format (.h5, .hdf5, .npy, .root).

    Raises OutputError if the file exists (unless ``overwrite``) or cannot be written; then
    nothing is left behind.
    """
    require_showers(showers, "showers")
    with open_writer(
        path, like=showers, n=len(showers), manifest=manifest, overwrite=overwrite
    ) as writer:
        writer.append(showers)


def open_reader(
    path: str | Path,
    *,
    geometry: Geometry | None = None,
    unit: str | None = None,
    **options: Any,
) -> Reader:
    """An open file for reading in blocks with constant memory; arguments as in `load`."""
    path = Path(path)
    chosen = _recognise(path)
    try:
        return chosen.reader(path, geometry=geometry, unit=unit, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise DataError(
            f"{path}: the format {chosen.name} has no such option ({error}); given: "
            f"{', '.join(options)}"
        ) from error


def open_writer(
    path: str | Path,
    *,
    like: Reader | Showers | Mapping[str, Any] | None = None,
    n: int | None = None,
    manifest: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> AbstractContextManager[Writer]:
    """A context whose ``append(showers)`` adds rows; the file appears, complete, when it ends.

    ``like`` gives the provenance (default: that of the first block); ``n``, if given, is the
    number of rows without which the file is not complete. ``manifest`` is any JSON-able record.
    """
    path = Path(path)
    meta = like if like is None or isinstance(like, Mapping) else like.meta
    return written_format(path).writer(path, meta=meta, n=n, manifest=manifest, overwrite=overwrite)


def written_format(path: str | Path) -> Format:
    """The format in which a file is written, by its suffix. Raises OutputError for another suffix."""
    path = Path(path)
    names = {suffix: name for name in FORMATS for suffix in FORMATS[name].suffixes}
    if path.suffix.lower() not in names:
        raise OutputError(
            f"cannot write {path}: the suffix {path.suffix!r} is not one of a shower file; "
            f"allowed: {', '.join(names)}"
        )
    chosen: Format = FORMATS[names[path.suffix.lower()]]
    return chosen


def read_manifest(path: str | Path) -> dict[str, Any] | None:
    """The manifest that the writer of a file stored; None if there is no such file or manifest."""
    try:
        with open_reader(path) as reader:
            return reader.manifest
    except HepbridgeError:
        return None


def _recognise(path: Path) -> Format:
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if not path.is_file():
        raise DataError(f"{path}: is not a file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    known: list[Format] = [FORMATS[name] for name in FORMATS]
    try:
        for candidate in known:
            if candidate.recognises(path):
                return candidate
        with open(path, "rb") as handle:
            start = handle.read(8)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error})") from error
    claimed = [c.name for c in known if path.suffix.lower() in c.suffixes]
    what = "not a shower file"
    if claimed:
        what = f"not a {claimed[0]} file, although it is named {path.suffix}"
    if path.suffix == ".safetensors":
        raise DataError(
            f"{path}: a model, not showers; hepbridge generate or hepbridge refine makes showers with it"
        )
    raise DataError(
        f"{path}: {what}: it starts with {start!r}; it may be truncated or of another kind. "
        "Allowed: HDF5 of the CaloChallenge, CaloGAN or ILD, SQuIRELS .npy, ROOT"
    )
