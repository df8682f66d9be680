"""Atomic files: an output is complete under its name or not there at all."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import OutputError

__all__ = [
    "adopt",
    "atomic_path",
    "check_ordinary",
    "check_output",
    "file_digest",
    "replaced_folder",
    "save_array",
    "write_text",
]

_FULL = re.compile("No space left|[0-9]+ requested and [0-9]+ written")  # the latter: NumPy


def check_output(path: str | Path, *, overwrite: bool = False) -> Path:
    """The path, if a file may be written there.

    Raises OutputError if it exists (unless ``overwrite``), is a folder, or lies in no folder.
    """
    path = Path(path)
    check_ordinary(path)
    if os.path.lexists(path) and not overwrite:
        raise OutputError(
            f"{path} exists already; choose another name or pass --overwrite "
            "(overwrite=True in Python)"
        )
    if not path.parent.is_dir():
        raise OutputError(
            f"cannot write {path}: the folder {path.parent} does not exist; make it first"
        )
    if not os.access(path.parent, os.W_OK):
        raise OutputError(
            f"cannot write {path}: no permission to write in the folder {path.parent}"
        )
    return path


def check_ordinary(path: Path) -> None:
    """Raise OutputError if something stands at ``path`` that no output ever replaces, such as a folder."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file to write")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is no ordinary file; give another name")


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as ``.npy``. Raises OSError if it could not be written whole.

    `numpy.save` hands the numbers to a stream of C, and does not look whether its last bytes arrived:
    on a disk that becomes full just then, the file is too short and nobody is told.
    """
    values = np.ascontiguousarray(array)
    with open(path, "wb") as handle:
        header = np.lib.format.header_data_from_array_1_0(values)
        np.lib.format.write_array_header_1_0(handle, header)
        handle.write(values.data)


@contextmanager
def replaced_folder(path: Path, what: str) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its name if the block ends without an error.

    What stood there is gone then, and untouched otherwise; whoever calls has asked whether it may be.
    Raises OutputError, which names ``what`` it is, if it cannot be written.
    """
    token = secrets.token_hex(4)
    temporary, old = (path.with_name(f".{path.name}.{token}.{kind}") for kind in ("part", "old"))
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {what} {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` that becomes ``path`` when the block ends without an error.

    The data are on disk (fsync) before the name changes. On any error, a full disk included,
    the temporary file is removed and what stood at ``path`` before is untouched. A process that was
    killed leaves its temporary file; the next one that writes the same path removes it.
    """
    path = check_output(path, overwrite=overwrite)
    _sweep(path)
    temporary = path.with_name(f".{path.name}.{_here()}-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        temporary.chmod(0o666 & ~_umask())  # some writers make private files
        adopt(temporary, path, overwrite=overwrite)
    except Exception as error:  # not OSError alone: safetensors has an error of its own for it
        if isinstance(error, OutputError) or not (
            isinstance(error, OSError) or "I/O error" in str(error)
        ):
            raise
        if getattr(error, "errno", None) == errno.ENOSPC or _FULL.search(str(error)):
            raise OutputError(
                f"the disk is full while writing {path}; free some space and run again "
                "(nothing was left behind)"
            ) from error
        raise OutputError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The permissions that this process withholds; the system can only tell by setting them."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def adopt(temporary: Path, path: Path, *, overwrite: bool = False) -> None:
    """Give a finished file, on the same disk, its name; the old name goes.

    Raises OutputError, unless ``overwrite``, if another process made such a file in the meantime.
    """
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise OutputError(f"{path} was written by another process in the meantime") from error
    except OSError:  # a file system without hard links
        os.replace(temporary, path)
    temporary.unlink(missing_ok=True)


@cache
def _here() -> str:
    """Names the processes among which a number means one process: of a host, or of a container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=4).hexdigest()


def _sweep(path: Path) -> None:
    """Remove temporary files of ``path`` whose process, of this host, is gone."""
    if os.name != "posix":  # elsewhere signal 0 does not ask, it kills
        return
    start, end = f".{path.name}.{_here()}-", ".part"
    with suppress(OSError):
        for entry in path.parent.glob(f"{glob.escape(start)}*{end}"):
            number = entry.name[len(start) :].partition("-")[0]
            if number.isdigit() and not _alive(int(number)):
                entry.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def write_text(path: str | Path, text: str, *, overwrite: bool = True) -> None:
    """Write a text file atomically."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_digest(path: str | Path) -> str:
    """blake2b-128 of a file's bytes, as hex: the name of its content in manifests."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as handle:
        while chunk := handle.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
