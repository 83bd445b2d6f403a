"""How the integer kernels are compiled: without the interpreter lock, cached on disk where a disk allows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of NumPy arrays on first use.

    The compiled code is cached beside the source, else in the user's cache folder. Where neither can be written
    (an install that is read-only, for a user without a home) numba refuses to cache; then every process compiles.
    """
    options = {"nogil": True, "error_model": "numpy", "boundscheck": False}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError as e:
        if "no locator available" not in str(e):
            raise
        return numba.njit(function, **options)


@intrinsic
def trailing_zeros(_typing: Any, word: Any) -> Any:  # type: ignore[no-untyped-def]
    """Index of the lowest set bit of a uint64 that is not 0."""

    def lower(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), lower
