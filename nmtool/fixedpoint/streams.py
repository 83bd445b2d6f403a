"""The stream of :mod:`nmtool.fixedpoint.noise`, compiled: four neighbouring neurons share one Philox call."""

# The kernels' arguments get their types when numba sees them.
# mypy: disallow-untyped-defs=False

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint.encode import INPUT_BLOCK
from nmtool.fixedpoint.jit import inlined, kernel
from nmtool.fixedpoint.noise import DRAW_VALUES, NoiseSpec, noise

LANES = 4
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _LOW64 = np.uint64(0xFFFFFFFF), 0xFFFFFFFFFFFFFFFF
_32 = np.uint64(32)


class Stream(NamedTuple):
    """Which part of the stream.

    Attributes:
        seed: 64-bit key of the run.
        first_sample: index of the first sample in its data set.
        first_step: own time of the first step.
        block: index of the population.
    """

    seed: int | np.uint64
    first_sample: int
    first_step: int
    block: int


class _Draw(NamedTuple):
    """One register's way from a 32-bit word to an integer."""

    draws: int
    offset: int
    left: int
    right: int


def noise_chunk(spec: NoiseSpec, stream: Stream, shape: tuple[int, int, int]) -> NDArray[np.int32]:
    """Noise of a chunk, int32 ``[T, B, N]`` modulo 2**32, neurons in flat order.

    The ``gaussian`` model needs logarithm and cosine to the last bit and therefore goes through the readable form.
    """
    n_steps, n_samples, n = shape
    if spec.model == "gaussian":
        sample = stream.first_sample + np.arange(n_samples)[:, None]
        steps = range(stream.first_step, stream.first_step + n_steps)
        drawn = [noise(spec, int(stream.seed), sample, stream.block, np.arange(n), t) for t in steps]
        return np.stack(drawn).astype(np.int32)
    shift = spec.exponent - 7
    out = np.empty(shape, np.int32)
    draw = _Draw(max(spec.draws, 1), 64 * spec.mantissa_offset, max(shift, 0), max(-shift, 0))
    _noise(_key(stream), draw, out)
    return out


def rate_chunk(thresholds: NDArray[np.uint64], stream: Stream, out: NDArray[np.uint8]) -> None:
    """Rate-coded input as :func:`nmtool.fixedpoint.encode.rate_spikes` gives it, into ``out`` ``[T, B, N]``.

    Args:
        thresholds: ``[B, N]``.
        stream: its ``block`` is not used.
        out: uint8.
    """
    _rate(thresholds, _key(stream._replace(block=INPUT_BLOCK)), out)


def _key(stream: Stream) -> Stream:
    """The stream with its seed as the 64 bits that Philox sees."""
    return stream._replace(seed=np.uint64(int(stream.seed) & _LOW64))


@inlined
def _philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10 on uint64 registers that hold 32-bit words."""
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@inlined
def _words(stream, sample, step, draw, out):
    """32-bit words of one row into ``out`` ``[4, ceil(N / 4)]``: lane, then group of four neurons."""
    seed = np.uint64(stream.seed)
    k0, k1 = seed & _LOW, seed >> _32
    c1, c2 = np.uint64(step), np.uint64(sample)
    c3 = np.uint64(stream.block + (draw << 16))
    for g in range(out.shape[1]):
        out[0, g], out[1, g], out[2, g], out[3, g] = _philox(np.uint64(g), c1, c2, c3, k0, k1)


@kernel
def _noise(stream, draw, out):
    """Sum of ``draw.draws`` scaled draws per neuron and step; negative exponents truncate toward zero."""
    n = out.shape[2]
    word = np.empty((LANES, (n + LANES - 1) // LANES), np.uint64)
    for t in range(out.shape[0]):
        for b in range(out.shape[1]):
            row = out[t, b]
            row[:] = 0
            for k in range(draw.draws):
                _words(stream, stream.first_sample + b, stream.first_step + t, k, word)
                for j in range(n):
                    w = word[j % LANES, j // LANES]
                    x = np.int64((w * np.uint64(DRAW_VALUES)) >> _32) - DRAW_VALUES // 2 + draw.offset
                    size = abs(x) << draw.left >> draw.right
                    row[j] = np.int32(row[j] + np.int32(size if x >= 0 else -size))


@kernel
def _rate(thresholds, stream, out):
    """1 where a line's word is below its threshold."""
    n = out.shape[2]
    word = np.empty((LANES, (n + LANES - 1) // LANES), np.uint64)
    for t in range(out.shape[0]):
        for b in range(out.shape[1]):
            _words(stream, stream.first_sample + b, stream.first_step + t, 0, word)
            for j in range(n):
                out[t, b, j] = word[j % LANES, j // LANES] < thresholds[b, j]
