"""From a program to a network of Lava Processes. Imported by the Lava worker alone (Python 3.10).

All samples of a request run through one network, one after the other, each ``interval`` Lava steps long:

    Lava step of own step k (from 1) of sample n at a population = n * interval + k + latency

``LIFReset`` zeroes u and v at every first own step. Spikes never cross from one sample into the next: without
delays in own time a spike of own step k arrives in own step k; with them (delays, recurrence) the interval is longer
than T by the largest delay, and taps pass on nothing outside the T steps, so that the synapses are empty again.

Everything is flat in C order of ``(C, H, W)``; Lava's Conv alone sees ``(W, H, C)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from lava.magma.compiler.compiler_graphs import find_processes
from lava.proc.conv.process import Conv
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.io.source import RingBuffer
from lava.proc.lif.process import LIFReset
from lava.proc.sparse.process import DelaySparse, Sparse
from lava.utils.weightutils import SignMode, clip_weights, truncate_weights
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, identity

from nmtool.backends.lava_limits import conv_fits
from nmtool.backends.lava_worker.processes import (
    BiasWriter,
    Clock,
    Extras,
    NoisyLIF,
    Probe,
    SpikeRecord,
    Tap,
    shared,
)
from nmtool.compiler.program import Connection, Population, Program
from nmtool.errors import SimulationError

SIGN_MODES = {
    "mixed": SignMode.MIXED,
    "excitatory": SignMode.EXCITATORY,
    "inhibitory": SignMode.INHIBITORY,
}


@dataclass(frozen=True)
class Job:
    """One request.

    Attributes:
        program: what to run.
        n_steps, n_samples: T and B.
        spikes: ``[T, B, N_in]`` uint8, int32 with payload, or None if only the host feeds the network.
        bias: int32 ``[B, N]``, the host layer's bias mantissas, or None.
        counted: populations whose spikes are counted.
        traced: populations whose spikes, u and v are recorded.
        final: populations whose u and v are read after the last step.
        seed, noise, sample_offset: of the noise stream.
    """

    program: Program
    n_steps: int
    n_samples: int
    spikes: NDArray[Any] | None
    bias: NDArray[np.int32] | None
    counted: tuple[str, ...]
    traced: tuple[str, ...]
    final: tuple[str, ...]
    seed: int
    noise: bool
    sample_offset: int

    @property
    def gap(self) -> int:
        """Silent steps between samples: the largest delay in own time."""
        return max((c.max_delay for c in self.program.connections), default=0)

    @property
    def n_lava_steps(self) -> int:
        """Until the slowest population has finished the last sample."""
        return self.n_samples * (self.n_steps + self.gap) - self.gap + self.program.max_latency

    def clock(self, population: Population) -> Clock:
        """Own time of a population."""
        return Clock(self.n_samples, self.n_steps, self.n_steps + self.gap, population.latency)


@dataclass
class Network:
    """Built Processes, and the shared arrays that fill while they run.

    Attributes:
        processes: all.
        neurons: per population.
        outputs: per population and input, the port that carries its spikes.
        records: per counted population.
        states: per traced or final population int32 ``[2, T or 1, B, N]``, u and v.
    """

    processes: list[Any] = field(default_factory=list)
    neurons: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    records: dict[str, SpikeRecord] = field(default_factory=dict)
    states: dict[str, NDArray[np.int32]] = field(default_factory=dict)

    def add(self, process: Any) -> Any:
        """Keep a Process."""
        self.processes.append(process)
        return process

    def heads(self) -> Iterator[Any]:
        """One Process of every connected part; running it runs the part."""
        seen: set[int] = set()
        for process in self.processes:
            if process.id not in seen:
                seen |= {p.id for p in find_processes(process)}
                yield process


def build(job: Job) -> Network:
    """All Processes of a request, connected.

    Raises:
        SimulationError: NM403 if Lava's preparation would change a weight.
    """
    network, program = Network(), job.program
    if any(c.source == program.input.name for c in program.connections):
        network.outputs[program.input.name] = network.add(_source(job)).s_out
    for block, p in enumerate(program.populations):
        network.neurons[p.name] = network.add(_neuron(job, block, p))
        network.outputs[p.name] = network.neurons[p.name].s_out
        if job.gap or p.name in job.counted:
            _add_tap(network, job, p)
        if p.name in job.traced or p.name in job.final:
            _add_probe(network, job, p)
    if job.bias is not None and program.host is not None:
        p = program.population(program.host.connection.target)
        register = network.neurons[p.name].bias_mant
        network.add(
            BiasWriter(bias_mant=register, clock=job.clock(p), values=job.bias, name=f"{p.name}:bias")
        )
    for c in program.connections:
        _connect(network, program, c)
    return network


def _source(job: Job) -> Any:
    """The input with silence between samples; Lava's ring buffer would repeat it, so it is as long as the run."""
    name, n = job.program.input.name, job.program.size(job.program.input.name)
    data = np.zeros((n, job.n_lava_steps), np.int32)
    if job.spikes is not None:
        for b in range(job.n_samples):
            first = b * (job.n_steps + job.gap)
            data[:, first : first + job.n_steps] = job.spikes[:, b].T
    source = RingBuffer(data=data)
    source.name = name
    return source


def _register(values: NDArray[np.int32], offset: int = 0) -> Any:
    """A scalar as int, an array flat: Lava's CPU models take both for du, dv and vth."""
    return int(values) + offset if values.ndim == 0 else values.astype(np.int64).reshape(-1) + offset


def _neuron(job: Job, block: int, p: Population) -> Any:
    """Lava's own ``LIFReset``; ours only for noise or a refractory period. du is the register: effective decay - 1."""
    clock, host = job.clock(p), job.program.host
    bias = np.broadcast_to(p.bias_man, p.shape).reshape(-1)
    if job.bias is not None and host is not None and host.connection.target == p.name:
        bias = job.bias[0]
    registers = {
        "shape": (p.n_neurons,),
        "du": _register(p.decay_syn_q12, -1),
        "dv": _register(p.decay_mem_q12),
        "vth": _register(p.v_th_man),
        "bias_mant": bias.astype(np.int32),
        "bias_exp": np.broadcast_to(p.bias_exp, p.shape).reshape(-1).astype(np.int32),
        "reset_interval": clock.interval,
        "reset_offset": clock.reset_offset,
        "name": p.name,
    }
    noise = p.noise if job.noise else None
    if noise is None and p.refractory_steps == 1:
        return LIFReset(**registers)
    extras = Extras(clock, p.refractory_steps, noise, job.seed, job.sample_offset, block)
    return NoisyLIF(extras=extras, **registers)


def _add_tap(network: Network, job: Job, p: Population) -> None:
    """Record spikes beside the network, or, where synapses remember, between the neurons and the network."""
    record = SpikeRecord.zeros(job.clock(p), p.n_neurons, p.name in job.traced)
    tap = network.add(Tap(n=p.n_neurons, clock=job.clock(p), record=record, name=f"{p.name}:tap"))
    network.outputs[p.name].connect(tap.s_in)
    network.records[p.name] = record
    if job.gap:
        network.outputs[p.name] = tap.s_out


def _add_probe(network: Network, job: Job, p: Population) -> None:
    last_only = p.name not in job.traced
    into = shared((2, 1 if last_only else job.n_steps, job.n_samples, p.n_neurons), np.int32)
    network.states[p.name] = into
    neuron, clock = network.neurons[p.name], job.clock(p)
    network.add(
        Probe(u=neuron.u, v=neuron.v, clock=clock, into=into, last_only=last_only, name=f"{p.name}:probe")
    )


def _connect(network: Network, program: Program, c: Connection) -> None:
    """One connection: its synapses, and before a convolution the delay that Lava's Conv lacks."""
    delay, source, target = program.chip_delay(c), network.outputs[c.source], network.neurons[c.target].a_in
    ends = (program.size(c.target), program.size(c.source))
    if c.kind == "conv" and not conv_fits(c):
        c = expanded(c)
    if c.kind != "conv":
        synapses = network.add(_dense(c, delay) if c.kind == "dense" else _sparse(c, delay, ends))
        source.connect(synapses.s_in)
        synapses.a_out.connect(target)
        return
    if delay.max(initial=0):
        line = network.add(_delay_line(c, ends[1], int(delay.max())))
        source.connect(line.s_in)
        source = line.a_out
    synapses = network.add(_conv(c))
    source.reshape(c.in_shape).transpose((2, 1, 0)).connect(synapses.s_in)
    synapses.a_out.transpose((2, 1, 0)).reshape((ends[0],)).connect(target)


def _common(c: Connection) -> dict[str, Any]:
    return {
        "weight_exp": c.weight_exp,
        "num_weight_bits": c.weight_bits,
        "sign_mode": SIGN_MODES[c.sign_mode],
        "num_message_bits": c.message_bits,
        "name": c.name,
    }


def _unchanged(c: Connection) -> NDArray[np.int32]:
    """The weights, after making sure that Lava's clipping and truncation leave them as they are."""
    mode = SIGN_MODES[c.sign_mode]
    kept = truncate_weights(clip_weights(c.weights, mode, num_bits=8), mode, c.weight_bits)
    if not np.array_equal(kept, c.weights):
        at = int(np.flatnonzero(kept != c.weights)[0])
        raise SimulationError(
            "NM403",
            c.name,
            f"weight {c.weights.flat[at]} would become {kept.flat[at]} in Lava "
            f"(sign_mode {c.sign_mode}, {c.weight_bits} bits)",
            "The weights are not on the chip's grid: export the model again",
        )
    return c.weights


def _dense(c: Connection, delay: NDArray[np.int32]) -> Any:
    weights = _unchanged(c)
    if not delay.max(initial=0):
        return Dense(weights=weights, **_common(c))
    return DelayDense(weights=weights, delays=np.broadcast_to(delay, weights.shape).astype(int), **_common(c))


def _sparse(c: Connection, delay: NDArray[np.int32], ends: tuple[int, int]) -> Any:
    where = (c.indices[0], c.indices[1]) if c.indices is not None else np.zeros((2, 0), np.int32)
    weights = csr_matrix((_unchanged(c), where), shape=ends)
    if not delay.max(initial=0):
        return Sparse(weights=weights, **_common(c))
    steps = np.broadcast_to(delay, c.weights.shape).astype(int)
    return DelaySparse(weights=weights, delays=csr_matrix((steps, where), shape=ends), **_common(c))


def _delay_line(c: Connection, n: int, steps: int) -> Any:
    """``steps`` steps of delay for every spike of the source, payload kept: one synapse of weight 1 per line."""
    ones, name = identity(n, dtype=np.int32, format="csr"), f"{c.name}:delay"
    settings = {"sign_mode": SignMode.EXCITATORY, "num_message_bits": 8, "name": name}
    if steps == 1:
        return Sparse(weights=ones, **settings)
    return DelaySparse(weights=ones, delays=ones.astype(int) * (steps - 1), **settings)


def _conv(c: Connection) -> Any:
    """Lava convolves where torch correlates, and orders axes (W, H, C)."""
    return Conv(
        weight=np.ascontiguousarray(c.weights[:, :, ::-1, ::-1].transpose(0, 3, 2, 1)),
        input_shape=tuple(reversed(c.in_shape or ())),
        stride=c.stride[::-1],
        padding=c.padding[::-1],
        dilation=c.dilation[::-1],
        groups=c.groups,
        num_message_bits=c.message_bits,
        name=c.name,
    )


def expanded(c: Connection) -> Connection:
    """A convolution as sparse synapses, border-exact."""
    c_in, h_in, w_in = c.in_shape or (0, 0, 0)
    c_out, h_out, w_out = c.out_shape or (0, 0, 0)
    o, i, ky, kx = (a.ravel() for a in np.indices(c.weights.shape))
    y, x = (a.ravel() for a in np.indices((h_out, w_out)))
    row = y * c.stride[0] - c.padding[0] + ky[:, None] * c.dilation[0]
    col = x * c.stride[1] - c.padding[1] + kx[:, None] * c.dilation[1]
    channel = (o // (c_out // c.groups)) * (c_in // c.groups) + i
    target = (o[:, None] * h_out + y) * w_out + x
    source = (channel[:, None] * h_in + row) * w_in + col
    inside = (row >= 0) & (row < h_in) & (col >= 0) & (col < w_in)
    weights = np.broadcast_to(c.weights.reshape(-1, 1), inside.shape)[inside]
    return replace(
        c, kind="sparse", weights=weights, indices=np.stack([target[inside], source[inside]]).astype(np.int32)
    )
