"""An ONNX graph under construction: nodes, constants without repetition, and nothing unused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, MissingExtraError

__all__ = ["Graph", "onnx_library"]

_TYPES = {
    torch.float32: "FLOAT",
    torch.float64: "FLOAT",  # few runtimes know all functions of doubles
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.bool: "BOOL",
}
_LARGEST = 2**31 - 2**20  # bytes of a protocol buffer, with some room for the nodes


def onnx_library(purpose: str) -> Any:
    """The package ``onnx``. Raises MissingExtraError without it."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError.of("onnx", "onnx", purpose) from error
    return onnx


class Graph:
    """Nodes in the order in which they compute; values are known by name.

    A value is a name, or a tensor that is known already: that becomes a constant of the file when it
    is first used, and once only.
    """

    def __init__(self) -> None:
        self.onnx = onnx_library("a model in ONNX")
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._known: dict[tuple[Any, ...], str] = {}
        self._count = 0

    def add(self, kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """A node of the operator ``kind``; the name of its result, or their names if several."""
        names = [self.fresh(kind) for _ in range(outputs)]
        read = [self.name(value) for value in inputs]
        self.nodes.append(self.onnx.helper.make_node(kind, read, names, names[0], **attributes))
        return names[0] if outputs == 1 else names

    def fresh(self, stem: str) -> str:
        """A name that nothing has."""
        self._count += 1
        return f"{stem}_{self._count}"

    def name(self, value: Any) -> str:
        """The name of a value; tensors, arrays and numbers become constants."""
        if isinstance(value, str):
            return value
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.fresh("constant")
            self.constants[self._known[key]] = self.onnx.numpy_helper.from_array(
                array, self._known[key]
            )
        return self._known[key]

    def whole(self, values: Sequence[int]) -> NDArray[np.int64]:
        """A constant of whole numbers: a shape, axes, starts."""
        return np.array(values, dtype=np.int64)

    def type_of(self, dtype: torch.dtype) -> int:
        """The number that ONNX has for a type of torch."""
        return int(getattr(self.onnx.TensorProto, _TYPES[dtype]))

    def rename(self, old: str, new: str) -> None:
        """Give the result of a node another name."""
        if not any(old in node.output for node in self.nodes):  # an input or a constant
            self.nodes.append(self.onnx.helper.make_node("Identity", [old], [new]))
            return
        for node in self.nodes:
            for names in (node.input, node.output):
                for k, name in enumerate(names):
                    if name == old:
                        names[k] = new

    def kinds(self) -> set[str]:
        """The operators of all nodes."""
        return {node.op_type for node in self.nodes}

    def model(
        self,
        inputs: Sequence[tuple[str, torch.dtype, Sequence[int | str]]],
        outputs: Sequence[tuple[str, torch.dtype, Sequence[int | str]]],
        *,
        opset: int,
        ir_version: int,
        metadata: dict[str, str],
    ) -> Any:
        """The file in memory (``onnx.ModelProto``), without what no output needs.

        Args:
            inputs, outputs: name, type and shape; a text in a shape names a dynamic axis.

        Raises ConfigError if it would be larger than the 2 GiB of a protocol buffer.
        """
        make = self.onnx.helper
        nodes = _needed(self.nodes, {name for name, *_ in outputs})
        read = {name for node in nodes for name in node.input}
        constants = [value for name, value in self.constants.items() if name in read]
        size = sum(len(value.raw_data) for value in constants)
        if size > _LARGEST:
            raise ConfigError(
                f"the constants of this model take {size / 2**30:.1f} GiB, an ONNX file holds 2: the "
                "tables of so many cells without a symmetry are too large; use hepbridge refine"
            )
        described = (
            [
                make.make_tensor_value_info(name, self.type_of(dtype), list(shape))
                for name, dtype, shape in some
            ]
            for some in (inputs, outputs)
        )
        graph = make.make_graph(nodes, "hepbridge", *described, initializer=constants)
        model = make.make_model(
            graph,
            opset_imports=[make.make_opsetid("", opset)],
            ir_version=ir_version,
            producer_name="hepbridge",
        )
        make.set_model_props(model, metadata)
        return model


def _needed(nodes: Sequence[Any], wanted: set[str]) -> list[Any]:
    """The nodes that the ``wanted`` values depend on, in their order."""
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted = wanted | set(node.input)
            kept.append(node)
    return kept[::-1]
