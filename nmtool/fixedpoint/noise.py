"""The chip's noise as one counter-based stream: every draw is a function of (seed, sample, block, neuron, step).

No state is carried, so simulator, twin and Lava worker produce the same integers in any order, batch or chunk.

Generator: Philox4x32-10 (Salmon et al., SC'11), checked against the vectors published with Random123.
Shape of one draw: nengo-loihi's model of the Loihi 1 noise register, ``x`` uniform on {-127..127},
``n = trunc_to_zero((x + 64 m) * 2**(e - 7))``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nmtool.fixedpoint.ops import Int, as_int64, shift_toward_zero

NoiseModel = Literal["uniform8", "irwin_hall", "gaussian"]

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)

DRAW_VALUES = 255
DRAW_STD = float(np.sqrt((DRAW_VALUES**2 - 1) / 12))


@dataclass(frozen=True)
class NoiseSpec:
    """Registers of one population's noise.

    Attributes:
        exponent: ``e`` of the rule above.
        mantissa_offset: ``m``; shifts the mean by ``m * 2**(e - 1)``.
        at: ``"membrane"`` adds to v of this step, ``"current"`` to the synaptic input before the current's decay.
        model: ``uniform8`` is the chip's generator, ``irwin_hall`` the sum of ``draws`` such draws,
            ``gaussian`` a rounded normal of the same variance (simulation only).
        draws: how many uniform draws are summed; 1 unless ``irwin_hall``.
    """

    exponent: int
    mantissa_offset: int = 0
    at: Literal["membrane", "current"] = "membrane"
    model: NoiseModel = "uniform8"
    draws: int = 1


def philox4x32(counter: tuple[ArrayLike, ...], seed: int) -> NDArray[np.uint64]:
    """Philox4x32-10: four 32-bit words per counter, as uint64 ``[4, ...]``.

    Args:
        counter: four broadcastable arrays of non-negative integers below 2**32.
        seed: the 64-bit key.
    """
    c0, c1, c2, c3 = (np.asarray(c).astype(np.uint64) for c in counter)
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (
            (p1 >> _32) ^ c1 ^ np.uint64(k0),
            p1 & _LOW32,
            (p0 >> _32) ^ c3 ^ np.uint64(k1),
            p0 & _LOW32,
        )
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3))


def words(
    seed: int, sample: ArrayLike, block: int, neuron: ArrayLike, step: ArrayLike, draw: int = 0
) -> NDArray[np.uint64]:
    """The 32-bit word of each (sample, block, neuron, step, draw), broadcast together.

    Four neighbouring neurons share one Philox call: counter = (neuron // 4, step, sample, block + 2**16 draw),
    word = neuron % 4.
    """
    n = np.asarray(neuron)
    out = philox4x32((n // 4, step, sample, block + (draw << 16)), seed)
    lane = np.broadcast_to(n % 4, out.shape[1:])
    return np.take_along_axis(out, lane[None], axis=0)[0]


def uniform8(word: NDArray[np.uint64]) -> Int:
    """A 32-bit word to the chip's draw: uniform on {-127..127} by multiply-and-shift."""
    return ((word * np.uint64(DRAW_VALUES)) >> _32).astype(np.int64) - DRAW_VALUES // 2


def scaled(draw: ArrayLike, spec: NoiseSpec) -> Int:
    """``trunc_to_zero((draw + 64 m) * 2**(e - 7))`` (nengo-loihi emulator)."""
    x = as_int64(draw) + 64 * spec.mantissa_offset
    shift = spec.exponent - 7
    return x << shift if shift >= 0 else shift_toward_zero(x, -shift)


def noise(
    spec: NoiseSpec, seed: int, sample: ArrayLike, block: int, neuron: ArrayLike, step: ArrayLike
) -> Int:
    """Noise integers in membrane units, broadcast over ``sample``, ``neuron`` and ``step``.

    Args:
        spec: registers.
        seed: 64-bit key of the run.
        sample: index of the sample in the data set or call, not in the batch.
        block: index of the population in the program.
        neuron: flat index of the neuron.
        step: the population's own time, from 0.
    """
    if spec.model == "gaussian":
        return _gaussian(spec, seed, sample, block, neuron, step)
    total = scaled(uniform8(words(seed, sample, block, neuron, step)), spec)
    for k in range(1, spec.draws):
        total = total + scaled(uniform8(words(seed, sample, block, neuron, step, k)), spec)
    return total


def _gaussian(
    spec: NoiseSpec, seed: int, sample: ArrayLike, block: int, neuron: ArrayLike, step: ArrayLike
) -> Int:
    """Box-Muller of two words, scaled to the standard deviation of ``draws`` uniform draws, rounded half to even."""
    a = (words(seed, sample, block, neuron, step).astype(np.float64) + 0.5) / 2.0**32
    b = words(seed, sample, block, neuron, step, 1).astype(np.float64) / 2.0**32
    std = DRAW_STD * 2.0 ** (spec.exponent - 7) * np.sqrt(spec.draws)
    mean = spec.draws * spec.mantissa_offset * 2.0 ** (spec.exponent - 1)
    return np.rint(mean + std * np.sqrt(-2 * np.log(a)) * np.cos(2 * np.pi * b)).astype(np.int64)
