"""Many steps of many neurons at once: :func:`nmtool.fixedpoint.neuron.step` in 32-bit arithmetic, compiled.

All sums are taken modulo 2**32, as the oracle does. The product of a state and a decay needs up to 44 bits; it is
formed from two halves, so that one vector instruction handles as many neurons as 32-bit lanes allow:
``floor(|x| f / 2**12) = (|x| >> 12) f + ((|x| & 4095) f >> 12)``, and ``f <= 4096`` keeps both terms below 2**32.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nmtool.fixedpoint.jit import kernel
from nmtool.fixedpoint.neuron import NeuronParams
from nmtool.fixedpoint.ops import ACTIVATION_SHIFT, DECAY_BITS, DECAY_UNITY, U_HALF, V_MAX

TILE = 512
"""Neurons whose states stay in the first-level cache while time runs."""

NO_NOISE, NOISE_AT_CURRENT, NOISE_AT_MEMBRANE = 0, 1, 2

_LOW = np.uint32(DECAY_UNITY - 1)
_BITS = np.uint32(DECAY_BITS)
_SIGN = np.int32(31)
_WRAP = 2 * U_HALF
_INT32 = np.iinfo(np.int32)


class Registers(NamedTuple):
    """Constants of a population; each array ``[N]``, or one tile of equal values.

    Attributes:
        keep_syn, keep_mem: uint32, fraction *kept* per step in 1/4096.
        threshold: int32, membrane units.
        refractory_steps: see :class:`nmtool.fixedpoint.neuron.NeuronParams`.
        memory: whether any neuron keeps part of its current.
    """

    keep_syn: NDArray[np.uint32]
    keep_mem: NDArray[np.uint32]
    threshold: NDArray[np.int32]
    refractory_steps: int
    memory: bool


class State(NamedTuple):
    """What is carried from chunk to chunk, int32 ``[B, N]``; ``refractory`` is ``[B, 0]`` where no step is dead."""

    u: NDArray[np.int32]
    v: NDArray[np.int32]
    refractory: NDArray[np.int32]


class Chunk(NamedTuple):
    """What arrives during ``T`` steps.

    Attributes:
        drive: int32 ``[T, B, N]``; the activation is ``(drive - offset) << shift`` modulo 2**32.
        offset: see ``drive``.
        shift: see ``drive``, 0 to 31.
        bias: int32 effective bias, ``[1 or B, N]`` or one tile.
        noise: int32 ``[T, B, N]``, or of size 0.
        noise_at: one of :data:`NO_NOISE`, :data:`NOISE_AT_CURRENT`, :data:`NOISE_AT_MEMBRANE`.
    """

    drive: NDArray[np.int32]
    offset: int
    shift: int
    bias: NDArray[np.int32]
    noise: NDArray[np.int32]
    noise_at: int


class Tally(NamedTuple):
    """Counters that a scan adds to.

    Attributes:
        spikes: int32 ``[B, N]``.
        active: int64 ``[B]``, neuron-steps with input, state or bias.
        overflow: int64 ``[2]``, wraps of u and clips of v.
        per_step: int64 ``[T]``, spikes summed over samples and neurons.
    """

    spikes: NDArray[np.int32]
    active: NDArray[np.int64]
    overflow: NDArray[np.int64]
    per_step: NDArray[np.int64]


class Recording(NamedTuple):
    """Where the steps are written: ``spikes`` uint8 ``[T, B, N]``; ``u`` and ``v`` int32 alike, or of size 0."""

    spikes: NDArray[np.uint8]
    u: NDArray[np.int32]
    v: NDArray[np.int32]


NOTHING = np.empty((0, 0, 0), np.int32)


def tiled(values: ArrayLike, n_neurons: int, dtype: type) -> NDArray[np.generic]:
    """A register as the scan wants it: ``[N]``, or one tile of a value that all share."""
    a = np.asarray(values)
    return np.ascontiguousarray(a if a.size > 1 else np.full(min(TILE, n_neurons), a.reshape(-1)[0]), dtype)


def registers(params: NeuronParams, n_neurons: int) -> Registers:
    """Registers of a population in the order in which its neurons are laid out."""
    threshold = np.clip(params.v_th_man.astype(np.int64) << ACTIVATION_SHIFT, _INT32.min, _INT32.max)
    return Registers(
        tiled(DECAY_UNITY - params.decay_syn_q12, n_neurons, np.uint32),
        tiled(DECAY_UNITY - params.decay_mem_q12, n_neurons, np.uint32),
        tiled(threshold, n_neurons, np.int32),
        params.refractory_steps,
        bool((params.decay_syn_q12 < DECAY_UNITY).any()),
    )


def state_at_rest(n_samples: int, n_neurons: int, refractory_steps: int) -> State:
    """State before the first step."""
    held = n_neurons if refractory_steps > 1 else 0
    return State(*(np.zeros((n_samples, n), np.int32) for n in (n_neurons, n_neurons, held)))


@kernel
def scan(reg, state, chunk, tally, out):  # type: ignore[no-untyped-def]
    """Run ``T`` steps; updates ``state`` and ``tally``, fills ``out``. Sample by sample, tile by tile, then time."""
    n_steps, n_samples, n_neurons = chunk.drive.shape
    spare = np.empty(TILE, np.int32)
    extra = np.empty(TILE, np.int32)
    for b in range(n_samples):
        biases = chunk.bias[b if chunk.bias.shape[0] > 1 else 0]
        for first in range(0, n_neurons, TILE):
            last = min(n_neurons, first + TILE)
            keep_syn = _tile(reg.keep_syn, first, last, n_neurons)
            keep_mem = _tile(reg.keep_mem, first, last, n_neurons)
            threshold = _tile(reg.threshold, first, last, n_neurons)
            bias = _tile(biases, first, last, n_neurons)
            u, v = state.u[b, first:last], state.v[b, first:last]
            counts = tally.spikes[b, first:last]
            added = bias
            for t in range(n_steps):
                drive, spikes = chunk.drive[t, b, first:last], out.spikes[t, b, first:last]
                tally.active[b] += _active(u, v, drive, chunk.offset, bias)
                _activation(drive, chunk.offset, chunk.shift, spare)
                if chunk.noise_at == NOISE_AT_CURRENT:
                    _sum(spare, chunk.noise[t, b, first:last], spare)
                elif chunk.noise_at == NOISE_AT_MEMBRANE:
                    added = extra[: last - first]
                    _sum(bias, chunk.noise[t, b, first:last], added)
                tally.overflow[0] += _current(u, spare, keep_syn, reg.memory)
                tally.overflow[1] += _voltage(u, v, added, keep_mem)
                if reg.refractory_steps > 1:
                    _hold(v, state.refractory[b, first:last])
                tally.per_step[t] += _fire(v, threshold, spikes, counts)
                if reg.refractory_steps > 1:
                    _count_down(spikes, state.refractory[b, first:last], reg.refractory_steps)
                if out.u.size > 0:
                    out.u[t, b, first:last] = u
                    out.v[t, b, first:last] = v


@kernel
def _tile(values, first, last, n_neurons):  # type: ignore[no-untyped-def]
    """The tile's part of a register."""
    return values[first:last] if values.shape[0] == n_neurons else values[: last - first]


@kernel
def _decay(x, keep):  # type: ignore[no-untyped-def]
    """``rz(x keep, 12)`` for int32 ``x``; the sign is taken off and put back."""
    sign = np.int32(x >> _SIGN)
    magnitude = np.uint32(np.int32(x ^ sign) - sign)
    high = np.uint32(np.uint32(magnitude >> _BITS) * keep)
    low = np.uint32(np.uint32(np.uint32(magnitude & _LOW) * keep) >> _BITS)
    return np.int32(np.int32(np.int32(high + low) ^ sign) - sign)


@kernel
def _active(u, v, drive, offset, bias):  # type: ignore[no-untyped-def]
    """How many neurons have state, input or bias."""
    count = np.int32(0)
    for j in range(u.shape[0]):
        count = np.int32(count + np.int32((u[j] | v[j] | np.int32(drive[j] - offset) | bias[j]) != 0))
    return count


@kernel
def _activation(drive, offset, shift, out):  # type: ignore[no-untyped-def]
    """``wrap32(activation << 6)``."""
    for j in range(drive.shape[0]):
        out[j] = np.int32(np.int32(np.int32(drive[j] - offset) << shift) << np.int32(ACTIVATION_SHIFT))


@kernel
def _sum(a, b, out):  # type: ignore[no-untyped-def]
    """``wrap32(a + b)``."""
    for j in range(b.shape[0]):
        out[j] = np.int32(a[j] + b[j])


@kernel
def _current(u, activation, keep, memory):  # type: ignore[no-untyped-def]
    """Step 1 of the oracle; returns how many neurons wrapped."""
    count = np.int32(0)
    for j in range(u.shape[0]):
        x = np.int32(activation[j] + _decay(u[j], keep[j])) if memory else activation[j]
        count = np.int32(count + np.int32((x > U_HALF) | (x < -U_HALF)))
        below = np.int32(x + _WRAP) if x <= -U_HALF else x
        u[j] = np.int32(x - _WRAP) if x > U_HALF else below
    return count


@kernel
def _voltage(u, v, bias, keep):  # type: ignore[no-untyped-def]
    """Step 2 of the oracle; returns how many neurons clipped."""
    count = np.int32(0)
    for j in range(u.shape[0]):
        x = np.int32(np.int32(_decay(v[j], keep[j]) + u[j]) + bias[j])
        count = np.int32(count + np.int32((x > V_MAX) | (x < -V_MAX)))
        v[j] = np.int32(min(max(x, np.int32(-V_MAX)), np.int32(V_MAX)))
    return count


@kernel
def _hold(v, refractory):  # type: ignore[no-untyped-def]
    """Neurons in their dead steps stay at 0."""
    for j in range(v.shape[0]):
        v[j] = np.int32(0) if refractory[j] > 0 else v[j]


@kernel
def _fire(v, threshold, spikes, counts):  # type: ignore[no-untyped-def]
    """Step 3 of the oracle: strict comparison, reset to zero; returns how many neurons fired."""
    fired = np.int32(0)
    for j in range(v.shape[0]):
        s = np.int32(v[j] > threshold[j])
        spikes[j] = s
        v[j] = np.int32(0) if s else v[j]
        counts[j] = np.int32(counts[j] + s)
        fired = np.int32(fired + s)
    return fired


@kernel
def _count_down(spikes, refractory, steps):  # type: ignore[no-untyped-def]
    """Dead steps left, as the chip counts them."""
    for j in range(spikes.shape[0]):
        left = np.int32(steps) if spikes[j] else refractory[j]
        refractory[j] = np.int32(max(left - 1, 0))
