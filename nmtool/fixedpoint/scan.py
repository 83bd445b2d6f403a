"""Many steps of many neurons at once: :func:`nmtool.fixedpoint.neuron.step` in 32-bit arithmetic, compiled.

All sums are taken modulo 2**32, as the oracle does. The product of a state and a decay needs up to 44 bits; it is
formed from two halves, so that one vector instruction handles as many neurons as 32-bit lanes allow: with
``x = 4096 high + low``, ``floor(x f / 4096) = high f + floor(low f / 4096)``, and ``f <= 4096`` keeps both terms small.
"""

# The kernels' arguments get their types when numba sees them.
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint.jit import inlined, kernel
from nmtool.fixedpoint.neuron import NeuronParams
from nmtool.fixedpoint.ops import ACTIVATION_SHIFT, DECAY_BITS, DECAY_UNITY, U_HALF, V_MAX

TILE = 512
"""Neurons whose states stay in the first-level cache while time runs; of several samples if they are small."""

COUNTED_STEPS = 255
"""Steps that a counter of one byte holds."""

_LOW = np.int32(DECAY_UNITY - 1)
_BITS = np.int32(DECAY_BITS)
_SIGN = np.int32(31)
_ROUND = np.uint32(32 - DECAY_BITS)
_WRAP = 2 * U_HALF
_V_MAX = np.int32(V_MAX)
_SHIFT = np.int32(ACTIVATION_SHIFT)
_ZERO = np.int32(0)
_INT32 = np.iinfo(np.int32)


class Registers(NamedTuple):
    """Constants of a population, int32, all one tile long, or all ``[N]`` where some differ and a tile is smaller.

    Attributes:
        keep_syn, keep_mem: fraction *kept* per step in 1/4096.
        threshold, bias: membrane units.
        refractory_steps: see :class:`nmtool.fixedpoint.neuron.NeuronParams`.
        memory: whether any neuron keeps part of its current.
        may_wrap: False only where it is proven that no current leaves its 24 bits.
    """

    keep_syn: NDArray[np.int32]
    keep_mem: NDArray[np.int32]
    threshold: NDArray[np.int32]
    bias: NDArray[np.int32]
    refractory_steps: int
    memory: bool
    may_wrap: bool


class State(NamedTuple):
    """What is carried from chunk to chunk, int32 ``[B * N]``."""

    u: NDArray[np.int32]
    v: NDArray[np.int32]
    refractory: NDArray[np.int32]


class Chunk(NamedTuple):
    """What arrives during ``T`` steps, int32; an array of one row stands for every step.

    Attributes:
        n_neurons, tiles: N, and :func:`tiles_of` it.
        drive: ``[T or 1, B * N]``; the activation is ``(drive - offset) gain`` modulo 2**32.
        offset, gain: see ``drive``; multiplying takes one vector instruction where a shift takes four.
        own_bias: ``[B * N]``, bias of each sample that replaces the register, or empty.
        noise_syn, noise_mem: ``[T or 1, B * N]``, or empty if there is none of both kinds.
    """

    n_neurons: int
    tiles: NDArray[np.int64]
    drive: NDArray[np.int32]
    offset: np.int32
    gain: np.int32
    own_bias: NDArray[np.int32]
    noise_syn: NDArray[np.int32]
    noise_mem: NDArray[np.int32]


class Tally(NamedTuple):
    """Counters that a scan adds to.

    Attributes:
        spikes: uint8 ``[B * N]``, which hold :data:`COUNTED_STEPS` steps; or empty to leave them out.
        active: int64 ``[B]``, neuron-steps with input, state or bias.
        overflow: int64 ``[2]``, wraps of u and clips of v.
        per_step: int64 ``[T]``, spikes summed over samples and neurons.
    """

    spikes: NDArray[np.uint8]
    active: NDArray[np.int64]
    overflow: NDArray[np.int64]
    per_step: NDArray[np.int64]


class Recording(NamedTuple):
    """Where the steps are written: ``spikes`` uint8 ``[T, B * N]``; ``u`` and ``v`` int32 alike, or empty."""

    spikes: NDArray[np.uint8]
    u: NDArray[np.int32]
    v: NDArray[np.int32]


NOTHING = np.empty((0, 0), np.int32)
NO_BIAS = np.empty(0, np.int32)


def registers(params: NeuronParams, n_neurons: int, largest_input: float) -> Registers:
    """Registers of a population.

    Args:
        params: in the order in which the neurons lie in memory.
        n_neurons: N.
        largest_input: bound on what one step adds to the magnitude of the current, in membrane units.
    """
    lost = int(np.min(params.decay_syn_q12))
    # |u| <= |u| keep / 4096 + input has the fixed point input * 4096 / lost
    proven = lost > 0 and largest_input * DECAY_UNITY / lost < U_HALF
    threshold = np.clip(params.v_th_man.astype(np.int64) << ACTIVATION_SHIFT, _INT32.min, _INT32.max)
    values = DECAY_UNITY - params.decay_syn_q12, DECAY_UNITY - params.decay_mem_q12, threshold, params.bias
    large = n_neurons > TILE and any(a.size > 1 for a in values)
    keep_syn, keep_mem, level, bias = (_register(a, n_neurons, large) for a in values)
    return Registers(keep_syn, keep_mem, level, bias, params.refractory_steps, lost < DECAY_UNITY, not proven)


def _register(values: NDArray[np.int64], n_neurons: int, large: bool) -> NDArray[np.int32]:
    """``[N]`` if large, else repeated to a tile; modulo 2**32."""
    flat = np.broadcast_to(values.reshape(-1), n_neurons).astype(np.int32)
    return flat if large else np.tile(flat[:TILE], max(TILE // n_neurons, 1))


def state_at_rest(n_samples: int, n_neurons: int) -> State:
    """State before the first step."""
    return State(*(np.zeros(n_samples * n_neurons, np.int32) for _ in State._fields))


def no_tally(n_samples: int, n_steps: int) -> Tally:
    """Counters at zero, spikes not counted."""
    return Tally(np.zeros(0, np.uint8), *(np.zeros(n, np.int64) for n in (n_samples, 2, n_steps)))


@functools.lru_cache(maxsize=256)
def tiles_of(n_samples: int, n_neurons: int) -> NDArray[np.int64]:
    """Tiles ``[n, 3]`` of ``B * N`` lanes: first lane, last (exclusive), neuron of the first lane."""
    lanes = n_samples * n_neurons
    if n_neurons <= TILE:
        first = np.arange(0, lanes, TILE // n_neurons * n_neurons)
        return np.stack([first, np.append(first[1:], lanes), np.zeros_like(first)], axis=1)
    at = np.arange(0, n_neurons, TILE)
    one = np.stack([at, np.append(at[1:], n_neurons), at], axis=1)
    return (one + np.arange(n_samples)[:, None, None] * np.array([n_neurons, n_neurons, 0])).reshape(-1, 3)


class Where(NamedTuple):
    """Neighbouring lanes ``[first, last)``; lane j has register ``j - shift`` and bias ``j - bias_shift``.

    Unsigned, because an index that could be negative keeps a loop from becoming vector instructions; and lanes of whole
    arrays instead of slices, because a slice in a compiled function counts references.
    """

    first: np.uint64
    last: np.uint64
    shift: np.uint64
    bias_shift: np.uint64


@kernel
def scan(reg, state, chunk, tally, out):
    """Run ``T`` steps; updates ``state`` and ``tally``, fills ``out``. Tile by tile, each through all steps."""
    n = chunk.n_neurons
    plain = not reg.may_wrap and reg.refractory_steps == 1 and chunk.noise_syn.shape[0] == 0
    bias = chunk.own_bias if chunk.own_bias.shape[0] > 0 else reg.bias
    flags = np.empty(TILE, np.uint8)
    for k in range(chunk.tiles.shape[0]):
        first, last, at = chunk.tiles[k, 0], chunk.tiles[k, 1], chunk.tiles[k, 2]
        shift = first - at if reg.bias.shape[0] == n else first
        bias_shift = 0 if chunk.own_bias.shape[0] > 0 else shift
        where = Where(np.uint64(first), np.uint64(last), np.uint64(shift), np.uint64(bias_shift))
        for t in range(out.spikes.shape[0]):
            wrapped = _ZERO
            if plain:
                clipped, fired = _plain_step(
                    reg, state, chunk, bias, (out.spikes, flags), np.uint64(t), where
                )
            else:
                wrapped, clipped, fired = _step(
                    reg, state, chunk, bias, (out.spikes, flags), np.uint64(t), where
                )
            tally.overflow[0] += wrapped
            tally.overflow[1] += clipped
            tally.per_step[t] += fired
            if tally.spikes.shape[0] > 0:
                _count(out.spikes, tally.spikes, np.uint64(t), where)
            _add_up(flags, tally.active, first, last, n)
            if out.u.shape[0] > 0:
                for j in range(first, last):
                    out.u[t, j], out.v[t, j] = state.u[j], state.v[j]


@inlined
def _row(a, t):
    """Row of an array for step t; one row stands for all."""
    return t if a.shape[0] > 1 else np.uint64(0)


@inlined
def _decayed(x, keep):
    """``rz(x keep, 12)`` for int32 ``x``: a negative product is rounded up by adding 4095 before the floor."""
    up = np.int32(np.uint32(np.int32(x >> _SIGN)) >> _ROUND)
    low = np.int32(np.int32(np.int32(np.int32(x & _LOW) * keep) + up) >> _BITS)
    return np.int32(np.int32(np.int32(x >> _BITS) * keep) + low)


@inlined
def _plain_step(reg, state, chunk, bias, out, t, where):
    """:func:`_step` where nothing wraps, nothing is noisy and no step is dead; returns how many clipped and fired."""
    u, v, drive, (spikes, flags) = state.u, state.v, chunk.drive, out
    row = _row(drive, t)
    clipped, fired = _ZERO, _ZERO
    for j in range(where.first, where.last):
        r, b = j - where.shift, bias[j - where.bias_shift]
        a = np.int32(np.int32(drive[row, j] - chunk.offset) * chunk.gain)
        flags[j - where.first] = (u[j] | v[j] | a | b) != 0
        current = np.int32(a << _SHIFT)
        if reg.memory:
            current = np.int32(current + _decayed(u[j], reg.keep_syn[r]))
        u[j] = current
        raw = np.int32(np.int32(_decayed(v[j], reg.keep_mem[r]) + current) + b)
        x = min(max(raw, np.int32(-_V_MAX)), _V_MAX)
        s = np.int32(x > reg.threshold[r])
        clipped = np.int32(clipped + np.int32(x != raw))
        fired = np.int32(fired + s)
        spikes[t, j] = s
        v[j] = _ZERO if s else x
    return clipped, fired


@inlined
def _step(reg, state, chunk, bias, out, t, where):
    """One step of the oracle; returns how many wrapped, clipped and fired.

    ``out`` takes the spikes, and flags that are 1 where a neuron has state, input or bias.
    """
    u, v, held, drive, (spikes, flags) = state.u, state.v, state.refractory, chunk.drive, out
    row, row_syn, row_mem = _row(drive, t), _row(chunk.noise_syn, t), _row(chunk.noise_mem, t)
    noisy = chunk.noise_syn.shape[0] > 0
    wrapped, clipped, fired = _ZERO, _ZERO, _ZERO
    for j in range(where.first, where.last):
        r, b = j - where.shift, bias[j - where.bias_shift]
        a = np.int32(np.int32(drive[row, j] - chunk.offset) * chunk.gain)
        flags[j - where.first] = (u[j] | v[j] | a | b) != 0
        x = np.int32(np.int32(a << _SHIFT) + _decayed(u[j], reg.keep_syn[r]))
        if noisy:
            x = np.int32(x + chunk.noise_syn[row_syn, j])
            b = np.int32(b + chunk.noise_mem[row_mem, j])
        wrapped = np.int32(wrapped + np.int32((x > U_HALF) | (x < -U_HALF)))
        below = np.int32(x + _WRAP) if x <= -U_HALF else x
        u[j] = np.int32(x - _WRAP) if x > U_HALF else below
        raw = np.int32(np.int32(_decayed(v[j], reg.keep_mem[r]) + u[j]) + b)
        x = min(max(raw, np.int32(-_V_MAX)), _V_MAX)
        clipped = np.int32(clipped + np.int32(x != raw))
        x = _ZERO if held[j] > 0 else x
        s = np.int32(x > reg.threshold[r])
        fired = np.int32(fired + s)
        spikes[t, j] = s
        v[j] = _ZERO if s else x
        left = np.int32(reg.refractory_steps) if s else held[j]
        held[j] = np.int32(max(left - 1, 0))
    return wrapped, clipped, fired


@inlined
def _count(spikes, counts, t, where):
    """Add the spikes of step t; bytes take a quarter of the instructions that wider counters would."""
    for j in range(where.first, where.last):
        counts[j] = np.uint8(counts[j] + spikes[t, j])


@inlined
def _add_up(flags, totals, first, last, n):
    """Add the flags of the lanes ``[first, last)`` to their samples; a tile is part of one sample or has whole ones."""
    width = min(n, last - first)
    for b in range((last - first) // width):
        part, count = flags[b * width : b * width + width], _ZERO
        for j in range(width):
            count = np.int32(count + part[j])
        totals[first // n + b] += count
