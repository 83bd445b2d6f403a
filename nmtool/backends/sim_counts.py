"""Spikes per neuron during a block: bytes while they last, then wider."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Counts:
    """Spikes per neuron, counted in bytes and moved into wider counters before a byte could overflow."""

    def __init__(self, total: NDArray[Any]) -> None:
        total.fill(0)
        self._total = total.reshape(-1)
        self.bytes = self._total if total.dtype == np.uint8 else np.zeros(total.size, np.uint8)

    def end_chunk(self) -> None:
        """After at most :data:`nmtool.fixedpoint.scan.COUNTED_STEPS` steps."""
        if self.bytes is not self._total:
            self._total += self.bytes
            self.bytes.fill(0)
