"""A slow simulator of programs, one step at a time from ``fixedpoint.neuron.step``: what every fast one must equal.

It knows no own-time tricks, no batching and no kernels: it walks over steps, populations and connections, and looks
delays up in the recorded past.
"""

from dataclasses import dataclass, replace

import numpy as np

from nmtool.compiler.program import Connection, Population, Program
from nmtool.fixedpoint import encode, ops
from nmtool.fixedpoint.neuron import NeuronParams, step, zero_state
from nmtool.fixedpoint.noise import noise


@dataclass(frozen=True)
class Stimulus:
    """What enters: spikes ``[T, B, N_in]`` or None, bias mantissas ``[B, N]`` of the host's target or None."""

    n_steps: int
    n_samples: int
    spikes: np.ndarray | None = None
    bias: np.ndarray | None = None


@dataclass(frozen=True)
class History:
    """One population, each ``[T, B, N]``; ``wrapped`` and ``clipped`` count overflows of u and v."""

    spikes: np.ndarray
    u: np.ndarray
    v: np.ndarray
    wrapped: int
    clipped: int


def stimulus(program: Program, x: np.ndarray, n_steps: int, seed: int, sample_offset: int) -> Stimulus:
    """What the backends' ``x`` becomes at the network's door, by the rules of ``InputSpec`` and ``HostLayer``."""
    spec = program.input
    if spec.encoder == "spikes":
        return Stimulus(*x.shape[:2], x.reshape(*x.shape[:2], -1))
    flat, b = x.reshape(len(x), -1), len(x)
    if spec.encoder == "rate":
        thresholds = encode.rate_thresholds(flat, spec.x_scale, spec.x_max)
        samples = np.arange(sample_offset, sample_offset + b)
        return Stimulus(n_steps, b, encode.rate_spikes(thresholds, seed, samples, np.arange(n_steps)))
    units = np.clip(np.rint(flat / spec.x_scale), 0, spec.x_max).astype(np.int64)
    if program.host is None:
        return Stimulus(n_steps, b, np.broadcast_to(units, (n_steps, *units.shape)))
    host = program.host
    acc = _linear(program, host.connection, np.ones((), np.int64), units) + host.bias
    mantissa = np.clip(np.floor(acc / 2.0**host.shift + 0.5), host.man_min, host.man_max)
    return Stimulus(n_steps, b, bias=mantissa.astype(np.int64))


def simulate(
    program: Program, entering: Stimulus, seed: int = 0, noisy: bool = True, sample_offset: int = 0
) -> dict[str, History]:
    """All populations in own time."""
    t_all, b = entering.n_steps, entering.n_samples
    found = {
        p.name: [np.zeros((t_all, b, p.n_neurons), np.int64) for _ in range(5)] for p in program.populations
    }
    past = {name: arrays[0] for name, arrays in found.items()}
    if entering.spikes is not None:
        past[program.input.name] = entering.spikes.astype(np.int64)
    states = {p.name: zero_state(b, p.n_neurons) for p in program.populations}
    samples = np.arange(sample_offset, sample_offset + b)[:, None]
    for t in range(t_all):
        for block, p in enumerate(program.populations):
            a = np.zeros((b, p.n_neurons), np.int64)
            for c in program.incoming(p.name):
                a = ops.wrap_int32(a + arriving(program, c, past[c.source], t))
            drawn = {"membrane": 0, "current": 0}
            if p.noise is not None and noisy:
                drawn[p.noise.at] = noise(p.noise, seed, samples, block, np.arange(p.n_neurons), t)
            r = step(_params(program, p, entering), states[p.name], a, drawn["current"], drawn["membrane"])
            states[p.name] = r.state
            for array, value in zip(
                found[p.name], (r.spikes, r.state.u, r.state.v, r.u_wrapped, r.v_clipped), strict=True
            ):
                array[t] = value
    return {name: History(*a[:3], int(a[3].sum()), int(a[4].sum())) for name, a in found.items()}


def _params(program: Program, p: Population, entering: Stimulus) -> NeuronParams:
    """A population's registers; for the host's target with the sample's own bias."""
    if entering.bias is None or program.host is None or program.host.connection.target != p.name:
        return p.params
    bias = ops.shift_left_or_floor(entering.bias, p.params.bias_exp)
    return replace(p.params, bias_man=bias, bias_exp=np.zeros((), np.int64))


def arriving(program: Program, c: Connection, past: np.ndarray, t: int) -> np.ndarray:
    """Sum that reaches the target at own step ``t``, ``[B, n_out]``: every delay is a buffer of its own."""
    delays = np.asarray(c.delay_steps)
    total = np.zeros((past.shape[1], program.size(c.target)), np.int64)
    for d in np.unique(delays):
        if t - d < 0:
            continue
        x = past[t - d]
        x = (x != 0).astype(np.int64) if c.message_bits == 0 else x
        summed = ops.wrap_int32(_linear(program, c, np.where(delays == d, 1, 0), x))
        summed = ops.wrap_24(summed) if c.kind == "conv" else summed
        total = ops.wrap_int32(total + ops.shift_left_or_floor(summed, c.weight_exp))
    return total


def _linear(program: Program, c: Connection, chosen: np.ndarray, x: np.ndarray) -> np.ndarray:
    if c.kind == "dense":
        return x @ (c.weights.astype(np.int64) * chosen).T
    if c.kind == "sparse":
        matrix = np.zeros((program.size(c.target), program.size(c.source)), np.int64)
        np.add.at(matrix, tuple(c.indices), c.weights.astype(np.int64) * chosen)
        return x @ matrix.T
    return convolved(c, x)


def convolved(c: Connection, x: np.ndarray) -> np.ndarray:
    """Cross-correlation as torch does it, one kernel position at a time, ``[B, n_in]`` to ``[B, n_out]``."""
    (c_in, h, w), (c_out, h_out, w_out) = c.in_shape, c.out_shape
    pad = ((0, 0), (0, 0), *((p, p) for p in c.padding))
    x = np.pad(x.reshape(-1, c_in, h, w), pad)
    out = np.zeros((len(x), c_out, h_out, w_out), np.int64)
    per_in, per_out = c_in // c.groups, c_out // c.groups
    for g in range(c.groups):
        outs, ins = slice(g * per_out, (g + 1) * per_out), slice(g * per_in, (g + 1) * per_in)
        for ky in range(c.weights.shape[2]):
            for kx in range(c.weights.shape[3]):
                y0, x0 = ky * c.dilation[0], kx * c.dilation[1]
                view = x[:, ins, y0 :: c.stride[0], x0 :: c.stride[1]][:, :, :h_out, :w_out]
                out[:, outs] += np.einsum("oi,bihw->bohw", c.weights[outs, :, ky, kx].astype(np.int64), view)
    return out.reshape(len(x), -1)
