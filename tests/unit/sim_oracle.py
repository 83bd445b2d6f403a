"""The simulator's oracle: one step after the other, one formula per rule, nothing fast."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nmtool.backends.base import RunOptions
from nmtool.compiler.program import Connection, HostLayer, InputSpec, Population, Program
from nmtool.fixedpoint.encode import input_units, rate_spikes, rate_thresholds
from nmtool.fixedpoint.neuron import NeuronParams, step, zero_state
from nmtool.fixedpoint.noise import noise
from nmtool.fixedpoint.ops import shift_left_or_floor, wrap_24, wrap_int32


@dataclass
class Expected:
    """Per population ``[T, B, N]`` and counters."""

    spikes: dict = field(default_factory=dict)
    u: dict = field(default_factory=dict)
    v: dict = field(default_factory=dict)
    active: dict = field(default_factory=dict)
    overflow: dict = field(default_factory=dict)


def weighted(c: Connection, s: np.ndarray, weights: np.ndarray, n_out: int) -> np.ndarray:
    """``W s`` in int64, ``s`` ``[B, n_in]``."""
    if c.kind == "dense":
        return s @ weights.T.astype(np.int64)
    if c.kind == "sparse":
        out = np.zeros((len(s), n_out), np.int64)
        for (target, source), w in zip(c.indices.T, weights, strict=True):
            out[:, target] += int(w) * s[:, source]
        return out
    return correlate(c, s, weights)


def correlate(c: Connection, s: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Cross-correlation by its definition."""
    x = s.reshape(len(s), *c.in_shape)
    (ph, pw), (sh, sw), (dh, dw) = c.padding, c.stride, c.dilation
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    n_out, height, width = c.out_shape
    out = np.zeros((len(s), *c.out_shape), np.int64)
    per_group, fan = n_out // c.groups, weights.shape[1]
    for o in range(n_out):
        first = o // per_group * fan
        for i, ky, kx in np.ndindex(*weights.shape[1:]):
            rows = slice(ky * dh, ky * dh + sh * (height - 1) + 1, sh)
            columns = slice(kx * dw, kx * dw + sw * (width - 1) + 1, sw)
            out[:, o] += int(weights[o, i, ky, kx]) * x[:, first + i, rows, columns]
    return out.reshape(len(s), -1)


def arriving(c: Connection, past: list[np.ndarray], t: int, shape: tuple[int, int]) -> np.ndarray:
    """Activation ``[B, n_out]`` of one connection at step t; ``past[k]`` are the source's spikes of step k."""
    n_out = shape[1]
    total = np.zeros(shape, np.int64)
    for d in np.unique(c.delay_steps):
        if d > t:
            continue
        s = past[t - d]
        s = s if c.message_bits else (s != 0).astype(np.int64)
        weights = np.where(c.delay_steps == d, c.weights, 0) if c.delay_steps.ndim else c.weights
        acc = weighted(c, s, weights, n_out)
        slot = (
            wrap_24(acc)
            if c.kind == "conv"
            else wrap_int32(shift_left_or_floor(wrap_int32(acc), c.weight_exp))
        )
        total = wrap_int32(total + slot)
    return total


def host_params(program: Program, x: np.ndarray, params: NeuronParams) -> NeuronParams:
    """Registers of the host's target with the bias of each sample."""
    host: HostLayer = program.host
    units = input_units(x.reshape(len(x), -1), program.input.x_scale, program.input.x_max)
    acc = weighted(host.connection, units, host.connection.weights, len(host.bias)) + host.bias
    mantissa = np.clip((acc + (1 << host.shift >> 1)) >> host.shift, host.man_min, host.man_max)
    return NeuronParams(params.decay_syn_q12, params.decay_mem_q12, params.v_th_man, mantissa, params.bias_exp,
                        refractory_steps=params.refractory_steps)  # fmt: skip


def input_steps(program: Program, x: np.ndarray, options: RunOptions) -> np.ndarray:
    """What the input lines carry, int64 ``[T, B, N]``."""
    spec: InputSpec = program.input
    n_steps = options.n_steps or (x.shape[0] if spec.encoder == "spikes" else spec.n_steps)
    if spec.encoder == "spikes":
        return x.reshape(*x.shape[:2], -1).astype(np.int64)
    flat = x.reshape(len(x), -1)
    if spec.encoder == "direct":
        return np.broadcast_to(input_units(flat, spec.x_scale, spec.x_max), (n_steps, *flat.shape))
    samples = options.sample_offset + np.arange(len(x))
    thresholds = rate_thresholds(flat, spec.x_scale, spec.x_max)
    return rate_spikes(thresholds, options.seed, samples, np.arange(n_steps)).astype(np.int64)


def drawn(p: Population, block: int, options: RunOptions, n_samples: int, t: int) -> tuple[object, object]:
    """Noise on current and membrane."""
    if p.noise is None or not options.noise:
        return 0, 0
    samples = options.sample_offset + np.arange(n_samples)[:, None]
    n = noise(p.noise, options.seed, samples, block, np.arange(p.n_neurons), t)
    return (n, 0) if p.noise.at == "current" else (0, n)


def simulate(program: Program, x: np.ndarray, options: RunOptions) -> Expected:
    """Every population, step by step, in the program's order."""
    lines = input_steps(program, x, options)
    n_samples = lines.shape[1]
    past: dict[str, list[np.ndarray]] = {p.name: [] for p in program.populations} | {program.input.name: []}
    state = {p.name: zero_state(n_samples, p.n_neurons) for p in program.populations}
    found = Expected()
    rows: dict[str, dict[str, list]] = {p.name: {"u": [], "v": []} for p in program.populations}
    for t, line in enumerate(lines):
        past[program.input.name].append(line)
        for block, p in enumerate(program.populations):
            params = p.params
            if program.host is not None and program.host.connection.target == p.name:
                params = host_params(program, x, params)
            a = np.zeros((n_samples, p.n_neurons), np.int64)
            for c in program.incoming(p.name):
                a = wrap_int32(a + arriving(c, past[c.source], t, a.shape))
            old = state[p.name]
            result = step(params, old, a, *drawn(p, block, options, n_samples, t))
            state[p.name] = result.state
            past[p.name].append(result.spikes)
            rows[p.name]["u"].append(result.state.u)
            rows[p.name]["v"].append(result.state.v)
            awake = (old.u != 0) | (old.v != 0) | (a != 0) | (np.broadcast_to(params.bias, a.shape) != 0)
            found.active[p.name] = found.active.get(p.name, 0) + awake.sum(axis=1)
            over = found.overflow.setdefault(p.name, np.zeros(2, np.int64))
            over += [result.u_wrapped.sum(), result.v_clipped.sum()]
    found.spikes = {n: np.stack(s) for n, s in past.items()}
    found.u = {n: np.stack(r["u"]) for n, r in rows.items()}
    found.v = {n: np.stack(r["v"]) for n, r in rows.items()}
    return found
