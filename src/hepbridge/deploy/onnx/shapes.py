"""Shapes, slices and gathers of torch in ONNX: one rule each, of operators that opset 14 has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hepbridge.deploy.onnx.arithmetic import some
from hepbridge.deploy.onnx.translation import Translation

__all__ = [
    "cat",
    "cut",
    "expand",
    "full",
    "gather",
    "index",
    "index_select",
    "item",
    "largest",
    "permute",
    "reshape",
    "same",
    "select",
    "slice_scatter",
    "split",
    "stack",
    "to",
    "total",
    "transpose",
    "unbind",
]

_END = 2**62  # the end of a slice that has none


def same(t: Translation, x: Any, *_: Any, **__: Any) -> Any:
    return x


def to(t: Translation, x: Any, *_: Any, **__: Any) -> Any:
    return t.as_type(x, t.made.dtype, t.argument(0).dtype)


def reshape(t: Translation, x: Any, *_: Any, **__: Any) -> Any:
    return t("Reshape", x, t.shape(t.made.shape))


def expand(t: Translation, x: Any, sizes: Any, **_: Any) -> Any:
    if tuple(map(str, t.argument(0).shape)) == tuple(map(str, t.made.shape)):
        return x
    return t.expanded(x, t.made.shape)


def full(t: Translation, *args: Any, **_: Any) -> Any:
    """A constant of all sizes: ``full``, ``zeros``, ``ones`` and their like."""
    name = t.node.target.__name__  # type: ignore[union-attr]  # a function: traced calls only
    value = 1.0 if "ones" in name else 0.0 if "zeros" in name else args[-1]
    if "scalar_tensor" in name:
        return torch.tensor(args[0], dtype=t.made.dtype)
    small = torch.full([1] * t.made.ndim, value, dtype=t.made.dtype)
    return t.expanded(small, t.made.shape)


def cut(
    t: Translation, x: Any, axis: int = 0, start: Any = 0, end: Any = None, step: int = 1
) -> Any:
    size = t.argument(0).shape[axis]
    stop = _END if end is None or end > _END else end
    if start in (0, None) and stop in (_END, size) and step == 1:
        return x
    parts = [[start or 0], [stop], [axis], [step]]
    return t("Slice", x, *(t.graph.whole(part) for part in parts))


def slice_scatter(
    t: Translation,
    x: Any,
    source: Any,
    axis: int = 0,
    start: Any = 0,
    end: Any = None,
    step: int = 1,
) -> Any:
    size = t.argument(0).shape[axis]
    if start in (0, None) and (end is None or end > _END) and step == 1:
        return source
    if not isinstance(size, int) or step != 1:
        raise NotImplementedError("an assignment to some of the rows")
    first, last, _ = slice(start, end).indices(size)
    pieces = [(0, first), (last, size)]
    before, after = (
        t("Slice", x, *(t.graph.whole([k]) for k in (*piece, axis)))
        if piece[0] < piece[1]
        else None
        for piece in pieces
    )
    parts = [part for part in (before, source, after) if part is not None]
    return parts[0] if len(parts) == 1 else t("Concat", *parts, axis=axis)


def select(t: Translation, x: Any, axis: int, index: int) -> Any:
    return t("Gather", x, np.int64(index), axis=axis)


def index_select(t: Translation, x: Any, axis: int, index: Any) -> Any:
    return t("Gather", x, index, axis=axis)


def index(t: Translation, x: Any, indices: Sequence[Any]) -> Any:
    if len(indices) != 1:
        raise NotImplementedError("an index of several axes")
    return t("Gather", x, indices[0], axis=0)


def gather(t: Translation, x: Any, axis: int, index: Any, **_: Any) -> Any:
    # torch wants as many elements as the index has, ONNX all of the other axes
    size = [str(n) for k, n in enumerate(t.argument(0).shape) if k != axis % t.made.ndim]
    if size != [str(n) for k, n in enumerate(t.made.shape) if k != axis % t.made.ndim]:
        # `translate` makes an error for people of it
        raise NotImplementedError("a gather of some rows")
    return t("GatherElements", x, index, axis=axis)


def split(t: Translation, x: Any, size: Any, axis: int = 0) -> Any:
    sizes = [part.shape[axis] for part in t.node.meta["val"]]
    out = t("Split", x, t.graph.whole(sizes), axis=axis, outputs=len(sizes))
    return [out] if len(sizes) == 1 else out


def unbind(t: Translation, x: Any, axis: int = 0) -> Any:
    return [t("Gather", x, np.int64(k), axis=axis) for k in range(len(t.node.meta["val"]))]


def cat(t: Translation, parts: Sequence[Any], axis: int = 0) -> Any:
    nodes: Any = t.node.args[0]
    kept = [p for p, node in zip(parts, nodes, strict=True) if node.meta["val"].shape[axis] != 0]
    return kept[0] if len(kept) == 1 else t("Concat", *kept, axis=axis)


def stack(t: Translation, parts: Sequence[Any], axis: int = 0) -> Any:
    axes = t.graph.whole([axis])
    return t("Concat", *(t("Unsqueeze", part, axes) for part in parts), axis=axis)


def permute(t: Translation, x: Any, order: Sequence[int]) -> Any:
    return t("Transpose", x, perm=[k % t.made.ndim for k in order])


def transpose(t: Translation, x: Any, a: int = 0, b: int = 1) -> Any:
    order = list(range(t.made.ndim))
    order[a], order[b] = order[b], order[a]
    return t("Transpose", x, perm=order)


def total(t: Translation, x: Any, axes: Any = None, keepdim: bool = False, **_: Any) -> Any:
    x = t.as_type(x, t.made.dtype, t.argument(0).dtype)
    return t(
        "ReduceSum", x, *some(None if axes is None else t.graph.whole(axes)), keepdims=int(keepdim)
    )


def largest(t: Translation, x: Any, axes: Sequence[int], keepdim: bool = False) -> Any:
    # by pooling: ReduceMax is another operator from opset 18 on
    shape = t.argument(0).shape
    if [axis % len(shape) for axis in axes] != [len(shape) - 1]:
        # no model has one; `translate` makes an error for people of it
        raise NotImplementedError("a maximum over another axis than the last")
    size = int(shape[-1])
    rows = t("Reshape", x, t.graph.whole([-1, 1, size]))
    return t("Reshape", t("MaxPool", rows, kernel_shape=[size]), t.shape(t.made.shape))


def item(t: Translation, parts: Any, k: int) -> Any:
    return parts[k]
