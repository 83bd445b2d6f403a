"""How the integer kernels are compiled, and the two vector operations that the compiler does not find by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

I8, I16, I32, I64 = (ir.IntType(n) for n in (8, 16, 32, 64))


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of NumPy arrays on first use, without the interpreter lock.

    The compiled code is cached beside the source, else in the user's cache folder. Where neither can be written
    (an install that is read-only, for a user without a home) numba refuses to cache; then every process compiles.
    """
    return _compiled(function, forceinline=False)


def inlined(function: Callable[..., Any]) -> Any:
    """Like :func:`kernel`, for a part of one that becomes part of its caller's machine code."""
    return _compiled(function, forceinline=True)


def _compiled(function: Callable[..., Any], forceinline: bool) -> Any:
    try:
        return numba.njit(function, cache=True, nogil=True, error_model="numpy", forceinline=forceinline)
    except RuntimeError as e:
        if "no locator available" not in str(e):
            raise
        return numba.njit(function, nogil=True, error_model="numpy", forceinline=forceinline)


def _of_word(build: Callable[[Any, Any], Any]) -> Any:
    """A compiled function of one uint64 that gives an int64."""

    def typed(_typing: Any, _word: Any) -> Any:
        def lower(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return build(builder, arguments[0])

        return types.int64(types.uint64), lower

    return intrinsic(typed)


trailing_zeros = _of_word(lambda builder, word: builder.cttz(word, ir.Constant(ir.IntType(1), 0)))
"""Index of the lowest set bit of a uint64; 64 if there is none."""

ones = _of_word(lambda builder, word: builder.ctpop(word))
"""Number of set bits of a uint64."""


def row_sum(lanes: int) -> Any:
    """A compiled ``f(rows, line, n, sums)``: ``sums[j] += sum over k < n of rows[line[k], j]`` for ``lanes`` columns.

    ``rows`` is the address of an int8 matrix with ``lanes`` columns, ``line`` of int32 indices, ``sums`` of int16. The
    sums stay in vector registers over all rows, which a loop over arrays in memory does not achieve; LLVM cuts the
    vector to what the processor has.
    """
    vector, bytes_ = ir.VectorType(I16, lanes), ir.VectorType(I8, lanes)
    zero, one = ir.Constant(I64, 0), ir.Constant(I64, 1)

    def lower(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        rows, line, n, sums = arguments
        rows, line = b.inttoptr(rows, I8.as_pointer()), b.inttoptr(line, I32.as_pointer())
        sums = b.inttoptr(sums, vector.as_pointer())
        before = b.load(sums)
        before.align = 2
        entry, loop, done = b.block, b.append_basic_block("loop"), b.append_basic_block("done")
        b.cbranch(b.icmp_signed(">", n, zero), loop, done)

        b.position_at_end(loop)
        k, total = b.phi(I64), b.phi(vector)
        at = b.mul(b.sext(b.load(b.gep(line, [k])), I64), ir.Constant(I64, lanes))
        row = b.load(b.bitcast(b.gep(rows, [at]), bytes_.as_pointer()))
        row.align = 1
        more, following = b.add(total, b.sext(row, vector)), b.add(k, one)
        b.cbranch(b.icmp_signed("<", following, n), loop, done)

        b.position_at_end(done)
        result = b.phi(vector)
        for phi, start, end in ((k, zero, following), (total, before, more), (result, before, more)):
            phi.add_incoming(start, entry)
            phi.add_incoming(end, loop)
        b.store(result, sums).align = 2
        return context.get_dummy_value()

    def typed(_typing: Any, _rows: Any, _line: Any, _n: Any, _sums: Any) -> Any:
        return types.void(types.uintp, types.uintp, types.int64, types.uintp), lower

    return intrinsic(typed)
