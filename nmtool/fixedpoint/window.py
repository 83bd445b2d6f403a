"""The spikes of one population during a chunk of steps, with the steps before it that delays reach back to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint.events import Events, Packed, Span, graded_events, listed, pack, pack_and_count


@dataclass
class Window:
    """A view into ``[T, B, N]``.

    Attributes:
        array: uint8 0/1, or int32 graded.
        span: the chunk; ``history`` steps before it may be read.
        history: longest delay that is asked for.
        density: share of ones in the span, as far as known; it decides speed, never a bit.
    """

    array: NDArray[Any]
    span: Span
    history: int = 0
    density: float = 1.0
    _packed: dict[int, Packed] = field(default_factory=dict, repr=False)
    _events: dict[tuple[int, int], Events] = field(default_factory=dict, repr=False)

    @property
    def graded(self) -> bool:
        """Whether a spike carries a payload."""
        return self.array.dtype != np.uint8

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(T, B, N)`` of the span."""
        return self.span.n_steps, self.span.n_samples, self.array.shape[2]

    def events(self, lag: int, parts: int = 1, fold: int = 1) -> tuple[Events, int]:
        """Events, computed once.

        Args:
            lag: steps to look back.
            parts: every neuron vector is cut into so many rows.
            fold: see :func:`nmtool.fixedpoint.events.events_of`.

        Returns:
            the events, and the row at which the span shifted back by ``lag`` steps begins.
        """
        if (parts, fold) not in self._events:
            found = (
                graded_events(self.array, self._reach(1)) if self.graded else listed(self._bits(parts), fold)
            )
            self._events[parts, fold] = found
        return self._events[parts, fold], (self.history - lag) * self.span.n_samples * parts

    def _reach(self, parts: int) -> Span:
        """The span and its history, in rows of ``N / parts`` neurons."""
        s = self.span
        first, steps = s.first_step - self.history, s.n_steps + self.history
        return Span(first, steps, s.first_sample * parts, s.n_samples * parts)

    def _bits(self, parts: int) -> Packed:
        if parts not in self._packed:
            cut = self.array.reshape(len(self.array), -1, self.array.shape[2] // parts)
            self._packed[parts] = pack(cut, self._reach(parts))
        return self._packed[parts]

    def tally(self, counts: NDArray[np.uint8]) -> tuple[NDArray[np.int64], int]:
        """Count the spikes of the span (not of its history), binary only; notes the density.

        Args:
            counts: uint8 ``[B, N]``, added to, or empty.

        Returns:
            spikes per step int64 ``[T]``, and the bitwise or of all values.
        """
        packed, seen = pack_and_count(self.array, self.span, counts)
        if not self.history:
            self._packed[1] = packed
        self.density = float(packed.start[-1]) / math.prod(self.shape)
        return np.diff(packed.start[:: self.span.n_samples]), seen

    def rows(self, lag: int) -> NDArray[Any]:
        """The span shifted back by ``lag`` steps, ``[T * B, N]``, contiguous and writable as PyTorch wants it."""
        s = self.span
        first = s.first_step - lag
        part = self.array[first : first + s.n_steps, s.first_sample : s.first_sample + s.n_samples]
        return np.require(part, requirements=["C", "W"]).reshape(-1, self.array.shape[2])
