"""A checkpoint is one safetensors file: named tensors, and a JSON text in its metadata.

Nothing is pickled, so reading a foreign file runs no code. The file is written atomically: after a
crash at any moment the previous checkpoint is still there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hepbridge.core.errors import ModelFileError
from hepbridge.core.files import atomic_path

__all__ = ["content_digest", "read_checkpoint", "write_checkpoint"]

_FORMAT = "hepbridge-checkpoint"
_VERSION = "1"


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and a JSON-able state. Raises OutputError if the file cannot be written."""
    # clones: safetensors refuses tensors that share memory (tied weights, submodules)
    own = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    text = json.dumps(state, allow_nan=False)
    metadata = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "state": text,
        "digest": content_digest(own, text),
    }
    with atomic_path(path, overwrite=True) as temporary:
        save_file(own, str(temporary), metadata)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the state.

    Raises ModelFileError if the file is damaged, not a checkpoint, or of an unknown version.
    """
    advice = "give the checkpoint of this training, or delete the file to start from the beginning"
    try:
        with safe_open(str(path), framework="pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{path} is not a readable checkpoint ({error}); {advice}") from error
    if metadata.get("format") != _FORMAT:
        raise ModelFileError(f"{path} is not a training checkpoint of hepbridge; {advice}")
    if metadata.get("format_version") != _VERSION:
        raise ModelFileError(
            f"{path} has checkpoint format {metadata.get('format_version')}; this version of "
            f"hepbridge reads format {_VERSION}: resume with the version that wrote it"
        )
    text = metadata.get("state", "")
    if metadata.get("digest") != content_digest(tensors, text):
        raise ModelFileError(f"{path} is damaged: its content does not match its digest; {advice}")
    return tensors, json.loads(text)


def content_digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """Hash of named tensors and a text: what a file must still hold when it is read."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(f"\n{name} {tensors[name].dtype} {list(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
