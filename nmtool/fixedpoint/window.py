"""The spikes of one population during a chunk of steps, with the steps before it that delays reach back to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint.events import Events, Span, events_of


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
            s, n = self.span, self.array.shape[2]
            cut = self.array.reshape(len(self.array), -1, n // parts)
            reach = Span(s.first_step - self.history, s.n_steps + self.history, s.first_sample * parts, s.n_samples * parts)
            self._events[parts, fold] = events_of(cut, reach, fold)
        return self._events[parts, fold], (self.history - lag) * self.span.n_samples * parts

    def rows(self, lag: int) -> NDArray[Any]:
        """The span shifted back by ``lag`` steps, contiguous ``[T * B, N]``."""
        s = self.span
        first = s.first_step - lag
        part = self.array[first : first + s.n_steps, s.first_sample : s.first_sample + s.n_samples]
        return np.ascontiguousarray(part).reshape(-1, self.array.shape[2])

    def per_step(self) -> NDArray[np.int64]:
        """Spikes of each step of the span, summed over samples and neurons; binary only."""
        s = self.span
        for (parts, _), e in self._events.items():
            return np.diff(e.start[self.history * s.n_samples * parts :: s.n_samples * parts])
        part = self.array[s.first_step : s.first_step + s.n_steps, s.first_sample : s.first_sample + s.n_samples]
        return np.array([np.count_nonzero(step) for step in part.view(np.bool_)], np.int64)
