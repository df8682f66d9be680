"""The contract beside an ONNX file: names, shapes, units, cell order, validity, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hepbridge import __version__
from hepbridge.core.errors import ModelFileError
from hepbridge.data.geometry import Geometry
from hepbridge.deploy.onnx.fast_side import response_range
from hepbridge.deploy.onnx.targets import Target
from hepbridge.systems.checks import MARGIN, reach
from hepbridge.systems.conditioning import ENERGY
from hepbridge.systems.model_file import Domain, Model

__all__ = [
    "ROWS",
    "Contract",
    "Range",
    "Response",
    "Tensor",
    "condition_unit",
    "contract_of",
    "contract_path",
    "floats",
    "ordering",
    "parsed",
    "read_contract",
    "validity_of",
]

_KINDS = {
    "hepbridge-onnx": "a refiner: use OnnxRefiner (hepbridge.OnnxRefiner)",
    "hepbridge-onnx-generator": "a generator: use OnnxGenerator (hepbridge.deploy.onnx.generator)",
}  # by the format of the contract

ROWS = "rows"  # name of the dynamic axis
APART = 10.0  # a shower whose response is off by this factor is none, or in another unit
_UNITS = {"mm": "mm", "rad": "rad", "deg": "deg"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tensor(_Part):
    """An input or output: ``shape`` holds numbers, and the name of the dynamic axis."""

    name: str
    dtype: Literal["float32", "bool"]
    shape: list[int | str]
    unit: str
    meaning: str

    @property
    def columns(self) -> int:
        """Numbers of a row; 0 for a vector of one number per row."""
        return int(self.shape[1]) if len(self.shape) > 1 else 0


class Range(_Part):
    """Values of one input that were in the training (``min``, ``max``), and the limits of the flag."""

    input: str
    unit: str
    min: float
    max: float
    flagged_below: float
    flagged_above: float


class Response(_Part):
    """Energy in all cells over incident energy: ``min`` to ``max`` in the training; what hosts refuse."""

    min: float
    max: float
    refused_below: float
    refused_above: float


class Beside(_Part):
    """What every contract says. Text fields are for people, all others for programs."""

    format: str
    version: Literal[1] = 1
    file: str
    digest: str  # blake2b-128 of the ONNX file
    bytes: int  # its size
    made_by: str
    particle: str
    target: str
    opset: int
    ir_version: int
    minimum_runtime: str
    tested: str
    geometry: dict[str, Any]
    cell_order: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    validity: list[Range]
    outside: str
    noise: str

    def text(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


class Contract(Beside):
    """What a host of a refiner has to know."""

    format: Literal["hepbridge-onnx"] = "hepbridge-onnx"
    system: str
    transport: str | None
    member: int
    response: Response


C = TypeVar("C", bound=Beside)


def contract_of(model: Model, where: Target, member: int, file: str) -> Contract:
    """The contract of a model for a target; digest and size are filled in when the file is there."""
    refiner = model.members[member]
    names = refiner.config.named_conditions()
    rows: int | str = ROWS if where.rows is None else where.rows
    n = model.geometry.n_cells
    least, most = response_range(model, member)
    inputs = [
        floats("cells", [rows, n], "MeV", "fast showers, not negative, in the order of cell_order"),
        floats(ENERGY, [rows], "MeV", "energy of the incident particle"),
        *(floats(name, [rows], condition_unit(name), "condition of the shower") for name in names),
    ]
    if refiner.noise_dim:
        shape = [rows, refiner.noise_dim]
        inputs.append(floats("noise", shape, "1", "independent standard normal numbers"))
    outputs = [
        floats("refined", [rows, n], "MeV", "refined showers, in the same order"),
        Tensor(
            name="outside_domain", dtype="bool", shape=[rows], unit="", meaning="not trained here"
        ),
    ]
    return Contract(
        file=file,
        digest="",
        bytes=0,
        made_by=f"hepbridge {__version__}",
        system=model.recipe.system,
        transport=getattr(refiner.config, "transport", None),
        member=member,
        particle=model.domain.particle,
        target=where.name,
        opset=where.opset,
        ir_version=where.ir_version,
        minimum_runtime=where.runtime,
        tested=where.tested,
        geometry={**model.geometry.to_dict(), "digest": model.geometry.digest()},
        cell_order=ordering(model.geometry),
        inputs=inputs,
        outputs=outputs,
        validity=validity_of(model.domain),
        response=Response(
            min=least, max=most, refused_below=least / APART, refused_above=most * APART
        ),
        outside=(
            "showers outside the validity are refined all the same and flagged in the output "
            "outside_domain, as hepbridge refine does; tables use their nearest end"
        ),
        noise=(
            "one row of fresh standard normal numbers per shower; hepbridge refine draws them by "
            f"hepbridge.core.rng.event_normal(seed, 'refine-{member}', event_ids, width)"
        ),
    )


def contract_path(path: str | Path) -> Path:
    """Where the contract of an ONNX file is: the same name, ending in .json."""
    return Path(path).with_suffix(".json")


def read_contract(path: str | Path) -> Contract:
    """Read a contract, strictly. Raises ModelFileError if it is missing or is none."""
    return parsed(path, Contract)


def parsed(path: str | Path, kind: type[C]) -> C:
    """A contract of either kind from its file. Raises ModelFileError."""
    path = Path(path)
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"the contract {path} cannot be read ({error}); it belongs beside the ONNX file"
        ) from error
    except ValidationError as error:
        for item in error.errors():
            if item["loc"] == ("format",) and str(item["input"]) in _KINDS:
                raise ModelFileError(f"the model of {path} is {_KINDS[item['input']]}") from error
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise ModelFileError(
            f"{path} is no contract of version 1 of hepbridge ({where}: {first['msg']}); export the "
            "model again"
        ) from error


def floats(name: str, shape: list[int | str], unit: str, meaning: str) -> Tensor:
    """A float32 input or output."""
    return Tensor(name=name, dtype="float32", shape=shape, unit=unit, meaning=meaning)


def condition_unit(name: str) -> str:
    """The unit of a condition, by the end of its name."""
    return _UNITS.get(name.rpartition("_")[2], "as in training")


def ordering(geometry: Geometry) -> str:
    """The order of the cells of a shower, in words."""
    sizes = " x ".join(
        f"{axis} {size}" for axis, size in zip(geometry.axes, geometry.shape, strict=True)
    )
    return f"row-major over ({sizes}): the last axis runs fastest"


def validity_of(domain: Domain) -> list[Range]:
    """The trained ranges, and where the output `outside_domain` begins to flag."""
    low, high = domain.energy_min, domain.energy_max
    made = [
        Range(
            input=ENERGY, unit="MeV", min=low, max=high,
            flagged_below=low * (1 - MARGIN), flagged_above=high * (1 + MARGIN),
        )
    ]  # fmt: skip
    for name, (a, b) in domain.conditions.items():
        allowed = reach((a, b))
        middle = 0.5 * (a + b)
        made.append(
            Range(
                input=name, unit=condition_unit(name), min=a, max=b,
                flagged_below=middle - allowed, flagged_above=middle + allowed,
            )
        )  # fmt: skip
    return made
