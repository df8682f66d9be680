"""A checkpoint is one safetensors file: named tensors, and a JSON text in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hepbridge.core.errors import ModelFileError
from hepbridge.training.tensor_file import TensorFile

__all__ = ["read_checkpoint", "write_checkpoint"]

_FORMAT = "hepbridge-checkpoint"
_VERSION = "1"
_ADVICE = "give the checkpoint of this training, or delete the file to start from the beginning"
_FILE = TensorFile("state", "checkpoint", _ADVICE)


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and a JSON-able state. Raises OutputError if the file cannot be written."""
    text = json.dumps(state, allow_nan=False)
    _FILE.write(path, tensors, text, overwrite=True, format=_FORMAT, format_version=_VERSION)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the state.

    Raises ModelFileError if the file is damaged, not a checkpoint, or of an unknown version.
    """
    metadata = _FILE.metadata(path)
    if metadata.get("format") != _FORMAT:
        raise ModelFileError(f"{path} is not a training checkpoint of hepbridge; {_ADVICE}")
    if metadata.get("format_version") != _VERSION:
        raise ModelFileError(
            f"{path} has checkpoint format {metadata.get('format_version')}; this version of "
            f"hepbridge reads format {_VERSION}: resume with the version that wrote it"
        )
    tensors = _FILE.tensors(path)
    return tensors, json.loads(metadata["state"])
