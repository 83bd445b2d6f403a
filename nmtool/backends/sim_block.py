"""One block of samples through all steps, chunk by chunk, with the state carried from chunk to chunk."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nmtool.backends.base import RunOptions
from nmtool.backends.sim_input import Feed, InputBlock, host_bias
from nmtool.backends.sim_plan import Layer, Plan
from nmtool.backends.sim_result import Collector
from nmtool.fixedpoint import scan, streams
from nmtool.fixedpoint.events import Span
from nmtool.fixedpoint.synapses import Part, gain, summed
from nmtool.fixedpoint.window import Window


@dataclass(frozen=True)
class Job:
    """What every block of a run shares.

    Attributes:
        plan, feed, options: see their types.
        steps: most steps per chunk.
        collector: takes the results.
    """

    plan: Plan
    feed: Feed
    options: RunOptions
    steps: int
    collector: Collector
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class LayerRun:
    """State and counters of one population during a block.

    Attributes:
        spikes: uint8 ``[history + steps, B, N]``; the chunk begins at ``history``.
        state, tally: of the scan.
        per_step: int64 ``[T]``.
        bias, tiles: see :class:`nmtool.fixedpoint.scan.Chunk`.
        trace: int32 ``[steps, B * N]`` each, u and v of the chunk; empty unless recorded.
        n_last: steps of the chunk that have run.
        density: share of ones in the last single step.
    """

    layer: Layer
    history: int
    spikes: NDArray[np.uint8]
    state: scan.State
    tally: scan.Tally
    per_step: NDArray[np.int64]
    bias: NDArray[np.int32]
    tiles: NDArray[np.int64]
    trace: tuple[NDArray[np.int32], NDArray[np.int32]]
    n_last: int = 1
    density: float = 0.0


class Block:
    """Runs ``samples`` of a job."""

    def __init__(self, job: Job, samples: range) -> None:
        self.job, self.samples = job, samples
        self.input = InputBlock(job.plan, job.feed, job.options, samples, job.steps)
        self.layers = {
            layer.population.name: self._start(layer) for group in job.plan.groups for layer in group
        }

    def run(self) -> None:
        """All steps; hands the results to the job's collector."""
        n = self.job.feed.n_steps
        for first in range(0, n, self.job.steps):
            self._chunk(first, min(self.job.steps, n - first))
        self._collect()

    def _start(self, layer: Layer) -> LayerRun:
        job, n_samples, n = self.job, len(self.samples), layer.layout.size
        name = layer.population.name
        history = job.plan.history[name]
        recorded = job.options.records(name)
        shape = (job.steps, n_samples * n) if recorded else (0, 0)
        host = job.plan.host
        driven = host is not None and host.target == name
        return LayerRun(
            layer,
            history,
            np.zeros((history + job.steps, n_samples, n), np.uint8),
            scan.state_at_rest(n_samples, n, layer.registers.refractory_steps),
            scan.Tally(*(np.zeros(s, t) for s, t in (
                (n_samples * n, np.int32), (n_samples, np.int64), (2, np.int64), (job.steps, np.int64)))),
            np.zeros(job.feed.n_steps, np.int64),
            host_bias(job.plan, job.feed, self.samples) if driven else layer.bias,
            scan.tiles_of(n_samples, n),
            (np.empty(shape, np.int32), np.empty(shape, np.int32)),
        )  # fmt: skip

    def _chunk(self, first: int, n_steps: int) -> None:
        inputs = self.input.advance(first, n_steps)
        windows = {(self.job.plan.program.input.name, graded): w for graded, w in inputs.items()}
        for run in self.layers.values():
            _roll(run)
            run.tally.per_step[:] = 0
        for group in self.job.plan.groups:
            outside = [self._outside(layer, windows) for layer in group]
            if any(layer.inside for layer in group):
                self._step_by_step(group, outside, first, n_steps)
            else:
                for layer, part in zip(group, outside, strict=True):
                    self._scan(layer, part, range(first, first + n_steps), 0)
            for layer in group:
                run = self.layers[layer.population.name]
                run.per_step[first : first + n_steps] = run.tally.per_step[:n_steps]
                windows[layer.population.name, False] = self._window(run, run.history, n_steps)
        self.input.finish(first, n_steps)
        self._record(inputs, first, n_steps)

    def _window(self, run: LayerRun, first: int, n_steps: int) -> Window:
        """Spikes of a population from row ``first`` of its buffer."""
        density = float(run.tally.per_step[:n_steps].sum()) / (n_steps * run.tally.spikes.size)
        return Window(run.spikes, Span(first, n_steps, 0, len(self.samples)), run.history, density)

    def _outside(self, layer: Layer, windows: dict[tuple[str, bool], Window]) -> Part | None:
        """Drive of the whole chunk from populations that have already run."""
        parts = [e.synapses.drive(windows[e.source, e.graded], e.lag) for e in layer.outside]
        return summed(parts) if parts else None

    def _step_by_step(self, group: tuple[Layer, ...], outside: list[Part | None], first: int, n_steps: int) -> None:
        for k in range(n_steps):
            for layer, ready in zip(group, outside, strict=True):
                parts = [] if ready is None else [ready._replace(values=ready.values[k : k + 1])]
                for e in layer.inside:
                    run = self.layers[e.source]
                    span = Span(run.history + k - e.lag, 1, 0, len(self.samples))
                    parts.append(e.synapses.drive(Window(run.spikes, span, 0, run.density), 0))
                self._scan(layer, summed(parts) if parts else None, range(first + k, first + k + 1), k)

    def _scan(self, layer: Layer, part: Part | None, steps: range, at: int) -> None:
        """Scan some steps of one population, ``at`` in the chunk."""
        run, n_steps, n_samples = self.layers[layer.population.name], len(steps), len(self.samples)
        spikes = run.spikes[run.history + at : run.history + at + n_steps].reshape(n_steps, -1)
        values, offset, power = part or Part(scan.NOTHING)
        noise, where = self._noise(layer, steps)
        chunk = slice(at, at + n_steps)
        scan.scan(
            layer.registers,
            run.state,
            scan.Chunk(
                layer.layout.size, run.tiles, values.reshape(len(values), spikes.shape[1]), np.int32(offset),
                gain(power), run.bias, noise, where,
            ),
            run.tally._replace(per_step=run.tally.per_step[chunk]),
            scan.Recording(spikes, run.trace[0][chunk], run.trace[1][chunk]),
        )  # fmt: skip
        run.n_last = at + n_steps
        if n_steps == 1:
            run.density = float(run.tally.per_step[at]) / (n_samples * layer.layout.size)

    def _noise(self, layer: Layer, steps: range) -> tuple[NDArray[np.int32], int]:
        """Noise of some steps in memory order, ``[T, B * N]``, and where it enters."""
        spec, options = layer.population.noise, self.job.options
        if spec is None or not options.noise:
            return scan.NOTHING, scan.NO_NOISE
        stream = streams.Stream(options.seed, options.sample_offset + self.samples.start, steps.start, layer.block)
        drawn = streams.noise_chunk(spec, stream, (len(steps), len(self.samples), layer.layout.size))
        where = scan.NOISE_AT_MEMBRANE if spec.at == "membrane" else scan.NOISE_AT_CURRENT
        return layer.layout.inward(drawn).reshape(len(steps), -1), where

    def _record(self, inputs: dict[bool, Window], first: int, n_steps: int) -> None:
        """Copy the chunk into the traces, in flat order."""
        steps, samples = slice(first, first + n_steps), slice(self.samples.start, self.samples.stop)
        for name, arrays in self.job.collector.traces.items():
            layout = self.job.plan.layouts[name]
            if name in self.layers:
                run = self.layers[name]
                found = (run.spikes[run.history : run.history + n_steps], *(a[:n_steps].reshape(n_steps, len(self.samples), -1) for a in run.trace))
            else:
                found = (inputs[True].rows(0).reshape(inputs[True].shape),)
            for target, part in zip(arrays, found, strict=False):
                target[steps, samples] = layout.outward(part)

    def _collect(self) -> None:
        job, samples = self.job, slice(self.samples.start, self.samples.stop)
        found = job.collector
        for name, run in self.layers.items():
            outward = run.layer.layout.outward
            found.counts[name][samples] = outward(run.tally.spikes.reshape(len(self.samples), -1))
            found.last[name][samples] = outward(run.spikes[run.history + run.n_last - 1])
            found.active[name][samples] = run.tally.active
            if name == job.plan.program.output:
                found.membrane[samples] = outward(run.state.v.reshape(len(self.samples), -1))
        source = job.plan.program.input.name
        if source in found.counts:
            found.counts[source][samples] = job.plan.layouts[source].outward(self.input.counts)
        with job.lock:
            for name, run in self.layers.items():
                found.per_step[name] += run.per_step
                found.overflow[name] += run.tally.overflow
            if source in found.per_step:
                found.per_step[source] += self.input.per_step


def _roll(run: LayerRun) -> None:
    """Move the last steps of the previous chunk to where delays look for them."""
    if run.history:
        run.spikes[: run.history] = run.spikes[run.n_last : run.n_last + run.history]
