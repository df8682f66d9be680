"""Is an ONNX file what its contract says, and does it compute what torch computes?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepbridge.core.errors import MissingExtraError, ModelFileError
from hepbridge.core.files import file_digest
from hepbridge.core.rng import stream
from hepbridge.deploy.onnx.contract import Beside, Contract
from hepbridge.deploy.onnx.fast_side import drawn
from hepbridge.deploy.onnx.graph import onnx_library
from hepbridge.systems.conditioning import ENERGY
from hepbridge.systems.model_file import Model

__all__ = ["Agreement", "agreement", "belonging", "by_torch", "check_file", "session_of", "trial"]

# a file that differs by more than these is wrong, not rounded: see `Agreement`
_WORST, _CELL_999 = 1e-3, 1e-2
_BATCHES = (1, 37, 1000)
_BEYOND = 30.0  # how far outside the trained energies some trial showers are, a factor

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Agreement:
    """How well ONNX Runtime and torch agree on the same showers and noise.

    Attributes:
        worst: largest difference of a cell, over the energy of its shower (by torch).
        worst_sum: largest difference of an energy sum, over the sum.
        cell_median, cell_999: median and 99.9 % quantile of the differences of single cells, over
            the cell itself. The largest ones are cells in the far tails of their distributions,
            where one unit in the last place of erf is many of the cell, in torch as well.
        flips: cells that only one of the two leaves empty.
        cells, showers: how many were compared.
        runtime: that of ONNX.
    """

    worst: float
    worst_sum: float
    cell_median: float
    cell_999: float
    flips: int
    cells: int
    showers: int
    runtime: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def session_of(path: str | Path, threads: int = 1, *, optimised: bool = True) -> Any:
    """An ONNX Runtime session of a file on the CPU; not ``optimised``: every node as it is written.

    Raises MissingExtraError without ONNX Runtime, ModelFileError if it cannot read the file.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingExtraError.of("onnx", "onnxruntime", "running an ONNX file") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has one type for each of its faults, and all mean the same here
        raise ModelFileError(f"{path}: ONNX Runtime cannot read it ({error})") from error


def check_file(path: str | Path, contract: Beside) -> None:
    """Read a file again and compare it with its contract.

    Raises ModelFileError if it is no valid ONNX, or if its digest, opset, IR version, inputs or
    outputs are not those of the contract.
    """
    onnx = onnx_library("checking an ONNX file")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # protobuf, checker and inference have errors of their own
        raise ModelFileError(f"{path} is no valid ONNX file ({error})") from error
    types = {"float32": onnx.TensorProto.FLOAT, "bool": onnx.TensorProto.BOOL}
    wanted = {
        "opset": [("", contract.opset)],
        "IR version": contract.ir_version,
        "inputs": [(t.name, types[t.dtype], t.shape) for t in contract.inputs],
        "outputs": [(t.name, types[t.dtype], t.shape) for t in contract.outputs],
    }
    found = {
        "opset": [(entry.domain, entry.version) for entry in model.opset_import],
        "IR version": model.ir_version,
        "inputs": [_described(value) for value in model.graph.input],
        "outputs": [_described(value) for value in model.graph.output],
    }
    for what, value in wanted.items():
        if found[what] != value:
            raise ModelFileError(
                f"{path}: its {what} {found[what]} is not the {value} of its contract; export it again"
            )
    belonging(path, contract)


def belonging(path: str | Path, contract: Beside) -> None:
    """Raise ModelFileError if the file is not the one of the contract, or cannot be read."""
    try:
        digest = file_digest(path)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error})") from error
    if digest != contract.digest:
        raise ModelFileError(
            f"{path} is not the file of its contract (other digest); keep the two together, or "
            "export them again"
        )


def agreement(model: Model, member: int, session: Any, contract: Contract) -> Agreement:
    """Run the file at several batch sizes, and torch on the same showers and noise.

    Showers are those of `trial`; the results for those that are empty or have a single hit are only
    asked to be finite in both or in neither. Raises ModelFileError if they are not, if a cell differs
    by more than 1e-3 of the energy of its shower, or more than one cell in a thousand by more than
    1 % of itself.
    """
    import onnxruntime as ort

    rows = contract.inputs[0].shape[0]
    batches = _BATCHES if isinstance(rows, str) else (rows,) * 37
    apart, sums, relative, flips, count = 0.0, 0.0, [], 0, 0
    for k, n in enumerate(batches):
        inputs = trial(model, contract, n, seed=k)
        ours = by_torch(model, member, inputs)
        (theirs,) = session.run(["refined"], inputs)
        total = ours.sum(axis=1, dtype=np.float64)
        scale = np.where(total > 0, total, inputs[ENERGY])
        difference = np.abs(theirs.astype(np.float64) - ours)
        difference[(theirs == ours) | (np.isnan(theirs) & np.isnan(ours))] = 0.0
        # no fast simulation makes them: in their far tails roundings may grow to anything
        odd = ((inputs["cells"] > 0).sum(axis=1) < 2)[:, None]
        difference[odd & np.isfinite(theirs) & np.isfinite(ours)] = 0.0
        worst = (difference / scale[:, None]).max()
        if not worst <= _WORST:
            row, cell = np.unravel_index(
                np.argmax(~(difference <= _WORST * scale[:, None])), ours.shape
            )
            raise ModelFileError(
                f"the ONNX file does not compute what torch does: in a batch of {n}, cell {cell} of "
                f"shower {row} is {theirs[row, cell]:.7g} MeV instead of {ours[row, cell]:.7g}"
            )
        apart = max(apart, float(worst))
        off = np.abs(theirs.sum(axis=1, dtype=np.float64) - total) / scale
        sums = max(sums, float(off[~odd[:, 0]].max(initial=0.0)))
        both = (ours > 0) & (theirs > 0) & ~odd
        relative.append(difference[both] / ours[both])
        flips += int((((ours > 0) != (theirs > 0)) & ~odd).sum())
        count += ours.size
    cells = np.concatenate(relative)
    median, high = np.quantile(cells, [0.5, 0.999]) if len(cells) else (0.0, 0.0)
    if not high <= _CELL_999:
        raise ModelFileError(
            "the ONNX file does not compute what torch does: of a thousand cells, more than one "
            f"differs by {high:.1%} of itself"
        )
    showers = sum(batches)
    version = f"ONNX Runtime {ort.__version__}"
    return Agreement(apart, sums, float(median), float(high), flips, count, showers, version)


def trial(model: Model, contract: Contract, n: int, seed: int) -> Arrays:
    """Inputs for ``n`` showers, by name.

    Fast showers are drawn from what the model has learned of them, coordinate by coordinate. Of more
    than 20, some are empty, some have a single hit, some lie far outside the trained energies, and
    some have no noise.
    """
    rng = stream(seed, "onnx-trial", n)
    low, high = model.domain.energy_min, model.domain.energy_max
    energy: NDArray[np.float64] = low * (high / low) ** rng.random(n)
    named: Arrays = {}
    for tensor in contract.inputs:
        if tensor.name == "noise":
            named["noise"] = rng.standard_normal((n, tensor.columns), dtype=np.float32)
        elif tensor.name not in ("cells", ENERGY):
            a, b = model.domain.conditions.get(tensor.name, (0.0, 0.0))
            named[tensor.name] = rng.uniform(a, b, n).astype(np.float32)
    cells = drawn(model.members[contract.member], energy, named, rng)
    if n > 20:
        cells[0:2] = 0.0
        cells[2:4, 1:] = 0.0
        factor = np.where(np.arange(n) % 20 == 5, _BEYOND, 1.0)
        factor[np.arange(n) % 20 == 6] = 1 / _BEYOND
        energy = energy * factor
        cells = (cells * factor[:, None]).astype(np.float32)
        if "noise" in named:
            named["noise"][7::20] = 0.0
    arrays = {"cells": cells, ENERGY: energy, **named}
    return {t.name: np.ascontiguousarray(arrays[t.name], dtype=np.float32) for t in contract.inputs}


def by_torch(
    model: Model, member: int, inputs: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """What the model makes of the same inputs in torch, on the CPU."""
    refiner = model.members[member]
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    cells = tensors.pop("cells")
    noise = tensors.pop("noise", cells[:, :0])
    with torch.inference_mode():
        out: NDArray[np.float32] = refiner.cpu().eval().refine(cells, tensors, noise).numpy()
    return out


def _described(value: Any) -> tuple[str, int, list[int | str]]:
    kind = value.type.tensor_type
    shape = [axis.dim_param if axis.dim_param else int(axis.dim_value) for axis in kind.shape.dim]
    return value.name, kind.elem_type, shape
