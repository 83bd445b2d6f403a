"""Spikes as lists of events: the indices of the lines that fired, row by row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint.jit import kernel, ones, trailing_zeros

WORD = 64
GROUP = 8


class Span(NamedTuple):
    """The part ``[first_step : first_step + n_steps, first_sample : first_sample + n_samples]`` of an array ``[T, B, N]``."""

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


def events_of(spikes: NDArray[np.uint8] | NDArray[np.int32], span: Span, fold: int = 1) -> Events:
    """Events of a span of ``[T, B, N]``: uint8 gives binary events, int32 graded ones.

    Args:
        spikes: the array.
        span: what of it.
        fold: so many neighbouring rows share one numbering of lines, ``(row % fold) N + line`` (binary only).
    """
    rows, n = span.n_steps * span.n_samples, spikes.shape[2]
    start = np.empty(rows + 1, np.int64)
    if spikes.dtype == np.uint8:
        words = np.empty((rows, -(-n // WORD)), np.uint64)
        count = _pack(spikes, span, words, start)
        line = np.empty(count + WORD, np.int32)
        _list(words, n, fold, line)
        return Events(start, line[:count], NO_VALUES)
    line, value = np.empty(rows * n, np.int32), np.empty(rows * n, np.int32)
    count = _graded(spikes, span, start, line, value)
    return Events(start, line[:count], value[:count])


@kernel
def _pack(spikes, span, words, start):  # type: ignore[no-untyped-def]
    """Bit j of word k is line ``64 k + j``; fills ``start`` and returns the number of events."""
    n = spikes.shape[2]
    count, row = 0, 0
    start[0] = 0
    for t in range(span.first_step, span.first_step + span.n_steps):
        for b in range(span.first_sample, span.first_sample + span.n_samples):
            s = spikes[t, b]
            for k in range(words.shape[1]):
                word = np.uint64(0)
                first = k * WORD
                if first + WORD <= n:
                    for j in range(WORD):
                        word |= np.uint64(s[first + j] != 0) << np.uint64(j)
                else:
                    for j in range(n - first):
                        word |= np.uint64(s[first + j] != 0) << np.uint64(j)
                words[row, k] = word
                count += ones(word)
            row += 1
            start[row] = count
    return count


@kernel
def _list(words, n, fold, line):  # type: ignore[no-untyped-def]
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
def _graded(spikes, span, start, line, value):  # type: ignore[no-untyped-def]
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
