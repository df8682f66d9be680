"""One file is an unfolding: networks, tables of both levels, recipe and provenance in safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hepbridge.core.errors import ModelFileError
from hepbridge.systems.model_kinds import KINDS, UNFOLDING
from hepbridge.systems.unfolding.acceptance import Acceptance
from hepbridge.systems.unfolding.observables import Observables
from hepbridge.systems.unfolding.recipe import UnfoldingRecipe
from hepbridge.systems.unfolding.spectrum import Spectrum
from hepbridge.systems.unfolding.unfolder import Unfolder
from hepbridge.training.tensor_file import TensorFile
from hepbridge.transforms.event_frame import EventFrame

__all__ = ["FORMAT_VERSION", "UnfoldingModel", "is_unfolding_model", "load_unfolding"]

FORMAT_VERSION = 1
_FILE = TensorFile(
    UNFOLDING,
    "model of an unfolding",
    "copy it, or write it with hepbridge unfold train",
    others=KINDS,
)


@dataclass
class UnfoldingModel:
    """A trained unfolding.

    Attributes:
        recipe: how it was trained, every default resolved.
        observables: what it unfolds.
        true, seen: the frames of both levels.
        unfolder: draws truths for events; None for weights alone.
        spectrum: the unfolded spectrum as weights of simulated events: the answer of OmniFold, or
            the prior that iteration has found; None without iterations.
        acceptance: efficiency and purity; None for weights, which have them in their total.
        summary: counts of the response and of the data, what each iteration did.
        provenance: request, versions, date.
    """

    recipe: UnfoldingRecipe
    observables: Observables
    true: EventFrame
    seen: EventFrame
    unfolder: Unfolder | None = None
    spectrum: Spectrum | None = None
    acceptance: Acceptance | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def empty(
        cls,
        recipe: UnfoldingRecipe,
        observables: Observables,
        *,
        masked: tuple[int, int] = (0, 0),
        spectrum: bool = False,
    ) -> UnfoldingModel:
        """Untrained parts. ``masked``: columns with undefined values at both levels."""
        true, seen = EventFrame(len(observables.particle)), EventFrame(len(observables.detector))
        made = cls(recipe, observables, true, seen)
        if recipe.kind == "generate":
            made.unfolder = Unfolder(observables, recipe.transport or "", recipe.options)
            made.true, made.seen = made.unfolder.true, made.unfolder.seen
            inputs = [len(f.table) + more for f, more in zip((true, seen), masked, strict=True)]
            made.acceptance = Acceptance(inputs[0], inputs[1], recipe.acceptance)
        if spectrum:
            made.spectrum = Spectrum(made.true, masked[0], recipe.classifier)
        return made

    def parts(self) -> dict[str, nn.Module]:
        """Every module by name; frames are there once."""
        named = {
            "true": self.true,
            "seen": self.seen,
            "transport": None if self.unfolder is None else self.unfolder.transport,
            "match": None if self.unfolder is None else self.unfolder.match,
            "spectrum": self.spectrum,
            "acceptance": self.acceptance,
        }
        return {name: module for name, module in named.items() if module is not None}

    @property
    def masked(self) -> tuple[int, int]:
        """Columns with undefined values, at particle and at detector level."""
        return int((self.true.absent > 0).sum()), int((self.seen.absent > 0).sum())

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the file atomically. Raises OutputError."""
        header = {
            "format_version": FORMAT_VERSION,
            "recipe": self.recipe.model_dump(mode="json"),
            "observables": self.observables.to_dict(),
            "spectrum": self.spectrum is not None,
            "masked": list(self.masked),
            "summary": self.summary,
            "provenance": self.provenance,
        }
        tensors = {
            f"{part}.{name}": value
            for part, module in self.parts().items()
            for name, value in module.state_dict().items()
        }
        return _FILE.write(path, tensors, json.dumps(header, sort_keys=True), overwrite=overwrite)

    def describe(self) -> dict[str, Any]:
        """What the model is, as plain values."""
        return {
            "kind": "unfolding",
            "answers_with": "events" if self.unfolder else "weights",
            "transport": self.recipe.transport,
            "network_evaluations": self.unfolder.transport.nfe if self.unfolder else None,
            "observables": self.observables.to_dict(),
            "iterations": [],
            "parameters": sum(p.numel() for m in self.parts().values() for p in m.parameters()),
            **self.summary,
            "provenance": self.provenance,
        }


def is_unfolding_model(path: str | Path) -> bool:
    """Is this a file that `UnfoldingModel.save` wrote?"""
    try:
        return UNFOLDING in _FILE.metadata(path)
    except ModelFileError:
        return False


def load_unfolding(path: str | Path) -> UnfoldingModel:
    """An unfolding from its file. Runs no code from it.

    Raises ModelFileError: the file is missing, damaged, foreign, or of an unknown version.
    """
    header, stored = _FILE.header(path, FORMAT_VERSION), _FILE.tensors(path)
    try:
        model = UnfoldingModel.empty(
            UnfoldingRecipe.model_validate(header["recipe"]),
            Observables.from_dict(header["observables"]),
            masked=tuple(header["masked"]),
            spectrum=bool(header["spectrum"]),
        )
        for part, module in model.parts().items():
            own = {
                n.removeprefix(f"{part}."): t for n, t in stored.items() if n.startswith(f"{part}.")
            }
            module.load_state_dict(own)
            module.eval().requires_grad_(False)
        model.summary, model.provenance = dict(header["summary"]), dict(header["provenance"])
    except Exception as error:  # a foreign header may ask for anything, a terabyte for example
        raise ModelFileError(f"{path}: the model is damaged ({error})") from error
    if not all(torch.isfinite(value).all() for value in stored.values()):
        raise ModelFileError(f"{path}: the weights hold NaN or infinity; train the model again")
    return model
