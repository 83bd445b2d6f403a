"""One block of samples through all steps, chunk by chunk, with the state carried from chunk to chunk."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from nmtool.backends.base import RunOptions
from nmtool.backends.sim_input import Feed, InputBlock, host_bias
from nmtool.backends.sim_layer import LayerRun
from nmtool.backends.sim_plan import Layer, Plan
from nmtool.backends.sim_result import Collector
from nmtool.fixedpoint.synapses import Part, summed
from nmtool.fixedpoint.window import Window

Windows = dict[tuple[str, bool], Window]
"""Spikes of the chunk by source and whether with payload."""


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


class Block:
    """Arrays for ``n_samples`` samples of a job, used again for every run."""

    def __init__(self, job: Job, n_samples: int) -> None:
        self._job, self.n_samples = job, n_samples
        self._input = InputBlock(job.plan, job.feed, job.options, n_samples, job.steps)
        self._layers: dict[str, LayerRun] = {}
        for layer in (layer for group in job.plan.groups for layer in group):
            name = layer.population.name
            self._layers[name] = LayerRun(layer, job.plan.history[name], n_samples, job.steps, job.options)

    def run(self, samples: range) -> None:
        """All steps of these samples; hands the results to the job's collector."""
        job, n_steps = self._job, self._job.feed.n_steps
        part = slice(samples.start, samples.stop)
        self._input.begin(samples, job.collector.counts_of(job.plan.program.input.name)[part])
        for name, run in self._layers.items():
            driven = job.plan.host is not None and job.plan.host.target == name
            bias = host_bias(job.plan, job.feed, samples) if driven else None
            run.begin(n_steps, job.collector.counts_of(name)[part], bias)
        for first in range(0, n_steps, job.steps):
            self._chunk(samples, range(first, min(first + job.steps, n_steps)))
        self._collect(samples)

    def _chunk(self, samples: range, steps: range) -> None:
        inputs = self._input.advance(steps.start, len(steps))
        windows: Windows = {(self._job.plan.program.input.name, graded): w for graded, w in inputs.items()}
        first_sample = self._job.options.sample_offset + samples.start
        for run in self._layers.values():
            run.next_chunk()
        for group in self._job.plan.groups:
            outside = [_outside(layer, windows) for layer in group]
            if any(layer.inside for layer in group):
                self._step_by_step(group, outside, steps, first_sample)
            else:
                for layer, part in zip(group, outside, strict=True):
                    self._layers[layer.population.name].scan(part, steps, 0, first_sample)
            for layer in group:
                name = layer.population.name
                windows[name, False] = self._layers[name].end_chunk(steps.start, len(steps))
        self._record(samples, steps)

    def _step_by_step(
        self, group: tuple[Layer, ...], outside: list[Part | None], steps: range, first_sample: int
    ) -> None:
        for at, step in enumerate(steps):
            for layer, ready in zip(group, outside, strict=True):
                parts = [] if ready is None else [ready._replace(values=ready.values[at : at + 1])]
                for e in layer.inside:
                    parts.append(e.synapses.drive(self._layers[e.source].step_window(at, e.lag), 0))
                total = summed(parts) if parts else None
                self._layers[layer.population.name].scan(total, range(step, step + 1), at, first_sample)

    def _record(self, samples: range, steps: range) -> None:
        """Copy the chunk into the traces."""
        where = slice(steps.start, steps.stop), slice(samples.start, samples.stop)
        for name, arrays in self._job.collector.traces.items():
            run = self._layers.get(name)
            found: tuple[NDArray[Any], ...] = (
                self._input.chunk_arrays() if run is None else run.chunk_arrays(len(steps))
            )
            for target, part in zip(arrays, found, strict=True):
                target[where] = part

    def _collect(self, samples: range) -> None:
        job, found, part = self._job, self._job.collector, slice(samples.start, samples.stop)
        for name, run in self._layers.items():
            found.last[name][part] = run.last_spikes
            found.active[name][part] = run.tally.active
            if name == job.plan.program.output:
                found.membrane[part] = run.state.v.reshape(len(samples), -1)
        source = job.plan.program.input.name
        with job.lock:
            for name, run in self._layers.items():
                found.per_step[name] += run.per_step
                found.overflow[name] += run.tally.overflow
            if source in found.per_step:
                found.per_step[source] += self._input.per_step


def _outside(layer: Layer, windows: Windows) -> Part | None:
    """Drive of the whole chunk from populations that have already run."""
    parts = [e.synapses.drive(windows[e.source, e.graded], e.lag) for e in layer.outside]
    return summed(parts) if parts else None
