"""Integer primitives of the Loihi datapath: shift toward zero, wrap, clip, decay.

Every function works on NumPy integer arrays of any shape and is written for reading, not for speed: it is
what the fast kernels are tested against. Source: ``lava.proc.lif`` of lava-nc 0.10.0, executed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

DECAY_BITS = 12
DECAY_UNITY = 1 << DECAY_BITS
ACTIVATION_SHIFT = 6
V_MAX = (1 << 23) - 1
U_HALF = 1 << 23

Int = NDArray[np.int64]


def as_int64(x: ArrayLike) -> Int:
    """``x`` as an int64 array; a float array is refused by NumPy's same-kind rule."""
    return np.asarray(x).astype(np.int64, casting="same_kind", copy=False)


def shift_toward_zero(x: ArrayLike, bits: int) -> Int:
    """``sgn(x) * floor(|x| / 2**bits)``."""
    x64 = as_int64(x)
    result: Int = np.sign(x64) * (np.abs(x64) >> bits)
    return result


def shift_left_or_floor(x: ArrayLike, exponent: ArrayLike) -> Int:
    """``x * 2**exponent``; for a negative exponent ``floor(x / 2**-exponent)`` (arithmetic shift)."""
    x64, e = as_int64(x), as_int64(exponent)
    result: Int = np.where(e >= 0, x64 << np.maximum(e, 0), x64 >> np.maximum(-e, 0))
    return result


def wrap_int32(x: ArrayLike) -> Int:
    """Two's-complement wrap to 32 bits, as a channel or an int32 register does."""
    return as_int64(x).astype(np.uint32).view(np.int32).astype(np.int64)


def wrap_u_once(x: ArrayLike) -> Int:
    """Lava's wrap of the current register: one correction by ``2**24``, so that ``+2**23`` survives."""
    x64 = as_int64(x)
    result: Int = np.where(x64 > U_HALF, x64 - 2 * U_HALF, np.where(x64 <= -U_HALF, x64 + 2 * U_HALF, x64))
    return result


def wrap_24(x: ArrayLike) -> Int:
    """Two's-complement wrap to 24 bits, ``[-2**23, 2**23 - 1]``: what Lava's Conv does to its result."""
    result: Int = ((as_int64(x) + U_HALF) & (2 * U_HALF - 1)) - U_HALF
    return result


def clip_v(x: ArrayLike) -> Int:
    """The membrane register saturates at ``+-(2**23 - 1)``."""
    return np.clip(as_int64(x), -V_MAX, V_MAX)


def decay(state: ArrayLike, lost_q12: ArrayLike) -> Int:
    """One step of exponential decay: ``rz(state * (4096 - lost_q12), 12)``.

    ``lost_q12`` is the *effective* fraction lost per step in 1/4096. For the current register of Loihi that is
    the register value plus one.
    """
    return shift_toward_zero(as_int64(state) * (DECAY_UNITY - as_int64(lost_q12)), DECAY_BITS)
