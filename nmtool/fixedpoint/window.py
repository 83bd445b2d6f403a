"""The spikes of one population during a chunk of steps, with the steps before it that delays reach back to."""

from __future__ import annotations

from dataclasses import dataclass, field

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

    array: NDArray[np.uint8] | NDArray[np.int32]
    span: Span
    history: int = 0
    density: float = 1.0
    _events: Events | None = field(default=None, repr=False)

    @property
    def graded(self) -> bool:
        """Whether a spike carries a payload."""
        return self.array.dtype != np.uint8

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(T, B, N)`` of the span."""
        return self.span.n_steps, self.span.n_samples, self.array.shape[2]

    def events(self, lag: int) -> tuple[Events, int]:
        """Events, and the row at which the span shifted back by ``lag`` steps begins."""
        if self._events is None:
            s = self.span
            reach = Span(s.first_step - self.history, s.n_steps + self.history, s.first_sample, s.n_samples)
            self._events = events_of(self.array, reach)
        return self._events, (self.history - lag) * self.span.n_samples

    def rows(self, lag: int) -> NDArray[np.uint8] | NDArray[np.int32]:
        """The span shifted back by ``lag`` steps, contiguous ``[T * B, N]``."""
        s = self.span
        first = s.first_step - lag
        part = self.array[first : first + s.n_steps, s.first_sample : s.first_sample + s.n_samples]
        return np.ascontiguousarray(part).reshape(-1, self.array.shape[2])
