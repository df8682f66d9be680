"""Public data sets: what they are, where they are, and how to get them safely.

What nobody of the project has seen (a size, a checksum) is None here; a file without a checksum
is delivered with a logged warning that says "unverified". Sizes and checksums of the CaloChallenge are those that
users of its records have published; no download of it has been tried from here.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any

from hepbridge.core.errors import ConfigError, DataError, OutputError
from hepbridge.core.progress import progress

__all__ = ["CATALOGUE", "DataSet", "RemoteFile", "fetch"]

log = logging.getLogger(__name__)

BLOCK = 1 << 16
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set; ``checksum`` is ``"md5:…"`` or ``"sha256:…"``; None = not known."""

    name: str
    size: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class DataSet:
    """A public data set; a file's address is ``base_url/files/<name>``, as on Zenodo."""

    name: str
    title: str
    doi: str
    base_url: str
    files: tuple[RemoteFile, ...]

    def file(self, name: str) -> RemoteFile:
        for candidate in self.files:
            if candidate.name == name:
                return candidate
        raise ConfigError(
            f"data set {self.name!r} has no file {name!r}; known: "
            f"{', '.join(f.name for f in self.files)}"
        )


def _squirels_names() -> tuple[str, ...]:
    """As in the paths of the reference code; the record's own listing has not been seen."""
    simulations = ("GFlash01", "Geant")
    runs = ("10_100GeV_full", "10_100GeV_eval_full", *(f"{e}GeV_eval_full" for e in (20, 50, 80)))
    return tuple(f"run_{s}_100k_{run}.npy" for run in runs for s in simulations)


CATALOGUE: dict[str, DataSet] = {
    "squirels-zenodo": DataSet(
        "squirels-zenodo",
        "SQuIRELS: GFLASH and Geant4 electron showers, 10 x 10 cells (.npy)",
        "10.5281/zenodo.8275193",
        "https://zenodo.org/records/8275193",
        tuple(RemoteFile(name) for name in _squirels_names()),
    ),
    "calochallenge-1": DataSet(
        "calochallenge-1",
        "CaloChallenge, data set 1: photons and pions in an ATLAS-like calorimeter",
        "10.5281/zenodo.8099322",
        "https://zenodo.org/records/8099322",
        (
            RemoteFile("dataset_1_photons_1.hdf5", checksum="md5:005d2adeda7db034b388112661265656"),
            RemoteFile("dataset_1_photons_2.hdf5", checksum="md5:4767715ed56e99565fd9c67340661e70"),
            RemoteFile("dataset_1_pions_1.hdf5"),
            RemoteFile("dataset_1_pions_2.hdf5"),
        ),
    ),
    "calochallenge-2": DataSet(
        "calochallenge-2",
        "CaloChallenge, data set 2: electrons in a cylinder of 6,480 voxels",
        "10.5281/zenodo.6366271",
        "https://zenodo.org/records/6366271",
        (
            RemoteFile("dataset_2_1.hdf5", 1_356_475_617, "md5:e590333e9a2da51b258288d74bd8357a"),
            RemoteFile("dataset_2_2.hdf5"),
        ),
    ),
    "calochallenge-3": DataSet(
        "calochallenge-3",
        "CaloChallenge, data set 3: electrons in a cylinder of 40,500 voxels",
        "10.5281/zenodo.6366324",
        "https://zenodo.org/records/6366324",
        tuple(RemoteFile(f"dataset_3_{k}.hdf5") for k in range(1, 5)),
    ),
    "energyflow-zjets": DataSet(
        "energyflow-zjets",
        "EnergyFlow: Z + jets with Delphes, Pythia 26, 21, 25 and Herwig (.npz)",
        "10.5281/zenodo.3548091",
        "https://zenodo.org/records/3548091",
        tuple(
            RemoteFile(f"{generator}_Zjet_pTZ-200GeV_{k}.npz")
            for generator in ("Pythia26", "Herwig", "Pythia21", "Pythia25")
            for k in range(17)
        ),
    ),
}


def fetch(
    dataset: str | DataSet,
    name: str,
    folder: str | Path,
    *,
    base_url: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Path:
    """The local path of a file of a data set, downloaded unless it is there already.

    An interrupted download is kept as ``.<name>.part`` and continued by the next call (if the
    server can and its file is still the same). The file appears under its name only when it is
    complete and, where a size or checksum is known, verified; otherwise a warning says so.

    Args:
        dataset: a name in `CATALOGUE`, or a data set.
        name: of the file.
        folder: where the file goes.
        base_url: another server with the same layout.

    Raises:
        ConfigError: no such data set or file, or an address that is not http(s).
        DataError: no network, an error of the server, a download cut short, a wrong checksum.
        OutputError: the folder cannot be written or the disk is full.
    """
    if isinstance(dataset, str):
        if dataset not in CATALOGUE:
            raise ConfigError(f"unknown data set {dataset!r}; known: {', '.join(CATALOGUE)}")
        dataset = CATALOGUE[dataset]
    wanted = dataset.file(name)
    base = (base_url or dataset.base_url).rstrip("/")
    url = f"{base}/files/{urllib.parse.quote(name)}"
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"{url}: only http and https addresses are allowed")
    target = Path(folder) / name
    if target.is_file():
        log.info("%s is there already", target)
        _verify(target, wanted, url)
        return target
    part = target.with_name(f".{name}.part")
    tag = target.with_name(f".{name}.etag")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _download(url, part, tag, name, timeout_s)
        try:
            _verify(part, wanted, url)
        except DataError:
            part.unlink()
            tag.unlink(missing_ok=True)
            raise
        os.replace(part, target)
        tag.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _download(url: str, part: Path, tag: Path, title: str, timeout_s: float) -> None:
    """Fill ``part`` from where it ends; ``tag`` holds the server's name of the file's version."""
    have = part.stat().st_size if part.exists() else 0
    version = tag.read_text(encoding="utf-8") if have and tag.exists() else ""
    headers = {"User-Agent": "hepbridge", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if version:
            headers["If-Range"] = version
    with _open(url, headers, timeout_s) as response:
        if response is None:  # nothing after what we have: complete, or another file
            part.unlink()
            tag.unlink(missing_ok=True)
            return _download(url, part, tag, title, timeout_s)
        start, total = _extent(response.status, response.headers, have)
        tag.write_text(_strong_etag(response.headers), encoding="utf-8")
        with open(part, "r+b" if start else "wb") as handle, progress(title, total or 0) as bar:
            handle.seek(start)
            handle.truncate()
            bar.advance(start)
            _copy(response, handle, bar, url)
            handle.flush()
            os.fsync(handle.fileno())
    got = part.stat().st_size
    if total is not None and got != total:
        raise DataError(
            f"{url}: the connection was cut after {got} of {total} bytes; run again to continue"
        )


@contextmanager
def _open(url: str, headers: dict[str, str], timeout_s: float) -> Iterator[Any]:
    """The server's answer; None if it says (416) that the range lies behind the end of the file."""
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or "Range" not in headers:
            raise DataError(
                f"{url}: the server answers {error.code} {error.reason}; check the address, or "
                "download the file by hand into the folder"
            ) from error
        yield None
        return
    except (HTTPException, OSError) as error:  # URLError is an OSError
        raise DataError(
            f"{url}: no connection ({getattr(error, 'reason', error)}); check the network, or "
            "download the file by hand into the folder"
        ) from error
    with response:
        yield response


def _copy(response: Any, handle: IO[bytes], bar: Any, url: str) -> None:
    while True:
        try:
            block = response.read(BLOCK)
        except (HTTPException, OSError) as error:
            raise DataError(
                f"{url}: the connection was cut ({error}); run again to continue"
            ) from error
        if not block:
            return
        handle.write(block)
        bar.advance(len(block))


def _extent(status: int, headers: HTTPMessage, have: int) -> tuple[int, int | None]:
    """(first byte that the answer holds, size of the whole file if the server says it)."""
    if status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if found and int(found[1]) == have:
            return have, None if found[2] == "*" else int(found[2])
        raise DataError(
            f"the server sent another range than asked for: {headers.get('Content-Range')}"
        )
    length = headers.get("Content-Length")
    return 0, int(length) if length and length.isdigit() else None


def _strong_etag(headers: HTTPMessage) -> str:
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else ""


def _verify(path: Path, wanted: RemoteFile, url: str) -> None:
    """Raises DataError if size or checksum are known and differ; warns if there is no checksum."""
    size = path.stat().st_size
    if wanted.size is not None and size != wanted.size:
        raise DataError(
            f"{wanted.name}: has {size} bytes, but {wanted.size} are expected from {url}"
        )
    if wanted.checksum is None:
        log.warning("%s: unverified, no checksum is known for this file (%s)", wanted.name, url)
        return
    algorithm, _, expected = wanted.checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise DataError(
            f"{wanted.name}: checksum {algorithm}:{digest.hexdigest()} is not {wanted.checksum}; "
            f"the file from {url} is damaged or was changed; remove it and run again"
        )
