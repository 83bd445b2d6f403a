"""Spikes as lists of events: the indices of the lines that fired, row by row."""

# The kernels' arguments get their types when numba sees them.
# mypy: disallow-untyped-defs=False

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint.jit import inlined, kernel, ones, trailing_zeros

WORD = 64
GROUP = 4


class Span(NamedTuple):
    """A range of steps and a range of samples of an array ``[T, B, N]``."""

    first_step: int
    n_steps: int
    first_sample: int
    n_samples: int


class Events(NamedTuple):
    """Events of rows (step, then sample).

    Attributes:
        start: int64 ``[rows + 1]``; the events of row r are ``start[r] : start[r + 1]``.
        line: int32, which input line.
        value: int32, payload; empty for binary spikes.
    """

    start: NDArray[np.int64]
    line: NDArray[np.int32]
    value: NDArray[np.int32]


NO_VALUES = np.empty(0, np.int32)
NO_COUNTS = np.empty((0, 0), np.uint8)


class Packed(NamedTuple):
    """Binary spikes as bits.

    Attributes:
        words: uint64 ``[rows, ceil(N / 64)]``; bit j of word k is line ``64 k + j``.
        start: int64 ``[rows + 1]``, spikes before each row.
        n_lines: N.
    """

    words: NDArray[np.uint64]
    start: NDArray[np.int64]
    n_lines: int


def pack(spikes: NDArray[np.uint8], span: Span) -> Packed:
    """Bits of a span of binary ``[T, B, N]``."""
    return pack_and_count(spikes, span, NO_COUNTS)[0]


def pack_and_count(spikes: NDArray[np.uint8], span: Span, counts: NDArray[np.uint8]) -> tuple[Packed, int]:
    """Like :func:`pack`; adds the spikes of every line to ``counts`` ``[B, N]``, of at most 255 steps in all.

    Returns:
        the bits, and the bitwise or of all values, which is 1 at most if they are binary.
    """
    rows, n = span.n_steps * span.n_samples, spikes.shape[2]
    packed = Packed(np.empty((rows, -(-n // WORD)), np.uint64), np.zeros(rows + 1, np.int64), n)
    return packed, int(_pack(spikes, span, counts, packed.words, packed.start))


def listed(packed: Packed, fold: int = 1) -> Events:
    """Bits as events; ``fold`` neighbouring rows share one numbering of lines, ``(row % fold) N + line``."""
    count = int(packed.start[-1])
    line = np.empty(count + GROUP, np.int32)
    _list(packed.words, packed.n_lines, fold, line)
    return Events(packed.start, line[:count], NO_VALUES)


def graded_events(values: NDArray[np.int32], span: Span) -> Events:
    """Events with payload of a span of ``[T, B, N]``."""
    size = span.n_steps * span.n_samples * values.shape[2]
    start = np.zeros(span.n_steps * span.n_samples + 1, np.int64)
    line, value = np.empty(size, np.int32), np.empty(size, np.int32)
    count = _graded(values, span, start, line, value)
    return Events(start, line[:count], value[:count])


@kernel
def _pack(spikes, span, counts, words, start):
    """Fill ``words`` and ``start``; four steps at a time are counted while they are in the cache."""
    n_samples = span.n_samples
    total, row = 0, 0
    seen = np.uint8(0)
    for t in range(span.n_steps):
        for b in range(n_samples):
            total += _pack_row(spikes[span.first_step + t, span.first_sample + b], words[row])
            row += 1
            start[row] = total
        if counts.shape[1] > 0 and (t % 4 == 3 or t == span.n_steps - 1):
            for b in range(n_samples):
                first = span.first_step + t - t % 4
                seen |= _count(spikes, first, t % 4 + 1, span.first_sample + b, counts[b])
    return seen


@inlined
def _pack_row(s, words):
    """Spikes of one row as bits; returns their number. The loop of fixed length becomes vector instructions."""
    total = 0
    n = s.shape[0]
    for k in range(words.shape[0]):
        word = np.uint64(0)
        first = k * WORD
        if first + WORD <= n:
            for j in range(WORD):
                word |= np.uint64(s[first + j] != 0) << np.uint64(j)
        else:
            for j in range(n - first):
                word |= np.uint64(s[first + j] != 0) << np.uint64(j)
        words[k] = word
        total += ones(word)
    return total


@inlined
def _count(spikes, first, steps, sample, counts):
    """Add up to four steps to the counters; returns the bitwise or of all values."""
    seen = np.uint8(0)
    if steps < 4:
        for k in range(steps):
            s = spikes[first + k, sample]
            for j in range(s.shape[0]):
                seen = np.uint8(seen | s[j])
                counts[j] = np.uint8(counts[j] + s[j])
        return seen
    a, b = spikes[first, sample], spikes[first + 1, sample]
    c, d = spikes[first + 2, sample], spikes[first + 3, sample]
    for j in range(a.shape[0]):
        seen = np.uint8(seen | a[j] | b[j] | c[j] | d[j])
        counts[j] = np.uint8(counts[j] + a[j] + b[j] + c[j] + d[j])
    return seen


@kernel
def _list(words, n, fold, line):
    """Walk the set bits. A group is written whether or not it is full, which costs less than asking bit by bit."""
    count = 0
    for row in range(words.shape[0]):
        shift = np.int32(row % fold * n)
        for k in range(words.shape[1]):
            word = words[row, k]
            left = ones(word)
            at = count
            count += left
            while left > 0:
                for j in range(GROUP):
                    line[at + j] = np.int32(shift + trailing_zeros(word))
                    word &= word - np.uint64(1)
                at += GROUP
                left -= GROUP
            shift = np.int32(shift + WORD)


@kernel
def _graded(spikes, span, start, line, value):
    """Fill ``start``, ``line`` and ``value`` with what is not zero."""
    count = 0
    row = 0
    start[0] = 0
    for t in range(span.first_step, span.first_step + span.n_steps):
        for b in range(span.first_sample, span.first_sample + span.n_samples):
            s = spikes[t, b]
            for j in range(s.shape[0]):
                if s[j] != 0:
                    line[count] = j
                    value[count] = s[j]
                    count += 1
            row += 1
            start[row] = count
    return count
