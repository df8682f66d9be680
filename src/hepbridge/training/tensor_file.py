"""Named tensors and a text in one safetensors file that shows if it was damaged.

Nothing is pickled, so reading a foreign file runs no code. A file is written atomically: after a
crash at any moment the one before is still there.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hepbridge.core.errors import ModelFileError
from hepbridge.core.files import atomic_path

__all__ = ["TensorFile", "content_digest"]

_DIGEST = "digest"
_HDF5 = b"\x89HDF\r\n\x1a\n"  # how such a file begins


@dataclass(frozen=True)
class TensorFile:
    """A kind of such files: the ``key`` of its text in the metadata, what it is called, what to do if
    one cannot be read, and whether there are files from before there was a digest. ``others``: the
    keys of other kinds, and what to say of such a file."""

    key: str
    what: str
    advice: str
    digest_optional: bool = False
    others: Mapping[str, str] = field(default_factory=dict)

    def write(
        self,
        path: str | Path,
        tensors: Mapping[str, Tensor],
        text: str,
        *,
        overwrite: bool = False,
        **marks: str,
    ) -> Path:
        """Write tensors, the text and further ``marks``. Raises OutputError."""
        # clones: safetensors refuses tensors that share memory (tied weights, submodules)
        own = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
        metadata = {self.key: text, _DIGEST: content_digest(own, text), **marks}
        with atomic_path(path, overwrite=overwrite) as temporary:
            save_file(own, temporary, metadata=metadata)
        return Path(path)

    def metadata(self, path: str | Path) -> dict[str, str]:
        """Text and marks, without the tensors; of any safetensors file. Raises ModelFileError."""
        try:
            with safe_open(path, framework="pt") as handle:
                return handle.metadata() or {}
        except (SafetensorError, OSError, ValueError, struct.error) as error:
            raise self._unreadable(path, error) from error

    def tensors(self, path: str | Path) -> dict[str, Tensor]:
        """The tensors, on the CPU. Raises ModelFileError if the file is damaged."""
        try:
            with safe_open(path, framework="pt") as handle:
                metadata = handle.metadata() or {}
                names = handle.keys()  # the handle itself cannot be looped over
                found = {name: handle.get_tensor(name) for name in names}
        except (SafetensorError, OSError, ValueError, struct.error) as error:
            raise self._unreadable(path, error) from error
        if _DIGEST not in metadata and self.digest_optional:
            return found
        if metadata.get(_DIGEST) != content_digest(found, metadata.get(self.key, "")):
            raise ModelFileError(
                f"{path} is damaged: its content does not match its digest; {self.advice}"
            )
        return found

    def header(self, path: str | Path, newest: int) -> dict[str, Any]:
        """The text as a JSON record with a ``format_version`` of 1 to ``newest``.

        Raises ModelFileError if the file is not there, foreign, damaged, or of another version.
        """
        if not Path(path).is_file():
            raise ModelFileError(f"there is no model file {path}")
        metadata = self.metadata(path)
        if self.key not in metadata:
            for other in self.others.keys() & metadata.keys():
                raise ModelFileError(f"{path} is {self.others[other]}")
            raise ModelFileError(f"{path} is a safetensors file, but no {self.what}")
        try:
            header: dict[str, Any] = json.loads(metadata[self.key])
            version = header["format_version"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelFileError(f"{path}: the header of the model is damaged ({error})") from error
        if type(version) is not int or not 1 <= version <= newest:
            raise ModelFileError(
                f"{path} has format version {version}; this hepbridge reads 1 to {newest}: install "
                "a newer hepbridge"
            )
        return header

    def _unreadable(self, path: str | Path, error: Exception) -> ModelFileError:
        if _is_hdf5(path):
            return ModelFileError(
                f"{path} is an HDF5 file, such as one of showers, and no {self.what}; name another file"
            )
        return ModelFileError(
            f"{path} is not a readable {self.what} ({error}); it may be truncated: {self.advice}"
        )


def _is_hdf5(path: str | Path) -> bool:
    try:
        with open(path, "rb") as handle:
            return handle.read(len(_HDF5)) == _HDF5
    except OSError:
        return False


def content_digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """Hash of named tensors and a text: what a file must still hold when it is read."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(f"\n{name} {tensors[name].dtype} {list(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
