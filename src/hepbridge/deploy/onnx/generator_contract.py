"""The contract beside the ONNX file of a generator, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hepbridge import __version__
from hepbridge.deploy.onnx.contract import Beside, parsed, validity_of
from hepbridge.deploy.onnx.hosts import Host
from hepbridge.deploy.onnx.targets import Target
from hepbridge.systems.generation.model_file import GeneratorModel

__all__ = ["GeneratorContract", "generator_contract", "read_generator_contract"]

_OUTSIDE = (
    "conditions beyond the validity count as its nearest end, in the graph; the energies of the cells "
    "still grow with the incident energy"
)
_HANDED_IN = (
    "one row of fresh standard normal numbers per shower; hepbridge generate draws them by "
    "hepbridge.core.rng.event_normal(seed, 'generate', event_ids, width)"
)
_DRAWN = "drawn in the graph, other numbers in every call; a seed cannot be given"


class GeneratorContract(Beside):
    """What a host of a generator has to know.

    ``method`` names transports and frame; ``host`` says which program the file is for, ``settings``
    what to tell it; ``threshold_mev`` is the energy at and below which a cell becomes 0; ``agreement``
    are the figures of `hepbridge.deploy.onnx.check.Agreement`, found when the file was written.
    """

    format: Literal["hepbridge-onnx-generator"] = "hepbridge-onnx-generator"
    method: str
    network_evaluations: int
    threshold_mev: float
    host: str
    settings: list[str]
    agreement: dict[str, float | int | str]


def generator_contract(
    model: GeneratorModel, host: Host, where: Target, file: str
) -> GeneratorContract:
    """The contract of a model for a target; what the file itself says is filled in when it is there."""
    generator = model.generator
    return GeneratorContract(
        file=file,
        digest="",
        bytes=0,
        made_by=f"hepbridge {__version__}",
        method=model.method,
        network_evaluations=generator.nfe,
        threshold_mev=generator.frame.threshold,
        particle=model.domain.particle,
        target=where.name,
        opset=where.opset,
        ir_version=where.ir_version,
        minimum_runtime=where.runtime,
        tested=where.tested,
        geometry={**model.geometry.to_dict(), "digest": model.geometry.digest()},
        cell_order=host.order(model.geometry),
        inputs=host.inputs,
        outputs=host.outputs,
        validity=validity_of(model.domain),
        outside=_OUTSIDE,
        noise=_DRAWN if host.drawn else _HANDED_IN,
        host=host.host,
        settings=list(host.settings),
        agreement={},
    )


def read_generator_contract(path: str | Path) -> GeneratorContract:
    """Read a contract, strictly. Raises ModelFileError if it is missing or is none of a generator."""
    return parsed(path, GeneratorContract)
