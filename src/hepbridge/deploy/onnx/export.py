"""Exporting a model: the ONNX file and its contract, checked, together or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hepbridge.core.errors import ConfigError
from hepbridge.core.files import atomic_path, check_output, file_digest
from hepbridge.deploy.onnx.check import Agreement, agreement, check_file, session_of
from hepbridge.deploy.onnx.contract import Beside, Contract, contract_of, contract_path
from hepbridge.deploy.onnx.forms import Whole, runtime_form
from hepbridge.deploy.onnx.graph import Graph, onnx_library
from hepbridge.deploy.onnx.targets import Target, target_of
from hepbridge.deploy.onnx.trace import translate
from hepbridge.systems.model_file import Model, load

__all__ = ["assembled", "checked_output", "export_onnx"]

_TYPES = {"float32": torch.float32, "bool": torch.bool}


def export_onnx(
    model: Model | str | Path,
    output: str | Path,
    *,
    target: str = "ort",
    member: int = 0,
    overwrite: bool = False,
) -> tuple[Contract, Agreement]:
    """Write a model as an ONNX file, and its contract beside it (the same name with ``.json``).

    The whole chain is in the graph: showers in MeV and conditions go in, and noise; refined showers
    in MeV come out, and a flag for those outside the trained range. Before the files get their
    names, they are read back, compared with the contract, run in ONNX Runtime and compared with
    torch.

    Args:
        model: a model, the name of a shipped one, or a file.
        output: must end in ``.onnx``.
        target: where it will run (`hepbridge.deploy.onnx.targets`).
        member: which member of an ensemble.

    Returns the contract, and how well file and torch agree.

    Raises:
        ConfigError: the target is unknown or not for refiners, the model cannot be written in ONNX,
            there is no such member, or the output has another ending.
        ModelFileError: the model cannot be loaded, or the file failed its check.
        MissingExtraError: ``onnx`` or ``onnxruntime`` is not installed.
        OutputError: an output exists or cannot be written.
    """
    where = target_of(target)
    path = checked_output(output, overwrite=overwrite)
    onnx = onnx_library("export")
    loaded = model if isinstance(model, Model) else load(model)
    if not 0 <= member < len(loaded.members):
        raise ConfigError(
            f"the model has {len(loaded.members)} member(s); there is no member {member}"
        )
    contract = contract_of(loaded, where, member, path.name)
    written = _written(loaded, contract, where)
    with (
        atomic_path(path, overwrite=overwrite) as file,
        atomic_path(contract_path(path), overwrite=overwrite) as beside,
    ):
        onnx.save_model(written, file)
        what = {"digest": file_digest(file), "bytes": file.stat().st_size}
        contract = contract.model_copy(update=what)
        beside.write_text(contract.text(), encoding="utf-8")
        check_file(file, contract)
        found = agreement(loaded, member, session_of(file), contract)
    return contract, found


def checked_output(output: str | Path, *, overwrite: bool) -> Path:
    """Where the ONNX file goes. Raises ConfigError for another ending, OutputError if it cannot."""
    path = Path(output)
    if path.suffix != ".onnx":
        raise ConfigError(f"the output must end in .onnx, got {path.name!r}")
    for file in (path, contract_path(path)):
        check_output(file, overwrite=overwrite)
    return path


def _written(model: Model, contract: Contract, where: Target) -> Any:
    """The ONNX model in memory."""
    refiner = model.members[contract.member]
    names = refiner.config.named_conditions()
    limits = {r.input: (r.flagged_below, r.flagged_above) for r in contract.validity}
    whole = Whole(runtime_form(refiner), names, limits).eval()
    graph = Graph()
    inputs = [(t.name, t.columns) for t in contract.inputs]
    made = translate(whole, graph, inputs, where.rows)
    return assembled(graph, made, contract, where)


def assembled(graph: Graph, made: list[str], contract: Beside, where: Target) -> Any:
    """The ONNX model in memory, of a graph and its outputs. Raises ConfigError if the target lacks an
    operator."""
    for name, tensor in zip(made, contract.outputs, strict=True):
        graph.rename(name, tensor.name)
    unknown = graph.kinds() - where.operators if where.operators else set()
    if unknown:
        raise ConfigError(
            f"target {where.name!r} has no operator {', '.join(sorted(unknown))}, which this model "
            "needs; use another target"
        )
    return graph.model(
        [(t.name, _TYPES[t.dtype], t.shape) for t in contract.inputs],
        [(t.name, _TYPES[t.dtype], t.shape) for t in contract.outputs],
        opset=where.opset,
        ir_version=where.ir_version,
        metadata={"made_by": contract.made_by, "target": where.name},
    )
