"""One operation of torch on its way to ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from hepbridge.deploy.onnx.graph import Graph

__all__ = ["Rule", "Translation"]

Rule = Callable[..., Any]


class Translation:
    """One operation: the graph that it goes to, the values of the ones before, and its result.

    Args:
        graph: under construction.
        node: of the program of torch.
        rows: gives the name of the number of rows, as a vector of one element.
    """

    def __init__(self, graph: Graph, node: fx.Node, rows: Callable[[], str]) -> None:
        self.graph, self.node, self.rows = graph, node, rows

    def __call__(self, kind: str, *inputs: Any, **attributes: Any) -> Any:
        return self.graph.add(kind, *inputs, **attributes)

    @property
    def made(self) -> torch.Tensor:
        """Shape and type of the result; its numbers are unknown."""
        value: torch.Tensor = self.node.meta["val"]
        return value

    def argument(self, k: int) -> torch.Tensor:
        """Shape and type of a tensor that is read."""
        value: torch.Tensor = self.node.args[k].meta["val"]  # type: ignore[union-attr]
        return value

    def as_type(self, value: Any, dtype: torch.dtype, known: torch.dtype | None = None) -> Any:
        """The value in another type; numbers and known tensors at once, others by a node."""
        if isinstance(value, torch.Tensor):
            return value.to(dtype)
        if isinstance(value, bool | int | float):
            return torch.tensor(value, dtype=dtype)
        if known is not None and self.graph.type_of(known) == self.graph.type_of(dtype):
            return value
        return self("Cast", value, to=self.graph.type_of(dtype))

    def operands(self, *values: Any, dtype: torch.dtype) -> list[Any]:
        """The first operands of the operation, all in one type."""
        own = [
            a.meta["val"].dtype
            if isinstance(a, fx.Node) and isinstance(a.meta["val"], torch.Tensor)
            else None
            for a in self.node.args
        ]
        return [self.as_type(v, dtype, known) for v, known in zip(values, own, strict=False)]

    def shape(self, sizes: Sequence[Any]) -> Any:
        """A shape for Reshape: at most one size may depend on the number of rows."""
        fixed = [size if isinstance(size, int) else -1 for size in sizes]
        if fixed.count(-1) > 1:
            raise NotImplementedError("a shape with two unknown sizes")
        return self.graph.whole(fixed)

    def expanded(self, value: Any, sizes: Sequence[Any]) -> str:
        """The value repeated to a shape whose first size may be the number of rows."""
        if all(isinstance(size, int) for size in sizes):
            target: Any = self.graph.whole(list(sizes))
        else:
            rest = [size for size in sizes[1:]]
            if not all(isinstance(size, int) for size in rest):
                raise NotImplementedError("rows that are not the first axis")
            target = self("Concat", self.rows(), self.graph.whole(rest), axis=0)
        return str(self("Expand", value, target))
