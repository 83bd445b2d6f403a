"""Weighted sums of events, one row per (step, sample), compiled.

Every kernel fills ``out[r] = sum over the events of row base + r``, modulo 2**32, shifted right (floor) by ``shift``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint.events import Events
from nmtool.fixedpoint.jit import kernel, row_sum

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
def add_bytes(events, base, weights, out):  # type: ignore[no-untyped-def]
    """Binary events through :class:`ByteWeights`, tile by tile, so that a tile's weights stay in the cache."""
    n_tiles, n_in, lanes = weights.values.shape
    sums = np.empty(lanes, np.int16)
    for tile in range(n_tiles):
        left = tile * lanes
        width = min(lanes, out.shape[1] - left)
        rows = weights.values[tile]
        for r in range(out.shape[0]):
            first, last = events.start[base + r], events.start[base + r + 1]
            o = out[r, left : left + width]
            constant = np.int32(weights.offset * (last - first))
            _burst(rows, lanes, events.line[first : min(first + BURST, last)], sums)
            for j in range(width):
                o[j] = np.int32(constant + sums[j])
            for begin in range(first + BURST, last, BURST):
                _burst(rows, lanes, events.line[begin : min(begin + BURST, last)], sums)
                for j in range(width):
                    o[j] = np.int32(o[j] + sums[j])
            if weights.shift > 0:
                for j in range(width):
                    o[j] = o[j] >> weights.shift


@kernel
def _burst(rows, lanes, line, sums):  # type: ignore[no-untyped-def]
    """``sums`` of at most :data:`BURST` rows."""
    w, k, s = np.uintp(rows.ctypes.data), np.uintp(line.ctypes.data), np.uintp(sums.ctypes.data)
    if lanes == 128:
        _sum_128(w, k, line.shape[0], s)
    elif lanes == 64:
        _sum_64(w, k, line.shape[0], s)
    else:
        _sum_32(w, k, line.shape[0], s)


def unfolded(events: Events, base: int, n_rows: int, taps: Taps) -> Events:
    """Events by output pixel instead of input pixel: one row per (row, output pixel), lines ``tap * channels + c``.

    Args:
        events: one row per (row, input pixel), lines are channels.
        base: row of ``events`` at which the first of ``n_rows`` maps begins.
    """
    pixels = taps.in_size[0] * taps.in_size[1]
    count = int(events.start[base + n_rows * pixels] - events.start[base])
    start = np.empty(n_rows * taps.out_size[0] * taps.out_size[1] + 1, np.int64)
    line = np.empty(count * taps.kernel[0] * taps.kernel[1], np.int32)
    _unfold(events, base, n_rows, taps, Events(start, line, events.value))
    return Events(start, line, events.value)


@kernel
def _unfold(events, base, n_rows, taps, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` of :func:`unfolded`."""
    height, width = taps.in_size
    count = 0
    row = 0
    out.start[0] = 0
    for r in range(n_rows):
        origin = base + r * height * width
        for oy in range(taps.out_size[0]):
            for ox in range(taps.out_size[1]):
                for ky in range(taps.kernel[0]):
                    y = oy * taps.stride[0] - taps.padding[0] + ky * taps.dilation[0]
                    if y < 0 or y >= height:
                        continue
                    for kx in range(taps.kernel[1]):
                        x = ox * taps.stride[1] - taps.padding[1] + kx * taps.dilation[1]
                        if x < 0 or x >= width:
                            continue
                        pixel = origin + y * width + x
                        shift = np.int32((ky * taps.kernel[1] + kx) * taps.channels)
                        first, last = events.start[pixel], events.start[pixel + 1]
                        for k in range(last - first):
                            out.line[count + k] = events.line[first + k] + shift
                        count += last - first
                row += 1
                out.start[row] = count


@kernel
def add_wide(events, base, weights, shift, out):  # type: ignore[no-untyped-def]
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
def add_sparse(events, base, weights, out):  # type: ignore[no-untyped-def]
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
def accumulate(part, offset, shift, total):  # type: ignore[no-untyped-def]
    """``total += (part - offset) << shift`` modulo 2**32, over flat arrays."""
    for j in range(total.shape[0]):
        total[j] = np.int32(total[j] + np.int32(np.int32(part[j] - offset) << shift))


@kernel
def tally_input(spikes, span, counts, per_step):  # type: ignore[no-untyped-def]
    """Count binary input spikes per line and step; returns the bitwise or of all values (1 at most if binary)."""
    seen = np.uint8(0)
    for t in range(span.n_steps):
        for b in range(span.n_samples):
            s = spikes[span.first_step + t, span.first_sample + b]
            c = counts[b]
            total = np.int32(0)
            for j in range(s.shape[0]):
                c[j] = np.int32(c[j] + s[j])
                total = np.int32(total + s[j])
                seen = np.uint8(seen | s[j])
            per_step[t] += total
    return seen
