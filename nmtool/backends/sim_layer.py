"""State, counters and spikes of one population while a block of samples runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.backends.base import RunOptions
from nmtool.backends.sim_counts import Counts
from nmtool.backends.sim_plan import Layer
from nmtool.fixedpoint import scan, streams
from nmtool.fixedpoint.events import Span
from nmtool.fixedpoint.synapses import Part, gain
from nmtool.fixedpoint.window import Window


class LayerRun:
    """Arrays of one population for a block of samples and a chunk of steps, used again for every block.

    Args:
        layer: what runs.
        history: steps that later readers look back.
        n_samples, steps: samples, and most steps of a chunk.
        options: what to trace.

    Attributes:
        layer: what runs.
        spikes: uint8 ``[history + steps, B, N]``; a chunk begins at ``history``.
        state, tally: of the scan.
        trace: int32 ``[steps, B, N]`` each, u and v of the chunk; empty unless recorded.
        per_step: int64 ``[T]``, spikes of the block.
    """

    def __init__(self, layer: Layer, history: int, n_samples: int, steps: int, options: RunOptions) -> None:
        n = layer.layout.size
        self._lanes = n_samples * n
        self.layer, self._history, self._options = layer, history, options
        self.spikes = np.zeros((history + steps, n_samples, n), np.uint8)
        self.state = scan.state_at_rest(n_samples, n)
        self.tally = scan.no_tally(n_samples, steps)
        traced = (steps, n_samples, n) if options.records(layer.population.name) else (0, 0, 0)
        self.trace = np.empty(traced, np.int32), np.empty(traced, np.int32)
        self.per_step = np.zeros(0, np.int64)
        self._counts = Counts(np.zeros(0, np.uint8))
        self._own_bias, self._tiles = scan.NO_BIAS, scan.tiles_of(n_samples, n)
        self._silence = np.zeros((1, n_samples * n), np.int32)
        self._n_last = 1

    def begin(self, n_steps: int, counts: NDArray[Any], bias: NDArray[np.int32] | None) -> None:
        """Everything at rest, before the first of ``n_steps`` steps.

        Args:
            n_steps: T.
            counts: where spikes are counted, ``[B, N]`` in memory order, or empty. Bytes if T allows it.
            bias: replaces the population's, or None.
        """
        self._counts = Counts(counts)
        self.tally = self.tally._replace(spikes=self._counts.bytes)
        for a in (*self.state, self.tally.active, self.tally.overflow, self.spikes[: self._history]):
            a.fill(0)
        self.per_step = np.zeros(n_steps, np.int64)
        self._own_bias = scan.NO_BIAS if bias is None else bias
        self._n_last = 0

    def next_chunk(self) -> None:
        """Move the last steps to where delays look for them."""
        if self._history and self._n_last:
            self.spikes[: self._history] = self.spikes[self._n_last : self._n_last + self._history]
        self.tally.per_step.fill(0)

    def end_chunk(self, first: int, n_steps: int) -> Window:
        """Note the chunk's spikes per step, and give its spikes to those who read them."""
        self._counts.end_chunk()
        count = self.tally.per_step[:n_steps]
        self.per_step[first : first + n_steps] = count
        density = float(count.sum()) / (n_steps * self._lanes)
        return Window(
            self.spikes, Span(self._history, n_steps, 0, self.spikes.shape[1]), self._history, density
        )

    def step_window(self, at: int, lag: int) -> Window:
        """The spikes that act with this lag in the chunk's step ``at``."""
        density = float(self.tally.per_step[max(at - 1, 0)]) / self._lanes
        return Window(self.spikes, Span(self._history + at - lag, 1, 0, self.spikes.shape[1]), 0, density)

    def scan(self, part: Part | None, steps: range, at: int, first_sample: int) -> None:
        """Scan some steps, which begin at ``at`` in the chunk.

        Args:
            part: drive ``[T, B, N]``, or None if nothing arrives.
            steps: own time.
            at: see above.
            first_sample: index of the block's first sample in its data set.
        """
        layer, n_steps, lanes = self.layer, len(steps), self._lanes
        values, offset, power = part or Part(self._silence)
        chunk = scan.Chunk(
            layer.layout.size, self._tiles, values.reshape(len(values), lanes), np.int32(offset), gain(power),
            self._own_bias, *self._noise(steps, first_sample),
        )  # fmt: skip
        begin = self._history + at
        u, v = (a[at : at + n_steps].reshape(-1, lanes) for a in self.trace)
        out = scan.Recording(self.spikes[begin : begin + n_steps].reshape(n_steps, lanes), u, v)
        tally = self.tally._replace(per_step=self.tally.per_step[at : at + n_steps])
        scan.scan(layer.registers, self.state, chunk, tally, out)
        self._n_last = at + n_steps

    def _noise(self, steps: range, first_sample: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Noise on current and membrane in memory order, each ``[T or 1, B * N]``, or both empty."""
        spec, layer = self.layer.population.noise, self.layer
        if spec is None or not self._options.noise:
            return scan.NOTHING, scan.NOTHING
        stream = streams.Stream(self._options.seed, first_sample, steps.start, layer.block)
        drawn = streams.noise_chunk(spec, stream, (len(steps), *self.spikes.shape[1:]))
        noise = layer.layout.inward(drawn).reshape(len(steps), -1)
        return (noise, self._silence) if spec.at == "current" else (self._silence, noise)

    def chunk_arrays(self, n_steps: int) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
        """Spikes, u and v of the chunk, ``[T, B, N]`` in memory order."""
        u, v = self.trace
        return self.spikes[self._history : self._history + n_steps], u[:n_steps], v[:n_steps]

    @property
    def last_spikes(self) -> NDArray[np.uint8]:
        """Spikes of the last step, ``[B, N]``."""
        return self.spikes[self._history + self._n_last - 1]
