"""The float engine: the graph's difference equations in NumPy, the oracle for everything that is faster or integer.

Operations come in the order of snnTorch 1.0, so that spikes equal the module's wherever synaptic sums are exact (see
:mod:`nmtool.ir.kernels` and :mod:`nmtool.ir.population`). Signals on several edges into a node are added in the order
of the edges, feedback last; a feedback edge carries what its source gave at the previous step, 0 at first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import nir
import numpy as np
from numpy.typing import DTypeLike, NDArray

from nmtool.errors import ModelError, SimulationError
from nmtool.ir.graph import Graph
from nmtool.ir.kernels import DelayLine, Floats
from nmtool.ir.maps import as_map
from nmtool.ir.population import Population
from nmtool.ir.resolve import delay_steps


class FloatTrace(NamedTuple):
    """One population over time, each ``[T, B, *shape]``.

    Attributes:
        spikes: uint8; 0 for a population that never spikes.
        i_syn: synaptic current, or None without one.
        v_post: potential after the reset; None for the input.
    """

    spikes: NDArray[np.uint8]
    i_syn: Floats | None
    v_post: Floats | None


class FloatRun(NamedTuple):
    """What a run gave: B samples, T steps, K values of the output node.

    Attributes:
        logits: ``[B, K]``: int64 spike counts, or floats: the membrane after the last step, or the sum over the steps
            of an output that is no neuron.
        counts: spikes per spiking population, and of the input if it carries spikes: int64 ``[B, *shape]``.
        traces: of the populations asked for, and the input's spikes under its own name.
        last_spikes: uint8 ``[B, *shape]``, keys as ``counts``.
        density: spikes per step summed over samples, int64 ``[T]``, keys as ``counts``.
    """

    logits: NDArray[Any]
    counts: dict[str, NDArray[np.int64]]
    traces: dict[str, FloatTrace]
    last_spikes: dict[str, NDArray[np.uint8]]
    density: dict[str, NDArray[np.int64]]


class Engine:
    """A graph ready to run; weights are prepared once.

    Args:
        graph: any graph.
        dtype: of states and signals: float32 as in training, or float64.
    """

    def __init__(self, graph: Graph, dtype: DTypeLike = np.float32) -> None:
        self.graph, self.dtype = graph, np.dtype(dtype)
        nodes, late = graph.nodes, set(graph.feedback_edges)
        self.maps = {
            n: as_map(v) for n, v in nodes.items() if v.neuron is None and not isinstance(v.op, nir.Delay)
        }
        self.ahead = {n: [a for a, b in graph.edges if b == n and (a, b) not in late] for n in nodes}
        self.late = {n: [a for a, b in graph.edges if b == n and (a, b) in late] for n in nodes}
        self.still = {graph.input}
        for n in graph.order():
            if n in self.maps and self.ahead[n] and not self.late[n] and self.still.issuperset(self.ahead[n]):
                self.still.add(n)

    def run(
        self,
        x: NDArray[Any],
        *,
        n_steps: int | None = None,
        seed: int = 0,
        noise: bool = True,
        record: tuple[str, ...] = (),
        sample_offset: int = 0,
    ) -> FloatRun:
        """Run B samples from rest.

        Args:
            x: ``[B, *shape]``, a constant current at every step (encoder ``direct``), or ``[T, B, *shape]``.
            n_steps: T; None takes the length of x, or the model's own.
            seed: of the noise.
            noise: False runs without.
            record: names of populations to trace, ``("all",)`` for every one.
            sample_offset: index of the first sample; the noise of a sample depends on its own index alone.

        Raises:
            ModelError: NM109 if x does not fit the input.
            SimulationError: NM401 if a state is not finite at the end.
        """
        constant = self._constant(x, n_steps)
        steps = len(x) if not constant else self.graph.model.n_steps if n_steps is None else n_steps
        n_samples = x.shape[0 if constant else 1]
        state = _State(self, n_samples, steps)
        draws = _Noise(self.graph, seed, range(sample_offset, sample_offset + n_samples)) if noise else None
        tally = _Tally(self.graph, state, steps, record)
        with np.errstate(over="ignore", invalid="ignore"):
            for t in range(steps):
                value = x if constant else x[t]
                state.step(np.asarray(value, self.dtype), draws, reuse=constant and t > 0)
                tally.take(t, None if constant else value)
        state.check_finite()
        return tally.result()

    def _constant(self, x: NDArray[Any], n_steps: int | None) -> bool:
        """Whether x is one value per sample (and not a time series)."""
        shape, encoder = self.graph.nodes[self.graph.input].out_shape, self.graph.model.encoder
        where, axes = f"input {self.graph.input}", "".join(f", {n}" for n in shape)
        if x.ndim == len(shape) + 1 and x.shape[1:] == shape:
            if encoder != "direct":
                message = f"x of shape {list(x.shape)} has no time axis, and the encoder is '{encoder}'"
                raise ModelError("NM109", where, message, f"Encode the samples to spikes [T, B{axes}] first")
            return True
        if x.ndim != len(shape) + 2 or x.shape[2:] != shape:
            expected = f"[B{axes}] or [T, B{axes}]" if encoder == "direct" else f"[T, B{axes}]"
            raise ModelError("NM109", where, f"x has shape {list(x.shape)}, must be {expected}")
        if n_steps is not None and n_steps != len(x):
            message = f"x has {len(x)} steps, {n_steps} were asked for"
            raise ModelError("NM109", where, message, "Ask for as many, or cut x")
        return False


def run(
    graph: Graph,
    x: NDArray[Any],
    *,
    n_steps: int | None = None,
    seed: int = 0,
    noise: bool = True,
    record: tuple[str, ...] = (),
    dtype: DTypeLike = np.float32,
) -> FloatRun:
    """Run a graph once; see :meth:`Engine.run`."""
    return Engine(graph, dtype).run(x, n_steps=n_steps, seed=seed, noise=noise, record=record)


class _Noise:
    """Gaussian draws, a stream per (seed, sample, population): how samples are batched changes nothing."""

    def __init__(self, graph: Graph, seed: int, samples: range) -> None:
        self._nodes = {
            n: (k, v) for k, (n, v) in enumerate(graph.nodes.items()) if v.neuron and v.neuron.noise_std > 0
        }
        self._streams = {
            name: [
                np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), sample << 16 | k]))
                for sample in samples
            ]
            for name, (k, _) in self._nodes.items()
        }

    def draw(self, name: str) -> NDArray[np.float64] | None:
        """Noise of one step, ``[B, *shape]``; None for a population without."""
        if name not in self._nodes:
            return None
        _, node = self._nodes[name]
        std = node.neuron.noise_std if node.neuron else 0.0
        return std * np.stack([g.standard_normal(node.out_shape) for g in self._streams[name]])


class _State:
    """What one run carries from step to step."""

    def __init__(self, engine: Engine, n_samples: int, n_steps: int) -> None:
        self._engine = engine
        nodes, dt_s = engine.graph.nodes, engine.graph.model.dt_s
        self.n_samples = n_samples
        self.populations = {
            n: Population(v.neuron, n_samples, engine.dtype) for n, v in nodes.items() if v.neuron is not None
        }
        self._delays = {
            n: DelayLine(delay_steps(v.op, dt_s), n_steps, (n_samples, *v.out_shape), engine.dtype)
            for n, v in nodes.items()
            if isinstance(v.op, nir.Delay)
        }
        self.values: dict[str, Floats] = {
            a: np.zeros((n_samples, *nodes[a].out_shape), engine.dtype)
            for a, _ in engine.graph.feedback_edges
        }

    def step(self, x: Floats, noise: _Noise | None, reuse: bool) -> None:
        """Compute every node once; with ``reuse`` the input is that of the step before."""
        engine, before = self._engine, self.values
        now: dict[str, Floats] = {engine.graph.input: x}
        for name in engine.graph.order():
            if name == engine.graph.input:
                continue
            if reuse and name in engine.still:
                now[name] = before[name]
                continue
            ahead, late = [now[a] for a in engine.ahead[name]], [before[a] for a in engine.late[name]]
            if name in self.populations:
                arriving = ([_total(ahead)] if ahead else []) + late
                now[name] = self.populations[name].step(arriving, noise.draw(name) if noise else None)
            elif name in self._delays:
                now[name] = self._delays[name].step(_total(ahead + late))
            else:
                now[name] = engine.maps[name](_total(ahead + late))
        self.values = now

    def check_finite(self) -> None:
        """An overflow anywhere stays in the state, as inf or nan."""
        for name, p in self.populations.items():
            if not np.isfinite(p.v_post).all():
                message = f"the membrane overflows {p.v_post.dtype}"
                raise SimulationError(
                    "NM401", f"node {name}", message, "Look at its decays and the weights into it"
                )


def _total(signals: list[Floats]) -> Floats:
    total = signals[0]
    for signal in signals[1:]:
        total = total + signal
    return total


class _Tally:
    """Counts and traces of one run."""

    def __init__(self, graph: Graph, state: _State, n_steps: int, record: tuple[str, ...]) -> None:
        self._graph, self._state, self._n_steps = graph, state, n_steps
        self._spiking = [n for n, p in state.populations.items() if p.neuron.spiking]
        self._traced = [n for n in state.populations if n in record or "all" in record]
        self._input_traced = graph.input in record or "all" in record
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._density: dict[str, NDArray[np.int64]] = {}
        self._last: dict[str, NDArray[np.uint8]] = {}
        self._traces: dict[str, FloatTrace] = {}
        self._sum: NDArray[np.float64] | None = None

    def take(self, t: int, x: NDArray[Any] | None) -> None:
        """Take down what happened at step t; ``x`` is its input, if that changes from step to step."""
        for name in self._spiking:
            self._count(t, name, self._state.populations[name].spikes)
        if x is not None and x.dtype.kind in "bu":
            self._count(t, self._graph.input, x)
            if self._input_traced:
                self._trace(t, self._graph.input, x, None, None)
        for name in self._traced:
            p = self._state.populations[name]
            self._trace(t, name, p.spikes, p.i_syn, p.v_post)
        out = self._state.values[self._graph.output].astype(np.float64)
        self._sum = out if self._sum is None else self._sum + out

    def _count(self, t: int, name: str, spikes: NDArray[Any]) -> None:
        if name not in self._counts:
            self._counts[name] = np.zeros(spikes.shape, np.int64)
            self._density[name] = np.zeros(self._n_steps, np.int64)
        self._counts[name] += spikes
        self._density[name][t] = int(np.count_nonzero(spikes))
        self._last[name] = spikes.astype(np.uint8)

    def _trace(
        self, t: int, name: str, spikes: NDArray[Any], i_syn: Floats | None, v_post: Floats | None
    ) -> None:
        if name not in self._traces:
            self._traces[name] = FloatTrace(
                np.zeros((self._n_steps, *spikes.shape), np.uint8),
                *(
                    None if a is None else np.zeros((self._n_steps, *a.shape), a.dtype)
                    for a in (i_syn, v_post)
                ),
            )
        for trace, value in zip(self._traces[name], (spikes, i_syn, v_post), strict=True):
            if trace is not None and value is not None:
                trace[t] = value

    def result(self) -> FloatRun:
        """The run, with the readout that the model asks for."""
        n, source = self._state.n_samples, self._graph.readout_source()
        if self._graph.model.readout == "membrane":
            logits: NDArray[Any] = self._state.populations[source].v_post
        elif source in self._counts:
            logits = self._counts[source]
        else:
            logits = self._sum if self._sum is not None else np.zeros(n)
        return FloatRun(logits.reshape(n, -1), self._counts, self._traces, self._last, self._density)
