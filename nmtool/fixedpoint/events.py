"""Spikes as lists of events: the indices of the lines that fired, row by row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint.jit import kernel, trailing_zeros

WORD = 64


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


def events_of(spikes: NDArray[np.uint8] | NDArray[np.int32], span: Span) -> Events:
    """Events of a span of ``[T, B, N]``: uint8 gives binary events, int32 graded ones."""
    rows, n = span.n_steps * span.n_samples, spikes.shape[2]
    start, line = np.empty(rows + 1, np.int64), np.empty(rows * n, np.int32)
    if spikes.dtype == np.uint8:
        return Events(start, line[: _binary(spikes, span, start, line)], NO_VALUES)
    value = np.empty(rows * n, np.int32)
    count = _graded(spikes, span, start, line, value)
    return Events(start, line[:count], value[:count])


@kernel
def _binary(spikes, span, start, line):  # type: ignore[no-untyped-def]
    """Fill ``start`` and ``line``; 64 lines at a time become one word, whose set bits are then walked."""
    n = spikes.shape[2]
    whole = n // WORD * WORD
    count = 0
    row = 0
    start[0] = 0
    for t in range(span.first_step, span.first_step + span.n_steps):
        for b in range(span.first_sample, span.first_sample + span.n_samples):
            s = spikes[t, b]
            for first in range(0, whole, WORD):
                word = np.uint64(0)
                for j in range(WORD):
                    word |= np.uint64(s[first + j] != 0) << np.uint64(j)
                while word != 0:
                    line[count] = first + trailing_zeros(word)
                    count += 1
                    word &= word - np.uint64(1)
            for j in range(whole, n):
                if s[j] != 0:
                    line[count] = j
                    count += 1
            row += 1
            start[row] = count
    return count


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
