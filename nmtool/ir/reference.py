"""The float engine: the graph's difference equations in NumPy, the oracle for everything that is faster or integer.

Order of operations as in snnTorch 1.0 (``Leaky``, ``Synaptic`` and their recurrent forms), so that spikes equal the
module's wherever the synaptic sums are exact (see :mod:`nmtool.ir.kernels`). With R the reset that is due,

    i    = beta_syn i + gain_syn x_forward + gain_syn x_feedback
    base = beta_mem U + gain_mem i + leak + noise       (without i: beta_mem U + x_forward + x_feedback ...)
    V    = base - R v_th ("subtract"),  v_reset where R ("zero" with reset_delay),  base (otherwise)
    S    = V > v_th,  and what reset_delay postpones is due at the next step
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import nir
import numpy as np
from numpy.typing import DTypeLike, NDArray

from nmtool.errors import ModelError
from nmtool.ir.graph import Graph, Node
from nmtool.ir.kernels import DelayLine, Floats, convolve, pool_sum
from nmtool.ir.resolve import delay_steps
from nmtool.ir.semantics import NeuronSemantics

Step = Callable[[Floats], Floats]


class FloatTrace(NamedTuple):
    """One population over time, each ``[T, B, *shape]``.

    Attributes:
        spikes: uint8.
        i_syn: synaptic current, or None without one.
        v_post: potential after the reset; for the input None.
    """

    spikes: NDArray[np.uint8]
    i_syn: Floats | None
    v_post: Floats | None


class FloatRun(NamedTuple):
    """What a run gave. B samples, T steps, K values of the output node.

    Attributes:
        logits: ``[B, K]``: int64 spike counts, or floats: the membrane after the last step, or the sum over the steps
            of an output that is no neuron.
        counts: spikes per spiking population, and of the input if it carries spikes: int64 ``[B, *shape]``.
        traces: of the populations asked for, and the input under its own name.
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
        dtype: of states and signals; float32 as training does, or float64.
    """

    def __init__(self, graph: Graph, dtype: DTypeLike = np.float32) -> None:
        self.graph, self.dtype = graph, np.dtype(dtype)
        self._maps = {n: _map(v, self.dtype) for n, v in graph.nodes.items() if v.neuron is None}
        late = set(graph.feedback_edges)
        self._forward = {n: [a for a, b in graph.edges if b == n and (a, b) not in late] for n in graph.nodes}
        self._late = {n: [a for a, b in graph.edges if b == n and (a, b) in late] for n in graph.nodes}

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
            record: names of populations to trace, ``("all",)`` for every one and the input.
            sample_offset: index of the first sample; the noise of a sample depends on its index and on no other.

        Raises:
            ModelError: NM109 if x does not fit the input.
        """
        series = self._series(x, n_steps)
        n_steps = self.graph.model.n_steps if n_steps is None and series is None else n_steps
        steps = n_steps if n_steps is not None else len(x)
        run = _Run(self, x.shape[0 if series is None else 1], steps)
        source = self.graph.input
        binary = x.dtype == np.uint8 and (series is not None or self.graph.model.encoder == "spikes")
        draws = _Noise(self.graph, seed, sample_offset, run.n_samples) if noise else None
        for t in range(steps):
            value = x if series is None else series[t]
            run.step(t, np.asarray(value, self.dtype), draws)
            run.count(binary)
            run.record(t, record, binary)
        return run.result(source)

    def _series(self, x: NDArray[Any], n_steps: int | None) -> NDArray[Any] | None:
        """x if it has a time axis, None if it is constant."""
        shape, model = self.graph.nodes[self.graph.input].out_shape, self.graph.model
        where = f"input {self.graph.input}"
        if x.shape[1:] == shape and x.ndim == len(shape) + 1:
            if model.encoder != "direct":
                message = f"x of shape {list(x.shape)} has no time axis, and the encoder is '{model.encoder}'"
                hint = "Encode the samples first, or give spikes [T, B, ...]"
                raise ModelError("NM109", where, message, hint)
            return None
        if x.shape[2:] != shape or x.ndim != len(shape) + 2:
            expected = f"[B, {', '.join(map(str, shape))}] or [T, B, {', '.join(map(str, shape))}]"
            raise ModelError("NM109", where, f"x has shape {list(x.shape)}, must be {expected}")
        if n_steps is not None and n_steps != len(x):
            message = f"x has {len(x)} steps, {n_steps} were asked for"
            raise ModelError("NM109", where, message, "Leave n_steps out, or cut x")
        return x


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
    """Run a graph once; see :class:`Engine`."""
    return Engine(graph, dtype).run(x, n_steps=n_steps, seed=seed, noise=noise, record=record)


class _Noise:
    """Gaussian draws, one stream per (seed, sample, population), so that a split of the batch changes nothing."""

    def __init__(self, graph: Graph, seed: int, offset: int, n_samples: int) -> None:
        noisy = [(k, n, v) for k, (n, v) in enumerate(graph.nodes.items()) if v.neuron and v.neuron.noise_std > 0]
        self._streams = {
            name: [
                np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), (offset + b) << 16 | k]))
                for b in range(n_samples)
            ]
            for k, name, _ in noisy
        }

    def draw(self, node: Node, std: float) -> NDArray[np.float64] | None:
        """Noise of one step, ``[B, *shape]``; None for a population without."""
        streams = self._streams.get(node.name)
        return None if streams is None else std * np.stack([g.standard_normal(node.out_shape) for g in streams])


class _Run:
    """State of one run."""

    def __init__(self, engine: Engine, n_samples: int, n_steps: int) -> None:
        self.graph, self.n_samples, self.n_steps = engine.graph, n_samples, n_steps
        self._engine = engine
        nodes = engine.graph.nodes
        self._neurons = {
            n: _Population(v, n_samples, engine.dtype, n_steps) for n, v in nodes.items() if v.neuron is not None
        }
        self._lines: dict[str, DelayLine] = {}
        self._now: dict[str, Floats] = {
            a: np.zeros((n_samples, *nodes[a].out_shape), engine.dtype) for a, _ in engine.graph.feedback_edges
        }
        self._still: dict[str, bool] = {}
        self._traces: dict[str, FloatTrace] = {}
        self._spiking = [n for n, p in self._neurons.items() if p.neuron.spiking]
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._density: dict[str, NDArray[np.int64]] = {}
        self._sum: Floats | None = None
        self._t = 0

    def step(self, t: int, x: Floats, noise: _Noise | None) -> None:
        """Compute every node once."""
        engine, source = self._engine, self.graph.input
        before, now = self._now, {}
        constant = t > 0 and x is self._last_input
        for name, node in self.graph.nodes.items():
            if name == source:
                now[name], self._still[name] = x, constant
                continue
            ahead = engine._forward[name]
            self._still[name] = node.neuron is None and not engine._late[name] and all(
                self._still[a] for a in ahead
            )
            if self._still[name]:
                now[name] = before[name]
                continue
            late = [before[a] for a in engine._late[name]]
            if name in self._neurons:
                drawn = noise.draw(node, self._neurons[name].neuron.noise_std) if noise else None
                now[name] = self._neurons[name].step(_total([now[a] for a in ahead]), late, drawn)
                continue
            total = _total([now[a] for a in ahead] + late)
            if isinstance(node.op, nir.Delay):
                now[name] = self._delay(node, total)
            else:
                now[name] = engine._maps[name](total)
        self._now, self._last_input, self._t = now, x, t
        out = now[self.graph.output]
        self._sum = out.astype(np.float64) if self._sum is None else self._sum + out
