"""Synapses as operators: from a window of spikes to the drive of a population, by the fastest exact way.

Which way is taken (events one by one, an integer or float matrix product, an integer or float convolution) depends on
the measured density and on proven bounds; no way changes a bit of the result. PyTorch is imported when first needed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint import drive
from nmtool.fixedpoint.ops import U_HALF, wrap_24
from nmtool.fixedpoint.window import Window

if TYPE_CHECKING:
    import torch

EXACT_F32 = 1 << 24
EXACT_F64 = 1 << 53
INT8 = np.iinfo(np.int8)

INT8_FROM_CHANNELS = 8
"""Fewest input channels for oneDNN's int8 convolution: with fewer, and with groups, it was seen to be wrong or to crash."""

MATRIX_FROM_DENSITY = 0.3
"""Share of ones from which one integer matrix product beats adding events."""

SPARSE_BELOW = 1 / 32
"""Share of non-zero weights below which a list of synapses beats rows of a matrix."""

MAGIC = 3 << 22
"""1.5 * 2**23: a float32 ``MAGIC + n`` with ``|n| < MAGIC_RANGE`` holds n in its lowest bits."""

MAGIC_RANGE = 1 << 22
MAGIC_BITS = int(np.float32(MAGIC).view(np.int32))


class Part(NamedTuple):
    """A connection's share of the activation: ``(values - offset) << shift`` modulo 2**32, int32 ``[T, B, N]``."""

    values: NDArray[np.int32]
    offset: int = 0
    shift: int = 0


class Synapses(Protocol):
    """One connection, or one delay slot of it."""

    def drive(self, window: Window, lag: int) -> Part:
        """Activation caused by the window's spikes of ``lag`` steps ago."""
        ...

    def exact(self, x: NDArray[np.int64]) -> NDArray[np.int64]:
        """``W x`` for one layer of integers ``[B, n_in]``, unshifted and without any wrap, int64 ``[B, n_out]``."""
        ...


def common_power(weights: NDArray[np.int32]) -> int:
    """Largest k such that every weight is a multiple of ``2**k``; 0 for an all-zero array."""
    merged = int(np.bitwise_or.reduce(weights, axis=None)) if weights.size else 0
    return (merged & -merged).bit_length() - 1 if merged else 0


def _split(exponent: int) -> tuple[int, int]:
    """Left and right shift of an exponent; beyond 31 bits the result no longer changes."""
    return min(max(exponent, 0), 31), min(max(-exponent, 0), 31)


def _scaled(part: NDArray[np.int32], exponent: int) -> Part:
    """A part to be multiplied by ``2**exponent``, modulo 2**32."""
    if exponent > 31:
        return Part(np.zeros_like(part))
    return Part(part, 0, max(exponent, 0))


class Dense:
    """``[n_out, n_in]`` integer matrix followed by a shift by ``exponent`` (left, or floor)."""

    def __init__(self, weights: NDArray[np.int32], exponent: int = 0) -> None:
        self.weights, self.exponent = weights, exponent
        n_out, n_in = weights.shape
        power = common_power(weights)
        small = weights >> power
        low, high = int(small.min(initial=0)), int(small.max(initial=0))
        self._bytes: drive.ByteWeights | None = None
        self._byte_exponent = exponent + power
        if high - low <= INT8.max - INT8.min:
            offset = 0 if low >= INT8.min and high <= INT8.max else low - INT8.min
            padded = np.zeros((n_in, -(-n_out // drive.PAD) * drive.PAD), np.int8)
            padded[:, :n_out] = (small - offset).T
            # the offset stands for weights only, so it needs the exponent's floor after both are summed: one shift
            self._bytes = drive.ByteWeights(padded, offset, _split(self._byte_exponent)[1])

    @functools.cached_property
    def _wide(self) -> NDArray[np.int32]:
        return np.ascontiguousarray(self.weights.T)

    @functools.cached_property
    def _matrix(self) -> Any:
        """int8 ``[n_in, n_out]`` for the matrix product, or None where that is not available."""
        if self._bytes is None or self._bytes.offset != 0 or not int8_product_works():
            return None
        import torch

        return torch.from_numpy(np.ascontiguousarray(self._bytes.values[:, : len(self.weights)]))

    def drive(self, window: Window, lag: int) -> Part:
        """See :class:`Synapses`."""
        n_steps, n_samples, _ = window.shape
        shape = (n_steps, n_samples, len(self.weights))
        if window.graded or self._bytes is None:
            out = np.empty((n_steps * n_samples, shape[2]), np.int32)
            events, base = window.events(lag)
            drive.add_wide(events, base, self._wide, _split(self.exponent)[1], out)
            return _scaled(out.reshape(shape), self.exponent)
        if window.density >= MATRIX_FROM_DENSITY and self._matrix is not None:
            import torch

            rows = torch.from_numpy(window.rows(lag).view(np.int8))
            product = torch._int_mm(rows, self._matrix).numpy()
            if self._bytes.shift > 0:
                product >>= self._bytes.shift
            return _scaled(product.reshape(shape), self._byte_exponent)
        out = np.empty((n_steps * n_samples, shape[2]), np.int32)
        events, base = window.events(lag)
        drive.add_bytes(events, base, self._bytes, out)
        return _scaled(out.reshape(shape), self._byte_exponent)

    def exact(self, x: NDArray[np.int64]) -> NDArray[np.int64]:
        """See :class:`Synapses`."""
        w = self.weights.astype(np.int64)
        if int(np.abs(w).sum(axis=1).max(initial=0)) * int(np.abs(x).max(initial=0)) < EXACT_F64:
            return (x.astype(np.float64) @ w.T.astype(np.float64)).astype(np.int64)
        return x @ w.T


class Sparse:
    """Synapse list ``indices`` ``[2, nnz]`` (target, source), followed by a shift by ``exponent``."""

    def __init__(
        self, weights: NDArray[np.int32], indices: NDArray[np.int32], n_in: int, n_out: int, exponent: int = 0
    ) -> None:
        self.weights, self.indices, self.n_out, self.exponent = weights, indices, n_out, exponent
        order = np.argsort(indices[1], kind="stable")
        start = np.zeros(n_in + 1, np.int64)
        np.cumsum(np.bincount(indices[1], minlength=n_in), out=start[1:])
        self._by_source = drive.SparseWeights(start, indices[0][order], weights[order], _split(exponent)[1])

    def drive(self, window: Window, lag: int) -> Part:
        """See :class:`Synapses`."""
        n_steps, n_samples, _ = window.shape
        out = np.empty((n_steps * n_samples, self.n_out), np.int32)
        events, base = window.events(lag)
        drive.add_sparse(events, base, self._by_source, out)
        return _scaled(out.reshape(n_steps, n_samples, self.n_out), self.exponent)

    def exact(self, x: NDArray[np.int64]) -> NDArray[np.int64]:
        """See :class:`Synapses`."""
        out = np.zeros((self.n_out, len(x)), np.int64)
        np.add.at(out, self.indices[0], self.weights.astype(np.int64)[:, None] * x.T[self.indices[1]])
        return out.T


@dataclass(frozen=True)
class Geometry:
    """A convolution's shapes, ``(C, H, W)`` and (H, W), in torch's conventions."""

    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


class Conv:
    """Cross-correlation of channels-last maps, ``[B, H * W * C]`` in and out; the sum wraps to 24 bits.

    Binary spikes go through int8 weights where all of them have a common power of two that leaves 8 bits, else through
    float32. A float32 ``MAGIC + n`` carries n in its low bits, so the result is read as int32 without a conversion.
    """

    def __init__(self, weights: NDArray[np.int32], geometry: Geometry) -> None:
        # a dilation along an axis on which the kernel has one tap means nothing, and crashes oneDNN
        dilation = tuple(d if k > 1 else 1 for d, k in zip(geometry.dilation, weights.shape[2:], strict=True))
        self.weights, self.geometry = weights, replace(geometry, dilation=dilation)
        self._power = common_power(weights)
        self._small = weights >> self._power
        sums = np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(axis=1)
        self._bound = int(sums.max(initial=0))
        self._fits_magic = self._bound >> self._power < MAGIC_RANGE and self._bound < U_HALF

    def drive(self, window: Window, lag: int) -> Part:
        """See :class:`Synapses`."""
        n_steps, n_samples, _ = window.shape
        rows = window.rows(lag)
        if not window.graded and self._fits_magic:
            values = self._binary(rows).view(np.int32).reshape(n_steps, n_samples, -1)
            return Part(values, MAGIC_BITS, self._power)
        total = wrap_24(self.exact(rows.astype(np.int64))).astype(np.int32)
        return Part(total.reshape(n_steps, n_samples, -1))

    def exact(self, x: NDArray[np.int64]) -> NDArray[np.int64]:
        """See :class:`Synapses`."""
        import torch

        largest = self._bound * int(np.abs(x).max(initial=0))
        if largest >= EXACT_F64:
            raise OverflowError(f"a sum of {largest} is beyond what float64 holds exactly")
        kind = torch.float32 if largest < EXACT_F32 else torch.float64
        out = self._float(torch.from_numpy(x).to(kind), self.weights, None)
        return out.astype(np.int64)

    def _binary(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        import torch

        x = torch.from_numpy(rows)
        if self._packed is not None:
            return self._rows(self._packed(self._maps(x)))
        magic = torch.full((self.geometry.out_shape[0],), float(MAGIC))
        return self._float(x.float(), self._small, magic)

    @functools.cached_property
    def _packed(self) -> Int8Convolution | None:
        """The int8 operator where it can be used, exists in this PyTorch, and is exact on a sample of this layer."""
        import torch

        g = self.geometry
        fits = self._small.min(initial=0) >= INT8.min and self._small.max(initial=0) <= INT8.max
        if not fits or g.groups > 1 or g.dilation != (1, 1) or g.in_shape[0] < INT8_FROM_CHANNELS:
            return None
        sample = np.random.default_rng(0).integers(0, 2, (2, int(np.prod(g.in_shape))), np.uint8)
        try:
            operator = Int8Convolution(torch.from_numpy(self._small.astype(np.int8)), g)
            found = self._rows(operator(self._maps(torch.from_numpy(sample)))) - MAGIC
        except (AttributeError, RuntimeError, NotImplementedError):
            return None
        same = (found == self._float(torch.from_numpy(sample).double(), self._small, None)).all()
        return operator if same else None

    def _float(self, x: torch.Tensor, weights: NDArray[np.int32], bias: torch.Tensor | None) -> NDArray[Any]:
        import torch

        g = self.geometry
        with torch.no_grad():
            w = torch.from_numpy(weights).to(x.dtype).contiguous(memory_format=torch.channels_last)
            return self._rows(
                torch.nn.functional.conv2d(self._maps(x), w, bias, g.stride, g.padding, g.dilation, g.groups)
            )

    def _maps(self, rows: torch.Tensor) -> torch.Tensor:
        """``[B, H * W * C]`` as ``[B, C, H, W]`` without a copy.

        One channel is viewed in the default layout: torch 2.13 convolves wrongly where both layouts fit the strides.
        """
        c, h, w = self.geometry.in_shape
        return rows.view(-1, 1, h, w) if c == 1 else rows.view(-1, h, w, c).permute(0, 3, 1, 2)

    def _rows(self, maps: torch.Tensor) -> NDArray[Any]:
        """``[B, C, H, W]`` as ``[B, H * W * C]``, without a copy if the channels are last."""
        flat: NDArray[Any] = maps.permute(0, 2, 3, 1).reshape(len(maps), -1).numpy()
        return flat


class Int8Convolution:
    """oneDNN's uint8 x int8 convolution with exact int32 sums, given out as float32 ``MAGIC + sum``."""

    def __init__(self, weights: torch.Tensor, geometry: Geometry) -> None:
        import torch

        g, n = geometry, len(weights)
        self._ones, self._zeros = torch.ones(n), torch.zeros(n, dtype=torch.int32)
        self._bias = torch.full((n,), float(MAGIC))
        self._shape = [list(g.stride), list(g.padding), list(g.dilation), g.groups]
        shape = [32, *g.in_shape]
        self._weights = torch.ops.onednn.qconv_prepack(weights, self._ones, 1.0, 0, *self._shape, shape)

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """``[B, C, H, W]`` of 0 and 1, channels last."""
        import torch

        result: torch.Tensor = torch.ops.onednn.qconv2d_pointwise(
            maps, 1.0, 0, self._weights, self._ones, self._zeros, self._bias,
            *self._shape, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return result


@contextlib.contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Threads that PyTorch uses within one operation, for as long as the block lasts and for threads begun in it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def int8_product_works() -> bool:
    """Whether this PyTorch multiplies int8 matrices on this machine, and exactly."""
    import torch

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2, (33, 70), np.int8), rng.integers(-128, 128, (70, 19), np.int8)
    try:
        found = torch._int_mm(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool((found == a.astype(np.int64) @ b.astype(np.int64)).all())
