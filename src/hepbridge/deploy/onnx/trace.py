"""From a torch module to an ONNX graph: torch writes down the operations, and each is translated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dynamo.exc import TorchDynamoException

from hepbridge.core.errors import ConfigError
from hepbridge.deploy.hushed import hushed
from hepbridge.deploy.onnx.graph import Graph
from hepbridge.deploy.onnx.operators import OPERATORS
from hepbridge.deploy.onnx.translation import Translation

__all__ = ["translate"]

_ROWS = 7  # of the example that is traced; any number but 0 and 1 does


def translate(
    module: nn.Module, graph: Graph, inputs: Sequence[tuple[str, int]], rows: int | None
) -> list[str]:
    """Add the operations of a module to a graph; the names of its outputs.

    Args:
        module: takes a tuple of float32 tensors of which the first axis are the rows, gives another.
        inputs: name and number of columns of each; 0 columns: a vector of one number per row.
        rows: None: any number of rows; else this one.

    Raises ConfigError if the module has an operation that has no translation, or cannot be traced.
    """
    n = _ROWS if rows is None else rows
    example = tuple(torch.zeros(n, columns) if columns else torch.ones(n) for _, columns in inputs)
    axis = {0: torch.export.Dim("rows", min=1)} if rows is None else None
    try:
        with hushed(), torch.no_grad():
            program = torch.export.export(
                module,
                (example,),
                dynamic_shapes=(tuple(axis for _ in inputs),),
                strict=True,  # the other way of tracing fixes the number of rows
            ).run_decompositions({})
    except TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"the model cannot be written in ONNX: what it does depends on its numbers ({reason}); "
            "use it in hepbridge itself"
        ) from error
    program.graph.eliminate_dead_code()
    return _Walk(program, graph, [name for name, _ in inputs]).outputs()


class _Walk:
    """All nodes of a program in their order; what depends on no input is computed here and now."""

    def __init__(self, program: Any, graph: Graph, inputs: Sequence[str]) -> None:
        self.program, self.graph = program, graph
        self.values: dict[fx.Node, Any] = {}
        self._inputs = iter(inputs)
        self._first = inputs[0]
        self._rows: str | None = None

    def outputs(self) -> list[str]:
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "output":
                return [self.graph.name(self._value(out)) for out in node.args[0]]
        raise ConfigError("the module has no output")

    def rows(self) -> str:
        """The number of rows, a vector of one whole number."""
        if self._rows is None:
            shape = self.graph.add("Shape", self._first)
            self._rows = self.graph.add("Gather", shape, self.graph.whole([0]), axis=0)
        return self._rows

    def _placeholder(self, node: fx.Node) -> Any:
        signature = self.program.graph_signature
        for names, known in (
            (signature.inputs_to_parameters, self.program.state_dict),
            (signature.inputs_to_buffers, {**self.program.state_dict, **self.program.constants}),
            (signature.inputs_to_lifted_tensor_constants, self.program.constants),
        ):
            if node.name in names:
                return known[names[node.name]].detach()
        return next(self._inputs)

    def _call(self, node: fx.Node) -> Any:
        if node.target is torch.ops.aten.sym_size.int or "_assert" in str(node.target):
            return None
        arguments = [self._value(a) for a in node.args]
        options = {name: self._value(a) for name, a in node.kwargs.items()}
        if all(self._known(a) for a in (*node.args, *node.kwargs.values())):
            # a function, as in all calls that torch.export writes down
            return node.target(*arguments, **options)  # type: ignore[operator]
        rule = OPERATORS.get(node.target)
        try:
            if rule is None:
                raise NotImplementedError(str(node.target))
            return rule(Translation(self.graph, node, self.rows), *arguments, **options)
        except NotImplementedError as error:
            raise ConfigError(
                f"the model has an operation that cannot be written in ONNX here ({error}); use "
                "it in hepbridge itself"
            ) from error

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return [self._value(a) for a in argument]
        return self.values[argument] if isinstance(argument, fx.Node) else argument

    def _known(self, argument: Any) -> bool:
        """Whether a value is a constant: it may then be computed by torch itself."""
        if isinstance(argument, list | tuple):
            return all(self._known(a) for a in argument)
        if not isinstance(argument, fx.Node):
            return True
        value = self.values[argument]
        return all(
            isinstance(v, Tensor) for v in (value if isinstance(value, list | tuple) else [value])
        )
