"""A model file that a job works with, in this and in other processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hepbridge.core.errors import ModelFileError
from hepbridge.core.files import file_digest
from hepbridge.systems import model_file

__all__ = ["Trained"]


@dataclass(frozen=True)
class Trained:
    """A model file, what it held when the job began, and the function that reads it."""

    path: str
    digest: str
    read: Callable[[str], Any] = model_file.load

    @classmethod
    def of(cls, name: str, read: Callable[[str], Any] = model_file.load) -> Trained:
        path = model_file.locate(name).absolute()
        if not path.is_file():
            raise ModelFileError(f"there is no model file {path}")
        return cls(str(path), file_digest(path), read)

    def load(self) -> Any:
        """The model, read once per process. Raises ModelFileError if the file is another one now."""
        return _model(self)


@lru_cache(maxsize=1)
def _model(trained: Trained) -> Any:
    model = trained.read(trained.path)
    if file_digest(trained.path) != trained.digest:
        raise ModelFileError(f"{trained.path} was replaced while it was in use; run again")
    return model
