"""Compilation with numba: the decorator of this package and two machine instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hepbridge.core.errors import MissingExtraError

try:
    import numba
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic
except ImportError as error:
    raise MissingExtraError.of("gflash", "numba", "The simulation GFLASH") from error

__all__ = ["bits_set", "compiled", "multiply"]

F = TypeVar("F", bound=Callable[..., Any])

_jit: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
_types: Any = types
_word = _types.uint64


def compiled(function: F) -> F:
    """The function as machine code: kept on disk after the first call, and without Python's lock,
    so that threads run it side by side.

    Numba notices a change of the function's own file, not of functions that it calls: after
    editing one of those, delete ``__pycache__``.
    """
    out: F = _jit(function)
    return out


def _multiply(typing: Any, a: Any, b: Any) -> Any:
    """Upper and lower 64 bits of the product of two unsigned 64-bit words."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide, narrow = ir.IntType(128), ir.IntType(64)
        product = builder.mul(*(builder.zext(x, wide) for x in arguments))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), narrow)
        halves = (high, builder.trunc(product, narrow))
        return context.make_tuple(builder, signature.return_type, halves)

    return _types.UniTuple(_word, 2)(_word, _word), generate


def _bits_set(typing: Any, a: Any) -> Any:
    """Number of bits that are 1 in an unsigned 64-bit word."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return _types.int64(_word), generate


multiply: Any = intrinsic(_multiply)
bits_set: Any = intrinsic(_bits_set)
