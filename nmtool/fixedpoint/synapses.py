"""Synapses as operators: from a window of spikes to the drive of a population, by the fastest exact way.

Which way is taken (events one by one, or an integer matrix product or convolution) depends on the measured density and
on proven bounds; no way changes a bit of the result.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint import drive, kernels
from nmtool.fixedpoint.kernels import Geometry
from nmtool.fixedpoint.ops import U_HALF, wrap_24
from nmtool.fixedpoint.window import Window

INT8 = np.iinfo(np.int8)
_LOW32 = 0xFFFFFFFF

MATRIX_FROM_DENSITY = 0.3
"""Share of ones from which one integer matrix product beats adding events."""

MAPS_FROM_DENSITY = 0.3
"""Share of ones from which an integer convolution of whole maps beats adding events."""

SPARSE_BELOW = 1 / 32
"""Share of non-zero weights below which a list of synapses beats rows of a matrix."""


class Part(NamedTuple):
    """A connection's share of the activation: ``(values - offset) 2**power`` modulo 2**32, int32 ``[T, B, N]``."""

    values: NDArray[np.int32]
    offset: int = 0
    power: int = 0


def summed(parts: Sequence[Part]) -> Part:
    """One part that is the sum of all; the arrays may be overwritten."""
    base, *others = sorted(parts, key=lambda p: p.power)
    for p in others:
        drive.accumulate(
            p.values.reshape(-1), np.int32(p.offset), gain(p.power - base.power), base.values.reshape(-1)
        )
    return base


@functools.cache
def gain(power: int) -> np.int32:
    """``2**power`` modulo 2**32."""
    return np.uint32(1 << power & _LOW32).astype(np.int32)


class Synapses(Protocol):
    """One connection, or one delay slot of it."""

    def drive(self, window: Window, lag: int) -> Part:
        """Activation caused by the window's spikes of ``lag`` steps ago."""
        ...

    def largest(self, payload: int) -> float:
        """Bound on the magnitude of the activation for spikes of at most ``payload``."""
        ...

    def exact(self, x: NDArray[np.int64]) -> NDArray[np.int64]:
        """``W x`` for one layer of integers ``[B, n_in]``, without shift or wrap, int64 ``[B, n_out]``."""
        ...


class Small(NamedTuple):
    """Weights as ``(values + offset) << power`` with int8 ``values``."""

    values: NDArray[np.int8]
    offset: int
    power: int


def common_power(weights: NDArray[np.int32]) -> int:
    """Largest k such that every weight is a multiple of ``2**k``; 0 for an all-zero array."""
    merged = int(np.bitwise_or.reduce(weights, axis=None)) if weights.size else 0
    return (merged & -merged).bit_length() - 1 if merged else 0


def in_bytes(weights: NDArray[np.int32]) -> Small | None:
    """Eight-bit form: mixed-sign weights are even, one-signed ones lie within 255 of each other."""
    power = common_power(weights)
    values = weights >> power
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if high - low > INT8.max - INT8.min:
        return None
    offset = 0 if low >= INT8.min and high <= INT8.max else low - INT8.min
    return Small((values - offset).astype(np.int8), offset, power)


def _right(exponent: int) -> int:
    """Floor shift of an exponent; beyond 31 bits the result no longer changes."""
    return min(max(-exponent, 0), 31)


def _largest(sums: NDArray[Any], payload: int, exponent: int) -> float:
    """Bound after a shift, whose floor may add one."""
    return float(sums.max(initial=0)) * payload * 2.0**exponent + 1


class Dense:
    """``[n_out, n_in]`` integer matrix followed by a shift by ``exponent`` (left, or floor)."""

    def __init__(self, weights: NDArray[np.int32], exponent: int = 0) -> None:
        self._weights, self._exponent = weights, exponent
        self._small = in_bytes(weights)
        self._total = exponent if self._small is None else exponent + self._small.power

    @functools.cached_property
    def _bytes(self) -> drive.ByteWeights | None:
        s = self._small
        return None if s is None else drive.byte_weights(s.values, s.offset, _right(self._total))

    @functools.cached_property
    def _wide(self) -> NDArray[np.int32]:
        return np.ascontiguousarray(self._weights.T)

    @functools.cached_property
    def _product(self) -> kernels.Int8Product | None:
        if self._small is None or self._small.offset or not kernels.int8_product_works():
            return None
        return kernels.Int8Product(np.ascontiguousarray(self._small.values.T))

    def drive(self, window: Window, lag: int) -> Part:
        """See :class:`Synapses`."""
        n_steps, n_samples, _ = window.shape
        n_out = len(self._weights)
        by_bytes = self._bytes is not None and not window.graded
        many = window.density >= MATRIX_FROM_DENSITY and min(n_steps * n_samples, *self._weights.shape) > 1
        if by_bytes and many and self._product is not None:
            out = self._product(window.rows(lag))
            out >>= _right(self._total)
        else:
            out = np.empty((n_steps * n_samples, n_out), np.int32)
            events, base = window.events(lag)
            if by_bytes:
                drive.add_bytes(events, base, self._bytes, out)
            else:
                drive.add_wide(events, base, self._wide, _right(self._exponent), out)
        exponent = self._total if by_bytes else self._exponent
        return Part(out.reshape(n_steps, n_samples, n_out), 0, max(exponent, 0))

    def largest(self, payload: int) -> float:
        """See :class:`Synapses`."""
        return _largest(np.abs(self._weights.astype(np.int64)).sum(axis=1), payload, self._exponent)

    def exact(self, x: NDArray[np.int64]) -> NDArray[np.int64]:
        """See :class:`Synapses`."""
        w = self._weights.astype(np.int64)
        if int(np.abs(w).sum(axis=1).max(initial=0)) * int(np.abs(x).max(initial=0)) < kernels.EXACT_F64:
            return (x.astype(np.float64) @ w.T.astype(np.float64)).astype(np.int64)
        return x @ w.T


class Sparse:
    """Synapse list ``indices`` ``[2, nnz]`` (target, source), followed by a shift by ``exponent``."""

    def __init__(
        self, weights: NDArray[np.int32], indices: NDArray[np.int32], n_in: int, n_out: int, exponent: int = 0
    ) -> None:
        self._weights, self._indices, self._n_out, self._exponent = weights, indices, n_out, exponent
        order = np.argsort(indices[1], kind="stable")
        start = np.zeros(n_in + 1, np.int64)
        np.cumsum(np.bincount(indices[1], minlength=n_in), out=start[1:])
        self._by_source = drive.SparseWeights(start, indices[0][order], weights[order], _right(exponent))

    def drive(self, window: Window, lag: int) -> Part:
        """See :class:`Synapses`."""
        n_steps, n_samples, _ = window.shape
        out = np.empty((n_steps * n_samples, self._n_out), np.int32)
        events, base = window.events(lag)
        drive.add_sparse(events, base, self._by_source, out)
        return Part(out.reshape(n_steps, n_samples, self._n_out), 0, max(self._exponent, 0))

    def largest(self, payload: int) -> float:
        """See :class:`Synapses`."""
        sums = np.bincount(self._indices[0], np.abs(self._weights.astype(np.float64)), self._n_out)
        return _largest(sums, payload, self._exponent)

    def exact(self, x: NDArray[np.int64]) -> NDArray[np.int64]:
        """See :class:`Synapses`."""
        out = np.zeros((self._n_out, len(x)), np.int64)
        np.add.at(out, self._indices[0], self._weights.astype(np.int64)[:, None] * x.T[self._indices[1]])
        return out.T


class Conv:
    """Cross-correlation of channels-last maps, ``[B, H * W * C]`` in and out; the sum wraps to 24 bits.

    Few binary spikes are listed by output pixel and added like those of a dense layer; many go through an integer or
    float32 convolution of the maps; payloads through float64.
    """

    def __init__(self, weights: NDArray[np.int32], geometry: Geometry) -> None:
        dilation = [d if k > 1 else 1 for d, k in zip(geometry.dilation, weights.shape[2:], strict=True)]
        self._weights, self._geometry = weights, replace(geometry, dilation=(dilation[0], dilation[1]))
        sums = np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(axis=1)
        self._bound = int(sums.max(initial=0))
        self._power = common_power(weights)
        listed = geometry.groups == 1 and dilation[1] == 1 and self._bound < U_HALF
        self._small = in_bytes(weights) if listed else None

    @functools.cached_property
    def _bytes(self) -> drive.ByteWeights | None:
        """The kernel as a matrix ``[C_out, kH * kW * C_in]``."""
        s = self._small
        if s is None:
            return None
        matrix = s.values.transpose(0, 2, 3, 1).reshape(len(s.values), -1)
        return drive.byte_weights(matrix, s.offset, 0)

    @functools.cached_property
    def _int8(self) -> kernels.Int8Convolution | None:
        return (
            kernels.int8_convolution(self._weights >> self._power, self._geometry)
            if self._fits_magic
            else None
        )

    @property
    def _fits_magic(self) -> bool:
        return self._bound >> self._power < kernels.MAGIC_RANGE and self._bound < U_HALF

    def drive(self, window: Window, lag: int) -> Part:
        """See :class:`Synapses`."""
        n_steps, n_samples, _ = window.shape
        shape = (n_steps, n_samples, math.prod(self._geometry.out_shape))
        if not window.graded and self._bytes is not None and window.density < MAPS_FROM_DENSITY:
            return Part(self._by_events(window, lag).reshape(shape), 0, self._power)
        rows = window.rows(lag)
        if not window.graded and self._fits_magic:
            if self._int8 is not None:
                sums = self._int8(rows)
            else:
                small = self._weights >> self._power
                sums = kernels.convolved(rows, small, self._geometry, "float32", kernels.MAGIC)
            return Part(sums.view(np.int32).reshape(shape), kernels.MAGIC_BITS, self._power)
        return Part(wrap_24(self.exact(rows.astype(np.int64))).astype(np.int32).reshape(shape))

    def _by_events(self, window: Window, lag: int) -> NDArray[np.int32]:
        g = self._geometry
        (channels, height, width), (n_out, rows_out, columns_out) = g.in_shape, g.out_shape
        tap = (self._weights.shape[2], self._weights.shape[3])
        taps = drive.Taps(
            channels, (height, width), (rows_out, columns_out), tap, g.stride, g.padding, g.dilation
        )
        events, base = window.events(lag, height * width, width)
        out = np.empty((window.shape[0] * window.shape[1], rows_out * columns_out, n_out), np.int32)
        drive.add_bytes_conv(events, base, taps, self._bytes, out)
        return out

    def largest(self, payload: int) -> float:
        """See :class:`Synapses`."""
        return float(self._bound * payload)

    def exact(self, x: NDArray[np.int64]) -> NDArray[np.int64]:
        """See :class:`Synapses`.

        Raises:
            OverflowError: a sum could be beyond what float64 holds exactly.
        """
        largest = self._bound * int(np.abs(x).max(initial=0))
        if largest >= kernels.EXACT_F64:
            raise OverflowError(f"a sum of {largest} is beyond what float64 holds exactly")
        dtype = "float32" if largest < kernels.EXACT_F32 else "float64"
        return kernels.convolved(x, self._weights, self._geometry, dtype).astype(np.int64)
