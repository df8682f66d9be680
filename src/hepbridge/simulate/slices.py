"""The stack of a detector: slices of material, layers of slices, and how files repeat them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from hepbridge.data.cells import Cells

__all__ = ["MAX_SLICES", "Group", "Layer", "LayerEntry", "Name", "Slice", "Strict", "folded"]

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]

MAX_SLICES = 20_000  # of a whole detector: more is a slip of the pen, and would fill the memory
MIN_MM, MAX_MM = 1e-6, 1e6  # of a slice: from a nanometre to a kilometre
_LONGEST_BLOCK = 12  # slices that `folded` looks for a repetition of


class Strict(BaseModel):
    """A part of a description: unknown entries are errors, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Slice(Strict):
    """A slab of one material, ``mm`` thick. Deposits count in ``active`` slices only."""

    material: Name
    mm: Annotated[float, Field(ge=MIN_MM, le=MAX_MM, allow_inf_nan=False)]
    active: bool = False


class Layer(Strict):
    """Slices in the order of the beam, read out together by one grid of cells."""

    slices: Annotated[tuple[Slice, ...], Field(min_length=1)]
    cells: Cells

    @model_validator(mode="after")
    def _sees_energy(self) -> Layer:
        _need_active(self.slices)
        return self

    @property
    def mm(self) -> float:
        """Thickness of all slices together."""
        return math.fsum(s.mm for s in self.slices)


class Group(Strict):
    """In a file: slices, ``repeat`` times."""

    repeat: Annotated[int, Field(ge=1, le=MAX_SLICES)]
    slices: Annotated[tuple[Slice, ...], Field(min_length=1)]


def _kind(entry: Any) -> str:
    return "group" if isinstance(entry, Group | Mapping) and "slices" in dict(entry) else "slice"


_Entry = Annotated[
    Annotated[Slice, Tag("slice")] | Annotated[Group, Tag("group")], Discriminator(_kind)
]


class LayerEntry(Strict):
    """In a file: a layer, ``repeat`` times."""

    repeat: Annotated[int, Field(ge=1, le=MAX_SLICES)] = 1
    slices: Annotated[tuple[_Entry, ...], Field(min_length=1)]
    cells: Cells

    @model_validator(mode="after")
    def _can_be(self) -> LayerEntry:
        _need_active([s for e in self.slices for s in (e.slices if isinstance(e, Group) else (e,))])
        if self.n_slices > MAX_SLICES:
            raise ValueError(f"{self.n_slices} slices; at most {MAX_SLICES} are allowed")
        return self

    @property
    def n_slices(self) -> int:
        """Number of slices in all repetitions."""
        one = sum(e.repeat * len(e.slices) if isinstance(e, Group) else 1 for e in self.slices)
        return self.repeat * one

    def layers(self) -> list[Layer]:
        """The layers that the entry stands for."""
        slices: list[Slice] = []
        for entry in self.slices:
            slices += entry.slices * entry.repeat if isinstance(entry, Group) else [entry]
        return [Layer(slices=tuple(slices), cells=self.cells)] * self.repeat


def folded(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """The entries of a file for layers: the inverse of `LayerEntry.layers`."""
    entries = []
    for layer in layers:
        slices = [s.model_dump(mode="json", exclude_defaults=True) for s in layer.slices]
        parts: list[dict[str, Any]] = []
        for n, block in _blocks(slices, _LONGEST_BLOCK):
            parts += block if n == 1 else [{"repeat": n, "slices": block}]
        entries.append({"cells": layer.cells.model_dump(mode="json"), "slices": parts})
    return [e if n == 1 else {"repeat": n, **e} for n, (e,) in _blocks(entries, 1)]


def _blocks(items: list[Any], longest: int) -> list[tuple[int, list[Any]]]:
    """Equal neighbours as (n, block): the items are the blocks, each n times.

    At every place the block (of at most ``longest`` items) is taken that covers most items; of
    equals the shortest.
    """
    found: list[tuple[int, list[Any]]] = []
    at = 0
    while at < len(items):
        size, times = 1, 1
        for length in range(1, min(longest, (len(items) - at) // 2) + 1):
            block, n = items[at : at + length], 1
            while items[at + n * length : at + (n + 1) * length] == block:
                n += 1
            if n > 1 and length * n > size * times:
                size, times = length, n
        found.append((times, items[at : at + size]))
        at += size * times
    return found


def _need_active(slices: Sequence[Slice]) -> None:
    if not any(s.active for s in slices):
        raise ValueError("no slice is active, so that the cells never see energy")
