"""What goes to the Lava worker and what comes back, for some of a run's samples at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.backends import sim_plan
from nmtool.backends.base import RunOptions, RunResult, Trace
from nmtool.backends.frames import Frame, array
from nmtool.backends.sim_input import Feed, feed, graded_events
from nmtool.compiler.program import Program, save
from nmtool.errors import NmtoolError
from nmtool.fixedpoint.encode import rate_spikes


def packed(program: Program) -> NDArray[np.uint8]:
    """The bytes of ``program.npz``."""
    with tempfile.TemporaryDirectory(prefix="nmtool-") as folder:
        path = Path(folder) / "program.npz"
        save(program, path)
        return np.frombuffer(path.read_bytes(), np.uint8)


@dataclass(frozen=True)
class Entering:
    """Checked input. ``feed`` as the simulator takes it; ``bias`` int32 ``[B, N]`` of the host's target, or None."""

    feed: Feed
    bias: NDArray[np.int32] | None
    seed: int
    sample_offset: int

    @property
    def n_steps(self) -> int:
        """T."""
        return self.feed.n_steps

    @property
    def n_samples(self) -> int:
        """B."""
        return self.feed.n_samples

    def part(self, samples: range) -> dict[str, NDArray[Any]]:
        """Arrays of a request: ``bias``, or ``spikes`` ``[T, B, N]`` (uint8, or int32 with payload)."""
        if self.bias is not None:
            return {"bias": self.bias[samples.start : samples.stop]}
        return {"spikes": self.spikes(samples)}

    def spikes(self, samples: range) -> NDArray[Any]:
        """What the input lines carry, ``[T, B, N]``."""
        chosen = slice(samples.start, samples.stop)
        if self.feed.spikes is not None:
            return self.feed.spikes[:, chosen]
        if self.feed.thresholds is not None:
            index = np.arange(samples.start, samples.stop) + self.sample_offset
            return rate_spikes(self.feed.thresholds[chosen], self.seed, index, np.arange(self.n_steps))
        units = (self.feed.units if self.feed.units is not None else np.zeros((0, 0)))[chosen].astype(
            np.int32
        )
        return np.broadcast_to(units, (self.n_steps, *units.shape))


def entering(program: Program, x: NDArray[Any], options: RunOptions) -> Entering:
    """Check and encode ``x``.

    Raises:
        ModelError: NM109 if it does not fit the program's input.
    """
    source = feed(program, x, options)
    bias = (
        _host_mantissas(program, source.units)
        if program.host is not None and source.units is not None
        else None
    )
    return Entering(source, bias, options.seed, options.sample_offset)


def _host_mantissas(program: Program, units: NDArray[np.int64]) -> NDArray[np.int32]:
    """The rule of :class:`nmtool.compiler.program.HostLayer`, ``[B, N]`` in flat order."""
    plan, layer = sim_plan.prepare(program), program.host
    if plan.host is None or layer is None:
        return np.zeros((len(units), 0), np.int32)
    acc = plan.host.synapses.exact(plan.layouts[program.input.name].inward(units)) + plan.host.bias
    mantissa = np.clip((acc + (1 << layer.shift >> 1)) >> layer.shift, layer.man_min, layer.man_max)
    return plan.layouts[plan.host.target].outward(mantissa).astype(np.int32)


class Collected:
    """Results of all samples, filled request by request; zeros where a sample failed."""

    def __init__(
        self, program: Program, counted: Sequence[str], source: Entering, options: RunOptions
    ) -> None:
        t, b = source.n_steps, source.n_samples
        sizes = {p.name: p.n_neurons for p in program.populations}
        self.program, self.counted, self.source, self.options = program, counted, source, options
        self.traced = [n for n in sizes if options.records(n)]
        self.counts = {n: np.zeros((b, sizes[n]), np.int64) for n in counted}
        self.last = {n: np.zeros((b, sizes[n]), np.uint8) for n in counted}
        self.density = {n: np.zeros(t, np.int64) for n in counted}
        kinds = {"spikes": np.uint8, "u": np.int32, "v": np.int32}
        self.traces = {n: {k: np.zeros((t, b, sizes[n]), d) for k, d in kinds.items()} for n in self.traced}
        self.final = np.zeros((b, sizes[program.output]), np.int64)
        self.failures: list[dict[str, Any]] = []

    def add(self, frame: Frame, samples: range) -> None:
        """Keep the answer of a request.

        Raises:
            SimulationError: NM404 if an array is missing or of another shape.
        """
        chosen, b, t = slice(samples.start, samples.stop), len(samples), self.source.n_steps
        for name in self.counted:
            n = self.program.size(name)
            self.counts[name][chosen] = array(frame, f"{name}/counts", "i8", (b, n))
            self.last[name][chosen] = array(frame, f"{name}/last", "u1", (b, n))
            self.density[name] += array(frame, f"{name}/density", "i8", (t,))
        for name in self.traced:
            for key, code in (("spikes", "u1"), ("u", "i4"), ("v", "i4")):
                self.traces[name][key][:, chosen] = array(
                    frame, f"{name}/{key}", code, (t, b, self.program.size(name))
                )
        if self.program.readout == "membrane":
            output = self.program.output
            rows = t if output in self.traced else 1
            self.final[chosen] = array(frame, f"{output}/v", "i4", (rows, b, self.program.size(output)))[-1]

    def fail(self, sample: int, error: NmtoolError, block: str | None) -> None:
        """Note that a sample could not be finished."""
        self.failures.append({"sample": sample, "block": block, "error": str(error)})

    def result(self) -> RunResult:
        """Everything, in the shapes of the graph."""
        p, o = self.program, self.options
        counts, traces = dict(self._shaped(self.counts)), {}
        for name, parts in self.traces.items():
            shape = p.population(name).shape
            traces[name] = Trace(**{k: a.reshape(*a.shape[:2], *shape) for k, a in parts.items()})
        if self.source.feed.carries_spikes:
            self._input(counts, traces)
        counts |= graded_events(p, self.source.feed)
        membrane = p.readout == "membrane"
        return RunResult(
            backend="lava",
            model_sha256=p.sha256,
            n_steps=self.source.n_steps,
            dt_s=p.dt_s,
            seed=o.seed,
            noise=o.noise,
            logits=self.final if membrane else self.counts[p.output],
            spike_counts=counts,
            last_spikes=dict(self._shaped(self.last)),
            latency={q.name: q.latency for q in p.populations},
            traces=traces,
            steps_density=self.density,
            failures=tuple(self.failures),
        )

    def _shaped(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: a.reshape(len(a), *self.program.population(name).shape) for name, a in arrays.items()}

    def _input(self, counts: dict[str, NDArray[np.int64]], traces: dict[str, Trace]) -> None:
        """What entered, under the input's own name."""
        spec, n = self.program.input, self.source.n_samples
        counts[spec.name] = np.zeros((n, *spec.shape), np.int64)
        for b in range(n):
            counts[spec.name][b] = (
                (self.source.spikes(range(b, b + 1))[:, 0] != 0).sum(axis=0).reshape(spec.shape)
            )
        if self.options.records(spec.name):
            spikes = self.source.spikes(range(n))
            traces[spec.name] = Trace(spikes.reshape(*spikes.shape[:2], *spec.shape))
