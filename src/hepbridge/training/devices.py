"""Where the numbers live: the choice of a device, and moving and cutting batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from hepbridge.core.errors import ConfigError

__all__ = ["choose_device", "map_tensors", "rows", "split"]


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device of a name: ``auto`` (cuda, else mps, else cpu), ``cpu``, ``cuda[:n]``, ``mps``.

    Raises ConfigError if there is no such device here.
    """
    if isinstance(name, torch.device):
        name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise ConfigError(f"unknown device {name!r}; allowed: auto, cpu, cuda, cuda:<n>, mps")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                f"device {name!r} is not available: torch {torch.__version__} finds no CUDA GPU; "
                "choose the device cpu, or install a CUDA build of torch and check nvidia-smi"
            )
        count = torch.cuda.device_count()
        if index and int(index) >= count:
            raise ConfigError(f"device {name!r} does not exist: this machine has {count} GPUs")
        return torch.device("cuda", int(index) if index else torch.cuda.current_device())
    if kind == "mps" and not _has_mps():
        raise ConfigError(
            f"device {name!r} is not available on this machine; choose the device cpu"
        )
    return torch.device(kind)


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Apply a function to the tensors of nested dicts, tuples and lists."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_tensors(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(function, value) for value in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(map_tensors(function, value) for value in tree)
    return tree


def rows(batch: Any) -> int:
    """Rows of a batch: the length of its longest tensor."""
    lengths = [1]
    map_tensors(lambda t: lengths.append(len(t)) if t.dim() else None, batch)
    return max(lengths)


def split(batch: Any, parts: int) -> Iterator[tuple[Any, float]]:
    """Cut a batch along its rows; yields (piece, its share of the rows).

    Tensors of another length (shared constants, scalars) go whole into every piece.
    """
    n = rows(batch)
    size = -(-n // parts)
    for start in range(0, n, size):
        stop = min(start + size, n)

        def cut(t: Tensor, start: int = start, stop: int = stop) -> Tensor:
            return t[start:stop] if t.dim() and len(t) == n else t

        yield map_tensors(cut, batch), (stop - start) / n
