"""Weighted sums of events, one row per (step, sample), compiled.

Every kernel fills ``out[r] = sum over the events of row base + r``, modulo 2**32, shifted right (floor) by ``shift``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint.jit import kernel

GROUP = 4
BURST = 252
"""Events that a 16-bit sum of 8-bit weights holds: 252 * 128 < 2**15, and a multiple of :data:`GROUP`."""

PAD = 32


class ByteWeights(NamedTuple):
    """A dense matrix as ``8-bit value + offset``.

    Attributes:
        values: int8 ``[n_in, n_out]``, columns padded with zeros to a multiple of :data:`PAD`.
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


@kernel
def add_bytes(events, base, weights, out):  # type: ignore[no-untyped-def]
    """Binary events through :class:`ByteWeights`: four rows of weights per pass over a 16-bit sum."""
    n_out = out.shape[1]
    acc = np.empty(weights.values.shape[1], np.int16)
    for r in range(out.shape[0]):
        first, last = events.start[base + r], events.start[base + r + 1]
        o = out[r]
        constant = np.int32(weights.offset * (last - first))
        if last - first <= BURST:
            _burst(events.line, first, last, weights.values, acc)
            for j in range(n_out):
                o[j] = np.int32(np.int32(constant + acc[j]) >> weights.shift)
            continue
        o[:] = constant
        for begin in range(first, last, BURST):
            _burst(events.line, begin, min(begin + BURST, last), weights.values, acc)
            for j in range(n_out):
                o[j] = np.int32(o[j] + acc[j])
        if weights.shift > 0:
            for j in range(n_out):
                o[j] = o[j] >> weights.shift


@kernel
def _burst(line, first, last, values, acc):  # type: ignore[no-untyped-def]
    """``acc = sum of the rows of values`` for at most :data:`BURST` events."""
    acc[:] = 0
    k = first
    while k + GROUP <= last:
        w0, w1, w2, w3 = values[line[k]], values[line[k + 1]], values[line[k + 2]], values[line[k + 3]]
        for j in range(acc.shape[0]):
            acc[j] = np.int16(acc[j] + w0[j] + w1[j] + w2[j] + w3[j])
        k += GROUP
    while k < last:
        w0 = values[line[k]]
        for j in range(acc.shape[0]):
            acc[j] = np.int16(acc[j] + w0[j])
        k += 1


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
    """Count binary input spikes per line and step; returns the bitwise or of all values, at most 1 if they are binary."""
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
