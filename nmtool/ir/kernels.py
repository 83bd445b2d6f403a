"""Convolution, pooling and delay in plain NumPy, batched, channels first.

Sums are formed in float64. For spikes and float32 weights such a sum is exact in nearly every case, so that neither
the batch size nor the BLAS library decides about a spike; it is rounded once, to the type asked for.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Floats = NDArray[Any]
Pair = tuple[int, int]

BLOCK_BYTES = 64 << 20
"""Patches are unfolded for so many samples at once that they need about this much memory."""


def convolve(
    x: Floats,
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    how: tuple[Pair, Pair, Pair],
    groups: int,
) -> Floats:
    """Cross-correlation as PyTorch's conv2d.

    Args:
        x: ``[B, C, H, W]``.
        weight: ``[C_out, C / groups, kH, kW]``.
        bias: ``[C_out]``.
        how: stride, padding and dilation, each (height, width).
        groups: channel groups.

    Returns:
        ``[B, C_out, H', W']`` in the type of ``x``.
    """
    c_out, per_group, *kernel = weight.shape
    n, n_taps = len(x), per_group * math.prod(kernel)
    windows = _windows(x, (kernel[0], kernel[1]), *how)
    h, w = windows.shape[2:4]
    matrix = weight.reshape(groups, c_out // groups, n_taps)
    out = np.empty((n, c_out, h, w), x.dtype)
    block = max(1, BLOCK_BYTES // (8 * groups * n_taps * h * w))
    for i in range(0, n, block):
        part = windows[i : i + block]
        taps = part.transpose(0, 1, 4, 5, 2, 3).astype(np.float64).reshape(len(part), groups, n_taps, h * w)
        out[i : i + block] = np.matmul(matrix, taps).reshape(len(part), c_out, h, w) + bias[:, None, None]
    return out


def pool_sum(x: Floats, kernel: Pair, stride: Pair, padding: Pair) -> Floats:
    """Sum over windows of ``[B, C, H, W]``, zeros outside."""
    return _windows(x, kernel, stride, padding, (1, 1)).sum(axis=(4, 5), dtype=np.float64).astype(x.dtype)


def _windows(x: Floats, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Floats:
    """View ``[B, C, H', W', kH, kW]`` of the padded input."""
    (ph, pw), (kh, kw), (dh, dw) = padding, kernel, dilation
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw))) if ph or pw else x
    span = (dh * (kh - 1) + 1, dw * (kw - 1) + 1)
    view = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], ::dh, ::dw]


class DelayLine:
    """y[t] = x[t - d] with d steps per element; zeros before the first input arrives.

    Args:
        steps: d, scalar or of the element's shape.
        n_steps: length of the run; longer delays never arrive.
        shape: ``(B, *shape)``.
        dtype: of the signal.
    """

    def __init__(
        self, steps: NDArray[np.int64], n_steps: int, shape: tuple[int, ...], dtype: DTypeLike
    ) -> None:
        d = np.minimum(steps.reshape(()) if steps.size == 1 else steps, n_steps)
        self._length = int(d.max()) + 1
        self._steps = np.broadcast_to(d, shape[1:])[None, None]
        self._line = np.zeros((self._length, *shape), dtype)
        self._t = 0

    def step(self, x: Floats) -> Floats:
        """One step: takes x[t] ``[B, *shape]``, gives y[t]."""
        self._line[self._t % self._length] = x
        at = (self._t - self._steps) % self._length
        self._t += 1
        y: Floats = np.take_along_axis(self._line, np.broadcast_to(at, (1, *x.shape)), axis=0)[0]
        return y
