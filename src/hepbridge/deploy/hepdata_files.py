"""The files of a HEPData submission: a folder or an archive, complete or not there at all."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from hepbridge.core.errors import OutputError
from hepbridge.core.files import atomic_path, replaced_folder

__all__ = ["written"]

_ARCHIVE = ".tar.gz"


def written(files: Mapping[str, str], path: str | Path, overwrite: bool) -> Path:
    """Write files (name -> text) into a new folder, or into a ``.tar.gz`` with the same bytes every time.

    A folder is replaced only if it holds a submission and nothing else. Raises OutputError if it cannot be.
    """
    path = Path(path)
    if path.name.endswith(_ARCHIVE):
        with (
            atomic_path(path, overwrite=overwrite) as temporary,
            open(temporary, "wb") as handle,
            gzip.GzipFile("", "wb", fileobj=handle, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                content = text.encode()
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path
    _check_folder(path, overwrite)
    with replaced_folder(path, "the submission") as folder:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    return path


def _check_folder(path: Path, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise OutputError(
            f"{path} is a file; give the name of a folder, or one that ends in .tar.gz"
        )
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist")
    there = sorted(e.name for e in path.iterdir()) if path.is_dir() else []
    foreign = [name for name in there if not name.endswith(".yaml")]
    if foreign or (there and "submission.yaml" not in there):
        raise OutputError(
            f"{path} holds files that are no part of a submission ({(foreign or there)[0]}); choose "
            "another folder"
        )
    if there and not overwrite:
        raise OutputError(
            f"{path} holds a submission already; choose another folder or pass --overwrite "
            "(overwrite=True in Python)"
        )
