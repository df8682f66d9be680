"""Where an exported model is to run, and what that asks of the file."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from hepbridge.core.errors import ConfigError

__all__ = ["TARGETS", "Target", "target_of"]


@dataclass(frozen=True)
class Target:
    """One kind of host.

    Attributes:
        name: on the command line.
        opset, ir_version: of the file, exactly.
        runtime: the oldest version that reads such a file, by the tables of its makers.
        tested: what has been run, in words.
        rows: None: any number of showers in a call; else this number.
        operators: the only operators that the host knows; empty: all of the opset.
    """

    name: str
    opset: int
    ir_version: int
    runtime: str
    tested: str
    rows: int | None = None
    operators: frozenset[str] = frozenset()


# RModelParser_ONNX of ROOT (2026), of those that refiners can need
_SOFIE = """
Abs Add And Cast Clip Concat Conv Cos Div Erf Exp Expand Floor Gather Gemm Greater GreaterOrEqual
LeakyRelu Less LessOrEqual Log MatMul Max Min Mul Neg Not Or Pow Reciprocal ReduceSum Relu Reshape
Shape Sigmoid Sin Slice Split Sqrt Sub Tanh Transpose Unsqueeze Where
"""

TARGETS = {
    made.name: made
    for made in (
        Target("ort", 20, 10, "ONNX Runtime 1.18", "run with the installed ONNX Runtime"),
        Target(
            "ort-1.16",
            17,
            8,
            "ONNX Runtime 1.16",
            "run with ONNX Runtime 1.16.3 and with the installed one",
        ),
        Target(
            "ort-1.8",
            14,
            7,
            "ONNX Runtime 1.8",
            "run with ONNX Runtime 1.8.1 and 1.16.3, and with the installed one",
        ),
        Target(
            "sofie",
            17,
            8,
            "ROOT of 2026 (SOFIE)",
            "operators and fixed shapes checked; run with ONNX Runtime, not with ROOT",
            rows=1,
            operators=frozenset(_SOFIE.split()),
        ),
    )
}

_FOR_GENERATORS = {
    "par04": "the Geant4 example Par04 hands a model one vector of noise, energy and angle",
    "ddml-grid": "the grid models of DDML get energy, angles and noise",
}


def target_of(name: str) -> Target:
    """The target of this name. Raises ConfigError for another, or for one that is not for refiners."""
    if name in _FOR_GENERATORS:
        raise ConfigError(
            f"target {name!r} is for generators: {_FOR_GENERATORS[name]}, and no fast shower, which a "
            "refiner needs. Every model of this version is a refiner: export it with --target ort and "
            "call it after the fast simulation (examples/cpp has a host)"
        )
    if name not in TARGETS:
        known = [*TARGETS, *_FOR_GENERATORS]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown target {name!r}{hint} Allowed: {', '.join(known)}")
    return TARGETS[name]
