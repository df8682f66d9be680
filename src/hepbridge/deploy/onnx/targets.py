"""Where an exported model is to run, and what that asks of the file."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from hepbridge.core.errors import ConfigError

__all__ = ["FOR_GENERATORS", "TARGETS", "Target", "target_of"]


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


# RModelParser_ONNX of ROOT (2026), of those that models can need
_SOFIE = """
Abs Add And Cast Clip Concat Conv Cos Div Erf Exp Expand Floor Gather Gemm Greater GreaterOrEqual
LeakyRelu Less LessOrEqual Log MatMul Max MaxPool Min Mul Neg Not Or Pow Reciprocal ReduceSum Relu
Reshape Shape Sigmoid Sin Slice Softmax Split Sqrt Sub Tanh Transpose Unsqueeze Where
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

_NOT_IN_THE_HOST = (
    "run with ONNX Runtime, with and without its optimisations, not in the host itself"
)

FOR_GENERATORS = {
    made.name: made
    for made in (
        Target(
            "par04",
            14,
            7,
            "ONNX Runtime 1.8 (Geant4 example Par04)",
            _NOT_IN_THE_HOST,
            rows=1,
        ),
        Target(
            "ddml-grid",
            14,
            7,
            "ONNX Runtime 1.8 (DDML, adapter L2LFlowsModel)",
            _NOT_IN_THE_HOST,
            rows=1,
        ),
    )
}
"""Hosts that hand in energy and angles and want a shower."""

_HANDED_IN = {
    "par04": "the Geant4 example Par04 hands a model one vector of noise, energy and angle",
    "ddml-grid": "the grid models of DDML get an energy and a direction",
}


def target_of(name: str, *, generator: bool = False) -> Target:
    """The target of this name. Raises ConfigError for another, or for one that is not for refiners."""
    if name in FOR_GENERATORS and not generator:
        raise ConfigError(
            f"target {name!r} is for generators: {_HANDED_IN[name]}, and no fast shower, which a "
            "refiner needs. Export a refiner with --target ort and call it after the fast simulation "
            "(examples/cpp has a host), or train a generator"
        )
    every = {**TARGETS, **FOR_GENERATORS}
    if name not in every:
        near = difflib.get_close_matches(name, list(every), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ConfigError(f"unknown target {name!r}{hint} Allowed: {', '.join(every)}")
    return every[name]
