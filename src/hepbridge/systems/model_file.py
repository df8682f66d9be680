"""One file is a model: weights, transforms, configuration, provenance and validity in safetensors."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hepbridge.core.errors import DataError, ModelFileError
from hepbridge.data.formats import FORMATS
from hepbridge.data.geometry import Geometry
from hepbridge.systems import SYSTEMS
from hepbridge.systems.model_kinds import KINDS, REFINER
from hepbridge.systems.recipe import Recipe
from hepbridge.systems.refiner import Refiner
from hepbridge.training.tensor_file import TensorFile, content_digest

__all__ = ["FORMAT_VERSION", "Domain", "Model", "load", "locate", "read_header"]

FORMAT_VERSION = 1
_FILE = TensorFile(
    REFINER,
    "model file of hepbridge",
    "copy it or train it again",
    digest_optional=True,
    others=KINDS,
)
_BLOCKS = ("recipe", "geometry", "domain", "provenance", "metrics")


@dataclass(frozen=True)
class Domain:
    """Where a model may be used: what it was trained on.

    Energies in MeV; the texts are the attributes of the training files; ``conditions`` are the
    ranges of the further conditions that the model works with.
    """

    energy_min: float
    energy_max: float
    particle: str = "unknown"
    fast: dict[str, Any] = field(default_factory=dict)
    full: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "incident_energy_mev": [self.energy_min, self.energy_max],
            "particle": self.particle,
            "fast": self.fast,
            "full": self.full,
        }
        if self.conditions:
            record["conditions"] = {name: list(span) for name, span in self.conditions.items()}
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Domain:
        low, high = (float(energy) for energy in record["incident_energy_mev"])
        if not 0 < low <= high < math.inf:
            raise DataError(f"no range of incident energies: {low} to {high} MeV")
        sides = dict(record["fast"]), dict(record["full"])
        spans = {str(k): (float(a), float(b)) for k, (a, b) in record.get("conditions", {}).items()}
        if any(not -math.inf < a <= b < math.inf for a, b in spans.values()):
            raise DataError(f"no ranges of conditions: {spans}")
        return cls(low, high, str(record["particle"]), *sides, spans)


@dataclass
class Model:
    """A trained model: one refiner, or an ensemble of them.

    Attributes:
        members: the refiners; the first is the model, the others give its uncertainty.
        recipe: how it was trained, symmetry and all defaults resolved.
        geometry, domain: what it may be applied to.
        provenance: hashes of the training data, versions, seed, date.
        metrics: held-out figures, compared with doing nothing and with the quantile baseline.
    """

    members: list[Refiner]
    recipe: Recipe
    geometry: Geometry
    domain: Domain
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model file atomically. Raises OutputError."""
        header = {
            "format_version": FORMAT_VERSION,
            "recipe": self.recipe.model_dump(mode="json"),
            "geometry": self.geometry.to_dict(),
            "domain": self.domain.to_dict(),
            "members": len(self.members),
            "provenance": self.provenance,
            "metrics": self.metrics,
        }
        return _FILE.write(
            path, self._tensors(), json.dumps(header, sort_keys=True), overwrite=overwrite
        )

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {
            f"{k}.{name}": value.detach().cpu()
            for k, member in enumerate(self.members)
            for name, value in member.state_dict().items()
        }

    def digest(self) -> str:
        """Of the weights and the recipe: what makes two models the same."""
        return content_digest(self._tensors(), self.recipe.model_dump_json())

    def describe(self) -> dict[str, Any]:
        """What the model is, as plain values."""
        return {
            "kind": "model",
            "system": self.recipe.system,
            "transport": self.recipe.model.get("transport"),
            "geometry": self.geometry.to_dict(),
            "domain": self.domain.to_dict(),
            "members": len(self.members),
            "network_evaluations": self.members[0].nfe,
            "parameters": sum(p.numel() for p in self.members[0].parameters()),
            "provenance": self.provenance,
            "metrics": self.metrics,
        }

    def refine(self, showers: Any, **options: Any) -> Any:
        """Refined `Showers`; see `hepbridge.systems.inference.refine`."""
        from hepbridge.systems.inference import refine

        return refine(self, showers, **options)


def read_header(path: str | Path) -> dict[str, Any]:
    """The JSON header of a model file, without its weights. Raises ModelFileError."""
    try:
        header = _FILE.header(path, FORMAT_VERSION)
    except ModelFileError as error:
        with suppress(OSError):
            for kind in (name for name in FORMATS if FORMATS[name].recognises(Path(path))):
                raise ModelFileError(
                    f"{path} is a file of showers ({kind}), not a model; the name of a model ends "
                    "in .safetensors"
                ) from error
        raise
    wrong = [name for name in _BLOCKS if not isinstance(header.get(name), dict)]
    if wrong:
        raise ModelFileError(
            f"{path}: the header of the model is damaged ({', '.join(wrong)} missing or no record)"
        )
    return header


def load(name: str | Path) -> Model:
    """A model from its file, or a shipped one by its name (`locate`). Runs no code from the file.

    Raises:
        ModelFileError: the file is missing, corrupted, foreign, or of an unknown version.
    """
    path = locate(str(name))
    header = read_header(path)
    stored = _FILE.tensors(path)
    count = header.get("members")
    found = len({name.partition(".")[0] for name in stored})
    if type(count) is not int or not 1 <= count == found:
        raise ModelFileError(f"{path}: the header of the model is damaged (members: {count!r})")
    try:
        recipe = Recipe.model_validate(header["recipe"])
        geometry = Geometry.from_dict(header["geometry"])
        domain = Domain.from_dict(header["domain"])
        system = SYSTEMS[recipe.system]
        members = [system(recipe.system_config(), geometry) for _ in range(count)]
    except Exception as error:  # a foreign header may ask for anything, a terabyte for example
        raise ModelFileError(f"{path}: the header of the model is damaged ({error})") from error
    for k, member in enumerate(members):
        own = {n.removeprefix(f"{k}."): t for n, t in stored.items() if n.startswith(f"{k}.")}
        try:
            member.load_state_dict(own)
        except RuntimeError as error:
            raise ModelFileError(
                f"{path}: the weights do not fit the recipe in the file: {error}"
            ) from error
        if not all(torch.isfinite(value).all() for value in member.state_dict().values()):
            raise ModelFileError(f"{path}: the weights hold NaN or infinity; train the model again")
        member.eval().requires_grad_(False)
    return Model(members, recipe, geometry, domain, header["provenance"], header["metrics"])


def locate(name: str) -> Path:
    """The file of a model: a path if it holds a slash or ends in .safetensors, else a shipped name.

    Raises ModelFileError if no model of that name is shipped.
    """
    if "/" in name or "\\" in name or name.endswith(".safetensors"):
        return Path(name)
    shipped = Path(__file__).parents[1] / "models"
    path = shipped / f"{name}.safetensors"
    if not path.is_file():
        found = sorted(p.stem for p in shipped.glob("*.safetensors"))
        listing = ", ".join(found) if found else "none in this version: train one first"
        raise ModelFileError(
            f"no shipped model is called {name!r} (available: {listing}); "
            "a file needs a '/' or the ending .safetensors"
        )
    return path
