"""Many steps of many neurons at once: :func:`nmtool.fixedpoint.neuron.step` in 32-bit arithmetic, compiled.

All sums are taken modulo 2**32, as the oracle does. The product of a state and a decay needs up to 44 bits; it is
formed from two halves, so that one vector instruction handles as many neurons as 32-bit lanes allow: with
``x = 4096 high + low``, ``floor(x f / 4096) = high f + floor(low f / 4096)``, and ``f <= 4096`` keeps both terms small.
"""

# The kernels' arguments get their types when numba sees them.
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import functools
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nmtool.fixedpoint.jit import kernel
from nmtool.fixedpoint.neuron import NeuronParams
from nmtool.fixedpoint.ops import ACTIVATION_SHIFT, DECAY_BITS, DECAY_UNITY, U_HALF, V_MAX

TILE = 512
"""Neurons whose states stay in the first-level cache while time runs; of several samples if they are small."""

NO_NOISE, NOISE_AT_CURRENT, NOISE_AT_MEMBRANE = 0, 1, 2

_LOW = np.int32(DECAY_UNITY - 1)
_BITS = np.int32(DECAY_BITS)
_SIGN = np.int32(31)
_ROUND = np.uint32(32 - DECAY_BITS)
_WRAP = 2 * U_HALF
_V_MAX = np.int32(V_MAX)
_ZERO, _ONE = np.int32(0), np.int32(1)
_INT32 = np.iinfo(np.int32)

Kind = TypeVar("Kind", np.int32, np.uint8)


class Registers(NamedTuple):
    """Constants of a population, int32, each one tile long, or ``[N]`` where a population is larger than a tile.

    Attributes:
        keep_syn, keep_mem: fraction *kept* per step in 1/4096.
        threshold: membrane units.
        refractory_steps: see :class:`nmtool.fixedpoint.neuron.NeuronParams`.
        memory: whether any neuron keeps part of its current.
        may_wrap: False only where it is proven that no current leaves its 24 bits.
    """

    keep_syn: NDArray[np.int32]
    keep_mem: NDArray[np.int32]
    threshold: NDArray[np.int32]
    refractory_steps: int
    memory: bool
    may_wrap: bool


class State(NamedTuple):
    """What is carried from chunk to chunk, int32 ``[B * N]``; ``refractory`` is empty where no step is dead."""

    u: NDArray[np.int32]
    v: NDArray[np.int32]
    refractory: NDArray[np.int32]


class Chunk(NamedTuple):
    """What arrives during ``T`` steps.

    Attributes:
        n_neurons, tiles: N, and :func:`tiles_of` it.
        drive: int32 ``[T, B * N]``; the activation is ``(drive - offset) gain`` modulo 2**32. Empty: nothing arrives.
        offset, gain: int32, see ``drive``; multiplying takes one vector instruction where a shift takes four.
        bias: int32 effective bias as a register, or ``[B * N]``.
        noise: int32 ``[T, B * N]``, or empty.
        noise_at: one of :data:`NO_NOISE`, :data:`NOISE_AT_CURRENT`, :data:`NOISE_AT_MEMBRANE`.
    """

    n_neurons: int
    tiles: NDArray[np.int64]
    drive: NDArray[np.int32]
    offset: np.int32
    gain: np.int32
    bias: NDArray[np.int32]
    noise: NDArray[np.int32]
    noise_at: int


class Tally(NamedTuple):
    """Counters that a scan adds to.

    Attributes:
        spikes: int32 ``[B * N]``.
        active: int64 ``[B]``, neuron-steps with input, state or bias.
        overflow: int64 ``[2]``, wraps of u and clips of v.
        per_step: int64 ``[T]``, spikes summed over samples and neurons.
    """

    spikes: NDArray[np.int32]
    active: NDArray[np.int64]
    overflow: NDArray[np.int64]
    per_step: NDArray[np.int64]


class Recording(NamedTuple):
    """Where the steps are written: ``spikes`` uint8 ``[T, B * N]``; ``u`` and ``v`` int32 alike, or empty."""

    spikes: NDArray[np.uint8]
    u: NDArray[np.int32]
    v: NDArray[np.int32]


NOTHING = np.empty((0, 0), np.int32)


def register(values: ArrayLike, n_neurons: int) -> NDArray[np.int32]:
    """A register as the scan wants it, modulo 2**32: repeated to a whole tile, or ``[N]``."""
    a = np.asarray(values).reshape(-1).astype(np.int32)
    if n_neurons > TILE:
        return a if a.size > 1 else np.full(TILE, a[0], np.int32)
    return np.tile(np.broadcast_to(a, n_neurons), TILE // n_neurons)


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
    return Registers(
        register(DECAY_UNITY - params.decay_syn_q12, n_neurons),
        register(DECAY_UNITY - params.decay_mem_q12, n_neurons),
        register(threshold, n_neurons),
        params.refractory_steps,
        lost < DECAY_UNITY,
        not proven,
    )


def state_at_rest(n_samples: int, n_neurons: int, refractory_steps: int) -> State:
    """State before the first step."""
    n = n_samples * n_neurons
    return State(
        np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n if refractory_steps > 1 else 0, np.int32)
    )


def no_tally(n_samples: int, n_neurons: int, n_steps: int) -> Tally:
    """Counters at zero."""
    return Tally(
        np.zeros(n_samples * n_neurons, np.int32),
        np.zeros(n_samples, np.int64),
        np.zeros(2, np.int64),
        np.zeros(n_steps, np.int64),
    )


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


@kernel
def scan(reg, state, chunk, tally, out):
    """Run ``T`` steps; updates ``state`` and ``tally``, fills ``out``. Tile by tile, each through all steps."""
    n, lanes = chunk.n_neurons, state.u.shape[0]
    silent, flags, extra = np.zeros(TILE, np.int32), np.empty(TILE, np.int32), np.empty(TILE, np.int32)
    for k in range(chunk.tiles.shape[0]):
        first, last, at = chunk.tiles[k, 0], chunk.tiles[k, 1], chunk.tiles[k, 2]
        width = last - first
        keep_syn, keep_mem = _tile(reg.keep_syn, at, width, n), _tile(reg.keep_mem, at, width, n)
        threshold = _tile(reg.threshold, at, width, n)
        bias = chunk.bias[first:last] if chunk.bias.shape[0] == lanes else _tile(chunk.bias, at, width, n)
        u, v, counts = state.u[first:last], state.v[first:last], tally.spikes[first:last]
        for t in range(out.spikes.shape[0]):
            drive = chunk.drive[t, first:last] if chunk.drive.shape[0] > 0 else silent[:width]
            _active(u, v, drive, chunk.offset, chunk.gain, bias, flags[:width])
            _add_up(flags[:width], tally.active[first // n : (last + n - 1) // n])
            total, offset, gain, added = drive, chunk.offset, np.int32(chunk.gain << ACTIVATION_SHIFT), bias
            if chunk.noise_at == NOISE_AT_CURRENT:
                _noisy_input(drive, offset, gain, chunk.noise[t, first:last], extra[:width])
                total, offset, gain = extra[:width], _ZERO, _ONE
            elif chunk.noise_at == NOISE_AT_MEMBRANE:
                _sum(bias, chunk.noise[t, first:last], extra[:width])
                added = extra[:width]
            if reg.may_wrap or chunk.noise_at == NOISE_AT_CURRENT:
                tally.overflow[0] += _current_wrapping(u, total, offset, gain, keep_syn)
            elif reg.memory:
                _current(u, total, offset, gain, keep_syn)
            else:
                _current_without_memory(u, total, offset, gain)
            spikes = out.spikes[t, first:last]
            if reg.refractory_steps > 1:
                held = state.refractory[first:last]
                tally.overflow[1] += _membrane_held(u, v, added, keep_mem, held)
                tally.per_step[t] += _fire(v, threshold, spikes, counts)
                _count_down(spikes, held, reg.refractory_steps)
            else:
                clipped, fired = _membrane(u, v, added, keep_mem, threshold, spikes, counts)
                tally.overflow[1] += clipped
                tally.per_step[t] += fired
            if out.u.shape[0] > 0:
                _copy(u, out.u[t, first:last])
                _copy(v, out.v[t, first:last])


@kernel
def _tile(values, at, width, n):
    """The tile's part of a register."""
    return values[at : at + width] if values.shape[0] == n else values[:width]


@kernel
def _decayed(x, keep):
    """``rz(x keep, 12)`` for int32 ``x``: a negative product is rounded up by adding 4095 before the floor."""
    up = np.int32(np.uint32(np.int32(x >> _SIGN)) >> _ROUND)
    low = np.int32(np.int32(np.int32(np.int32(x & _LOW) * keep) + up) >> _BITS)
    return np.int32(np.int32(np.int32(x >> _BITS) * keep) + low)


@kernel
def _active(u, v, drive, offset, gain, bias, out):
    """1 where a neuron has state, input or bias."""
    for j in range(u.shape[0]):
        a = np.int32(np.int32(drive[j] - offset) * gain)
        out[j] = (u[j] | v[j] | a | bias[j]) != 0


@kernel
def _add_up(flags, totals):
    """Sum of the flags, sample by sample."""
    n = flags.shape[0] // totals.shape[0]
    for b in range(totals.shape[0]):
        count = _ZERO
        part = flags[b * n : b * n + n]
        for j in range(n):
            count = np.int32(count + part[j])
        totals[b] += count


@kernel
def _noisy_input(drive, offset, gain, noise, out):
    """``wrap32(64 activation + noise)``."""
    for j in range(drive.shape[0]):
        out[j] = np.int32(np.int32(np.int32(drive[j] - offset) * gain) + noise[j])


@kernel
def _sum(a, b, out):
    """``wrap32(a + b)``."""
    for j in range(b.shape[0]):
        out[j] = np.int32(a[j] + b[j])


@kernel
def _current_wrapping(u, drive, offset, gain, keep):
    """Step 1 of the oracle; returns how many neurons wrapped."""
    count = _ZERO
    for j in range(u.shape[0]):
        x = np.int32(np.int32(np.int32(drive[j] - offset) * gain) + _decayed(u[j], keep[j]))
        count = np.int32(count + np.int32((x > U_HALF) | (x < -U_HALF)))
        below = np.int32(x + _WRAP) if x <= -U_HALF else x
        u[j] = np.int32(x - _WRAP) if x > U_HALF else below
    return count


@kernel
def _current(u, drive, offset, gain, keep):
    """Step 1 where nothing can wrap."""
    for j in range(u.shape[0]):
        u[j] = np.int32(np.int32(np.int32(drive[j] - offset) * gain) + _decayed(u[j], keep[j]))


@kernel
def _current_without_memory(u, drive, offset, gain):
    """Step 1 where nothing can wrap and nothing is kept."""
    for j in range(u.shape[0]):
        u[j] = np.int32(np.int32(drive[j] - offset) * gain)


@kernel
def _membrane(u, v, bias, keep, threshold, spikes, counts):
    """Steps 2 and 3 without dead steps; returns how many neurons clipped and fired."""
    clipped, fired = _ZERO, _ZERO
    for j in range(u.shape[0]):
        raw = np.int32(np.int32(_decayed(v[j], keep[j]) + u[j]) + bias[j])
        x = min(max(raw, np.int32(-_V_MAX)), _V_MAX)
        s = np.int32(x > threshold[j])
        clipped = np.int32(clipped + np.int32(x != raw))
        fired = np.int32(fired + s)
        spikes[j] = s
        counts[j] = np.int32(counts[j] + s)
        v[j] = _ZERO if s else x
    return clipped, fired


@kernel
def _membrane_held(u, v, bias, keep, refractory):
    """Step 2; neurons in their dead steps stay at 0. Returns how many neurons clipped."""
    clipped = _ZERO
    for j in range(u.shape[0]):
        raw = np.int32(np.int32(_decayed(v[j], keep[j]) + u[j]) + bias[j])
        x = min(max(raw, np.int32(-_V_MAX)), _V_MAX)
        clipped = np.int32(clipped + np.int32(x != raw))
        v[j] = _ZERO if refractory[j] > 0 else x
    return clipped


@kernel
def _fire(v, threshold, spikes, counts):
    """Step 3: strict comparison, reset to zero; returns how many neurons fired."""
    fired = _ZERO
    for j in range(v.shape[0]):
        s = np.int32(v[j] > threshold[j])
        fired = np.int32(fired + s)
        spikes[j] = s
        counts[j] = np.int32(counts[j] + s)
        v[j] = _ZERO if s else v[j]
    return fired


@kernel
def _copy(a, out):
    """Element by element: assigning to a slice compiles its error messages too, which takes seconds."""
    for j in range(a.shape[0]):
        out[j] = a[j]


@kernel
def _count_down(spikes, refractory, steps):
    """Dead steps left, as the chip counts them."""
    for j in range(spikes.shape[0]):
        left = np.int32(steps) if spikes[j] else refractory[j]
        refractory[j] = np.int32(max(left - 1, 0))
