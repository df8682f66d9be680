"""Exporting a generator: the ONNX file and its contract, checked, together or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hepbridge.core.files import atomic_path, file_digest
from hepbridge.deploy.onnx.check import Agreement, check_file, session_of
from hepbridge.deploy.onnx.contract import contract_path
from hepbridge.deploy.onnx.ddml_grid import DdmlGrid
from hepbridge.deploy.onnx.export import assembled, checked_output
from hepbridge.deploy.onnx.generator_check import generator_agreement
from hepbridge.deploy.onnx.generator_contract import GeneratorContract, generator_contract
from hepbridge.deploy.onnx.graph import Graph, onnx_library
from hepbridge.deploy.onnx.hosts import Host, Named
from hepbridge.deploy.onnx.par04 import Par04
from hepbridge.deploy.onnx.targets import Target, target_of
from hepbridge.deploy.onnx.trace import translate
from hepbridge.systems.generation.model_file import GeneratorModel, load_generator

__all__ = ["export_generator", "host_of"]


def export_generator(
    model: GeneratorModel | str | Path,
    output: str | Path,
    *,
    target: str = "ort",
    overwrite: bool = False,
) -> tuple[GeneratorContract, Agreement]:
    """Write a generator as an ONNX file, and its contract beside it (the same name with ``.json``).

    The whole chain is in the graph: conditions and noise go in, showers in MeV come out. Conditions
    beyond the trained range are brought to its end. Before the files get their names, they are read
    back, compared with the contract, run in ONNX Runtime and compared with torch.

    Args:
        model: a generator, or its file.
        output: must end in ``.onnx``.
        target: where it will run: those of refiners, ``par04`` (`Par04`) or ``ddml-grid`` (`DdmlGrid`).

    Returns the contract, and how well file and torch agree.

    Raises:
        ConfigError: the target is unknown or not for this geometry or these conditions, the model
            cannot be written in ONNX, or the output has another ending.
        ModelFileError: the model cannot be loaded, or the file failed its check.
        MissingExtraError: ``onnx`` or ``onnxruntime`` is not installed.
        OutputError: an output exists or cannot be written.
    """
    where = target_of(target, generator=True)
    path = checked_output(output, overwrite=overwrite)
    onnx = onnx_library("export")
    loaded = model if isinstance(model, GeneratorModel) else load_generator(model)
    host = host_of(loaded, where, path.name).eval()
    contract = generator_contract(loaded, host, where, path.name)
    written = _written(host, contract, where)
    with (
        atomic_path(path, overwrite=overwrite) as file,
        atomic_path(contract_path(path), overwrite=overwrite) as beside,
    ):
        onnx.save_model(written, file)
        what = {"digest": file_digest(file), "bytes": file.stat().st_size}
        contract = contract.model_copy(update=what)
        check_file(file, contract)
        # as the hosts do that have no other way; with any number of rows as in hepbridge
        session = session_of(file, optimised=not host.host)
        found = generator_agreement(loaded, host, session, contract)
        contract = contract.model_copy(update={"agreement": found.to_dict()})
        beside.write_text(contract.text(), encoding="utf-8")
    return contract, found


def host_of(model: GeneratorModel, where: Target, file: str) -> Host:
    """What a file for this target holds. Raises ConfigError if the model is not for the target."""
    if where.name == "par04":
        return Par04(model, file)
    if where.name == "ddml-grid":
        return DdmlGrid(model)
    return Named(model, where.rows)


def _written(host: Host, contract: GeneratorContract, where: Target) -> Any:
    """The ONNX model in memory."""
    graph = Graph()
    inputs = [(t.name, t.columns) for t in contract.inputs]
    if host.drawn:
        shape = [where.rows, host.drawn]
        kind = graph.type_of(torch.float32)
        drawn = graph.add("RandomNormal", dtype=kind, shape=shape)
        inputs.append((drawn, host.drawn))
    made = translate(host, graph, inputs, where.rows)
    return assembled(graph, made, contract, where)
