"""Weighted sums of events, one row per (step, sample), compiled.

Every kernel fills ``out[r] = sum over the events of row base + r``, modulo 2**32, shifted right (floor) by ``shift``.
"""

# The kernels' arguments get their types when numba sees them.
# mypy: disallow-untyped-defs=False

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint.jit import inlined, kernel, row_sum

BURST = 255
"""Events that a 16-bit sum of 8-bit weights holds: 255 * 128 < 2**15."""

LANES = (32, 64, 128)
"""Widths of a tile of outputs whose sums stay in registers."""

_sum_32, _sum_64, _sum_128 = (row_sum(n) for n in LANES)


class ByteWeights(NamedTuple):
    """A dense matrix as ``8-bit value + offset``, cut into tiles of outputs.

    Attributes:
        values: int8 ``[n_tiles, n_in, lanes]``, outputs padded with zeros to whole tiles.
        offset: added once per event.
        shift: floor shift of the sum.
    """

    values: NDArray[np.int8]
    offset: int
    shift: int


class SparseWeights(NamedTuple):
    """Synapses by source line: those of line i are ``start[i] : start[i + 1]``.

    Attributes:
        start: int64 ``[n_in + 1]``.
        target, weight: int32 ``[nnz]``.
        shift: floor shift of the sum.
    """

    start: NDArray[np.int64]
    target: NDArray[np.int32]
    weight: NDArray[np.int32]
    shift: int


class Taps(NamedTuple):
    """A convolution's geometry, all integers, (H, W) each; without groups."""

    channels: int
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def byte_weights(matrix: NDArray[np.int8], offset: int, shift: int) -> ByteWeights:
    """Tiles of an int8 matrix ``[n_out, n_in]``; the width wastes least, a wider one being cheaper per output."""
    n_out, n_in = matrix.shape
    lanes = min(LANES, key=lambda n: -(-n_out // n) * (32 + n))
    values = np.zeros((-(-n_out // lanes) * lanes, n_in), np.int8)
    values[:n_out] = matrix
    return ByteWeights(np.ascontiguousarray(values.reshape(-1, lanes, n_in).swapaxes(1, 2)), offset, shift)


@kernel
def add_bytes(events, base, weights, out):
    """Binary events through :class:`ByteWeights`, tile by tile, so that a tile's weights stay in the cache."""
    n_tiles, _, lanes = weights.values.shape
    sums = np.empty(lanes, np.int16)
    for tile in range(n_tiles):
        left = tile * lanes
        right = min(left + lanes, out.shape[1])
        rows = np.uintp(weights.values[tile].ctypes.data)
        for r in range(out.shape[0]):
            first, last = events.start[base + r], events.start[base + r + 1]
            o = out[r, left:right]
            _clear(sums)
            _add_rows(rows, lanes, events.line[first : min(first + BURST, last)], sums)
            _store(sums, np.int32(weights.offset * (last - first)), o)
            for begin in range(first + BURST, last, BURST):
                _clear(sums)
                _add_rows(rows, lanes, events.line[begin : min(begin + BURST, last)], sums)
                _flush(sums, o)
            if weights.shift > 0:
                for j in range(o.shape[0]):
                    o[j] = o[j] >> weights.shift


@kernel
def add_bytes_conv(events, base, taps, weights, out):
    """Binary events of maps through a convolution.

    Events of a row of pixels follow each other, and their lines are numbered ``x C + c`` along the row. What a row of
    the kernel covers is therefore one run of events, and ``line - x0 C`` is the row of the weights ``[kW C, C_out]``.

    Args:
        events: one row per (step, sample, y, x).
        base: its first row.
        taps: geometry; the dilation along x is 1.
        weights: of a matrix ``[C_out, kH kW C]``, without shift.
        out: int32 ``[rows, H_out W_out, C_out]``.
    """
    n_tiles, _, lanes = weights.values.shape
    (height, width), (rows_out, columns_out) = taps.in_size, taps.out_size
    sums = np.empty(lanes, np.int16)
    for tile in range(n_tiles):
        left = tile * lanes
        right = min(left + lanes, out.shape[2])
        values = np.uintp(weights.values[tile].ctypes.data)
        for r in range(out.shape[0]):
            for oy in range(rows_out):
                for ox in range(columns_out):
                    x = ox * taps.stride[1] - taps.padding[1]
                    begin, end = min(max(x, 0), width), min(max(x + taps.kernel[1], 0), width)
                    o = out[r, oy * columns_out + ox, left:right]
                    _clear(sums)
                    held, count, stored = 0, 0, False
                    for ky in range(taps.kernel[0]):
                        y = oy * taps.stride[0] - taps.padding[0] + ky * taps.dilation[0]
                        if y < 0 or y >= height:
                            continue
                        row = base + (r * height + y) * width
                        first, last = events.start[row + begin], events.start[row + end]
                        rows = values + np.uintp((ky * taps.kernel[1] - x) * taps.channels * lanes)
                        count += last - first
                        while first < last:
                            piece = events.line[first : min(first + BURST - held, last)]
                            _add_rows(rows, lanes, piece, sums)
                            held += piece.shape[0]
                            first += piece.shape[0]
                            if held == BURST:
                                _hand_over(sums, stored, o)
                                held, stored = 0, True
                    _hand_over(sums, stored, o)
                    if weights.offset != 0:
                        for j in range(o.shape[0]):
                            o[j] = np.int32(o[j] + np.int32(weights.offset * count))


@inlined
def _add_rows(rows, lanes, line, sums):
    """Add the rows of an int8 matrix at address ``rows`` that ``line`` names."""
    k, s = np.uintp(line.ctypes.data), np.uintp(sums.ctypes.data)
    if lanes == 128:
        _sum_128(rows, k, line.shape[0], s)
    elif lanes == 64:
        _sum_64(rows, k, line.shape[0], s)
    else:
        _sum_32(rows, k, line.shape[0], s)


@inlined
def _hand_over(sums, stored, out):
    """16-bit sums into the result, which holds earlier ones already if ``stored``; then from zero again."""
    if stored:
        _flush(sums, out)
    else:
        _store(sums, np.int32(0), out)
    _clear(sums)


@inlined
def _clear(sums):
    for j in range(sums.shape[0]):
        sums[j] = np.int16(0)


@inlined
def _store(sums, constant, out):
    for j in range(out.shape[0]):
        out[j] = np.int32(constant + sums[j])


@inlined
def _flush(sums, out):
    for j in range(out.shape[0]):
        out[j] = np.int32(out[j] + sums[j])


@kernel
def add_wide(events, base, weights, shift, out):
    """Events, graded or binary, through an int32 matrix ``[n_in, n_out]``."""
    graded = events.value.shape[0] > 0
    for r in range(out.shape[0]):
        o = out[r]
        o[:] = 0
        for k in range(events.start[base + r], events.start[base + r + 1]):
            w = weights[events.line[k]]
            value = events.value[k] if graded else np.int32(1)
            for j in range(o.shape[0]):
                o[j] = np.int32(o[j] + np.int32(w[j] * value))
        if shift > 0:
            for j in range(o.shape[0]):
                o[j] = o[j] >> shift


@kernel
def add_sparse(events, base, weights, out):
    """Events, graded or binary, through :class:`SparseWeights`."""
    graded = events.value.shape[0] > 0
    for r in range(out.shape[0]):
        o = out[r]
        o[:] = 0
        for k in range(events.start[base + r], events.start[base + r + 1]):
            line = events.line[k]
            value = events.value[k] if graded else np.int32(1)
            for s in range(weights.start[line], weights.start[line + 1]):
                j = weights.target[s]
                o[j] = np.int32(o[j] + np.int32(weights.weight[s] * value))
        if weights.shift > 0:
            for j in range(o.shape[0]):
                o[j] = o[j] >> weights.shift


@kernel
def accumulate(part, offset, gain, total):
    """``total += (part - offset) gain`` modulo 2**32, over flat arrays."""
    for j in range(total.shape[0]):
        total[j] = np.int32(total[j] + np.int32(np.int32(part[j] - offset) * gain))


class HostRange(NamedTuple):
    """How an accumulator becomes a bias mantissa: rounding shift, then clip."""

    shift: int
    low: int
    high: int


@kernel
def host_bias(acc, bias, limits, exponent, out):
    """Effective bias ``[B, N]`` modulo 2**32 from the host's sums: see :class:`nmtool.compiler.program.HostLayer`.

    Args:
        acc: int64 ``[B, N]``.
        bias, exponent: int64 ``[N]``.
        limits: :class:`HostRange`.
        out: int32.
    """
    half = np.int64(1) << limits.shift >> 1
    for b in range(acc.shape[0]):
        a, o = acc[b], out[b]
        for j in range(a.shape[0]):
            mantissa = min(max((a[j] + bias[j] + half) >> limits.shift, limits.low), limits.high)
            e = exponent[j]
            o[j] = np.int32(mantissa << e if e >= 0 else mantissa >> -e)
