"""Analog values as input: integer units for ``direct``, Bernoulli spikes from a stream for ``rate``."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nmtool.fixedpoint.noise import words
from nmtool.fixedpoint.ops import Int

INPUT_BLOCK = 0xFFFF
"""Block of the noise stream that belongs to the encoder; populations count from 0."""


def input_units(x: ArrayLike, x_scale: float, x_max: int) -> Int:
    """``clip(round(x / x_scale), 0, x_max)`` in float64, ties to even, any shape."""
    units = np.rint(np.asarray(x, np.float64) / x_scale)
    result: Int = np.clip(units, 0, x_max).astype(np.int64)
    return result


def rate_thresholds(x: ArrayLike, x_scale: float, x_max: int) -> NDArray[np.uint64]:
    """``floor(clip(x / (x_max x_scale), 0, 1) 2**32)``: a line fires where its 32-bit word is below this.

    0 never fires and 1 always does.
    """
    share = np.clip(np.asarray(x, np.float64) / (x_max * x_scale), 0.0, 1.0)
    return np.floor(share * 2.0**32).astype(np.uint64)


def rate_spikes(
    thresholds: NDArray[np.uint64], seed: int, samples: ArrayLike, steps: ArrayLike
) -> NDArray[np.uint8]:
    """Bernoulli spikes by the counter-based stream, uint8 ``[T, B, N]``.

    Args:
        thresholds: of :func:`rate_thresholds`, ``[B, N]``.
        seed: 64-bit key of the run.
        samples: ``[B]``, index of each sample in its data set.
        steps: ``[T]``, from 0.
    """
    line = np.arange(thresholds.shape[1])
    sample = np.asarray(samples)[:, None]
    return np.stack([
        (words(seed, sample, INPUT_BLOCK, line, step) < thresholds).astype(np.uint8) for step in np.asarray(steps)
    ])  # fmt: skip
