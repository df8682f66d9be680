"""Arithmetic and products of torch in ONNX: one rule each, of operators that opset 14 has."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.special import erfcinv
from torch import fx

from hepbridge.deploy.onnx.translation import Rule, Translation

__all__ = [
    "addcmul",
    "addmm",
    "binary",
    "clamp",
    "compare",
    "convolution",
    "erfinv",
    "gelu",
    "layer_norm",
    "leaky_relu",
    "lerp",
    "linear",
    "ndtr",
    "power",
    "rsub",
    "sigmoid",
    "silu",
    "some",
    "unary",
    "where",
]

_NODES = 4096  # of the table of erfinv
_PER_W = _NODES / 17.0  # -ln(1 - e^2) of the last float32 below 1 is 16


def binary(kind: str) -> Rule:
    def rule(t: Translation, a: Any, b: Any, alpha: Any = 1) -> Any:
        a, b = t.operands(a, b, dtype=t.made.dtype)
        if alpha != 1:
            b = t("Mul", b, t.as_type(alpha, t.made.dtype))
        return t(kind, a, b)

    return rule


def unary(kind: str) -> Rule:
    return lambda t, x: t(kind, x)


def compare(kind: str) -> Rule:
    def rule(t: Translation, a: Any, b: Any) -> Any:
        types = [x.meta["val"].dtype for x in t.node.args if isinstance(x, fx.Node)]
        dtype = types[0] if len(types) == 1 else torch.promote_types(*types)
        return t(kind, *t.operands(a, b, dtype=dtype))

    return rule


def lerp(t: Translation, a: Any, b: Any, weight: Any) -> Any:
    return t("Add", a, t("Mul", t("Sub", b, a), t.as_type(weight, t.made.dtype, t.made.dtype)))


def clamp(t: Translation, x: Any, low: Any = None, high: Any = None) -> Any:
    # by Max and Min: Clip of integers is younger than opset 14's runtimes
    dtype = t.made.dtype
    if dtype.is_floating_point:
        ends = [
            torch.tensor(v, dtype=dtype) for v in (-math.inf if low is None else low, *some(high))
        ]
        return t("Clip", x, *ends)
    if low is not None:
        x = t("Max", x, t.as_type(low, dtype))
    return x if high is None else t("Min", x, t.as_type(high, dtype))


def some(value: Any) -> list[Any]:
    return [] if value is None else [value]


def addcmul(t: Translation, x: Any, a: Any, b: Any, *, value: float = 1) -> Any:
    product = t("Mul", a, b)
    return t("Add", x, product if value == 1 else t("Mul", product, t.as_type(value, t.made.dtype)))


def rsub(t: Translation, x: Any, other: Any, alpha: Any = 1) -> Any:
    x = x if alpha == 1 else t("Mul", x, t.as_type(alpha, t.made.dtype))
    return t("Sub", t.as_type(other, t.made.dtype, t.made.dtype), x)


def power(t: Translation, x: Any, exponent: Any) -> Any:
    if exponent == 2:
        return t("Mul", x, x)
    return t("Pow", x, t.as_type(exponent, t.made.dtype, t.made.dtype))


def where(t: Translation, condition: Any, a: Any, b: Any) -> Any:
    dtype = t.made.dtype
    return t("Where", condition, t.as_type(a, dtype, dtype), t.as_type(b, dtype, dtype))


def sigmoid(t: Translation, x: Any) -> Any:
    # the Sigmoid of ONNX Runtime is exact to 1e-7 of one: of small shares nothing would be left
    one = torch.tensor(1.0)
    return t("Reciprocal", t("Add", t("Exp", t("Neg", x)), one))


def silu(t: Translation, x: Any) -> Any:
    return t("Mul", x, t("Sigmoid", x))


def gelu(t: Translation, x: Any, *, approximate: str = "none") -> Any:
    if approximate != "none":
        raise NotImplementedError("the approximate GELU")
    half, root = torch.tensor(0.5), torch.tensor(0.5**0.5)
    return t("Mul", t("Mul", x, half), t("Add", t("Erf", t("Mul", x, root)), torch.tensor(1.0)))


def leaky_relu(t: Translation, x: Any, slope: float = 0.01) -> Any:
    return t("LeakyRelu", x, alpha=slope)


def ndtr(t: Translation, x: Any) -> Any:
    """The normal distribution function, with its lower tail."""
    e = t("Erf", t("Mul", x, torch.tensor(0.5**0.5)))
    return t("Mul", t("Add", e, torch.tensor(1.0)), torch.tensor(0.5))


def layer_norm(
    t: Translation,
    x: Any,
    shape: list[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
) -> Any:
    if len(shape) != 1:
        raise NotImplementedError("a LayerNorm of more than one axis")
    last, share = t.graph.whole([-1]), torch.tensor(1.0 / shape[0])
    centred = t("Sub", x, t("Mul", t("ReduceSum", x, last), share))
    variance = t("Mul", t("ReduceSum", t("Mul", centred, centred), last), share)
    out = t("Div", centred, t("Sqrt", t("Add", variance, torch.tensor(eps))))
    out = out if weight is None else t("Mul", out, weight)
    return out if bias is None else t("Add", out, bias)


def erfinv(t: Translation, e: Any) -> Any:
    """erfinv(e) / e is a smooth function of w = -ln(1 - e^2): looked up, linear between nodes.

    The error is below 5e-7 of the value for |e| < 1 in float32; ONNX has no such function.
    """
    one = torch.tensor(1.0)
    w = t("Log", t("Mul", t("Sub", one, e), t("Add", e, one)))
    v = t("Clip", t("Mul", w, torch.tensor(-_PER_W)), torch.tensor(0.0), torch.tensor(_NODES - 1.0))
    below = t("Cast", v, to=t.graph.type_of(torch.int32))
    start, slope = _erfinv_table()
    ratio = t(
        "Add", t("Gather", start, below, axis=0), t("Mul", t("Gather", slope, below, axis=0), v)
    )
    return t("Mul", e, ratio)


@lru_cache(maxsize=1)
def _erfinv_table() -> tuple[torch.Tensor, torch.Tensor]:
    """Intercepts and slopes of erfinv(e) / e over v = w / per_w."""
    w = np.arange(_NODES + 1) / _PER_W
    tail = np.exp(-w) / (1 + np.sqrt(-np.expm1(-w)))  # 1 - e
    ratio = np.full(len(w), 0.5 * math.sqrt(math.pi))
    ratio[1:] = erfcinv(tail[1:]) / (1 - tail[1:])
    slope = np.diff(ratio)
    start = ratio[:-1] - slope * np.arange(_NODES)
    return torch.from_numpy(start).float(), torch.from_numpy(slope).float()


# -- products -----------------------------------------------------------------------------------


def linear(t: Translation, x: Any, weight: torch.Tensor, bias: Any = None) -> Any:
    if t.argument(0).ndim != 2:
        out = t("MatMul", x, weight.T)
        return out if bias is None else t("Add", out, bias)
    return t("Gemm", x, weight.T.contiguous(), *some(bias))


def addmm(t: Translation, c: Any, a: Any, b: Any) -> Any:
    return t("Gemm", a, b, c)


def convolution(
    t: Translation,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = (),
    padding: Any = (),
    dilation: Any = (),
    groups: int = 1,
) -> Any:
    axes = t.made.ndim - 2
    pads = list(padding) or [0] * axes
    return t(
        "Conv", x, weight, *some(bias), strides=list(stride) or [1] * axes, pads=[*pads, *pads],
        dilations=list(dilation) or [1] * axes, group=groups,
    )  # fmt: skip
