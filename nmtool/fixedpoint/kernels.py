"""Matrix products and convolutions by PyTorch, as far as they are exact on integers; imported when first used."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

EXACT_F32 = 1 << 24
EXACT_F64 = 1 << 53

MAGIC = 3 << 22
"""1.5 * 2**23: a float32 ``MAGIC + n`` with ``|n| < MAGIC_RANGE`` holds n in its lowest bits."""

MAGIC_RANGE = 1 << 22
MAGIC_BITS = int(np.float32(MAGIC).view(np.int32))

INT8_FROM_CHANNELS = 8
"""Fewest input channels for oneDNN's int8 convolution: with fewer, or with groups, it went wrong or crashed."""


@dataclass(frozen=True)
class Geometry:
    """A convolution's shapes, ``(C, H, W)`` and (H, W), in torch's conventions."""

    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@contextlib.contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Threads that PyTorch uses within one operation, while the block lasts and in threads that begin in it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Int8Product:
    """``spikes @ matrix`` with int32 sums, for 0/1 rows and an int8 matrix ``[n_in, n_out]``.

    No dimension may be 1: NumPy leaves its stride open, and torch 2.13 then multiplies wrongly.
    """

    def __init__(self, matrix: NDArray[np.int8]) -> None:
        import torch

        self._matrix = torch.from_numpy(matrix)

    def __call__(self, rows: NDArray[np.uint8]) -> NDArray[np.int32]:
        """``[R, n_in]`` to ``[R, n_out]``."""
        import torch

        product: NDArray[np.int32] = torch._int_mm(torch.from_numpy(rows.view(np.int8)), self._matrix).numpy()
        return product


@functools.cache
def int8_product_works() -> bool:
    """Whether this PyTorch multiplies int8 matrices on this machine, and exactly."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2, (33, 70), np.uint8), rng.integers(-128, 128, (70, 19), np.int8)
    try:
        found = Int8Product(b)(a)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool((found == a.astype(np.int64) @ b.astype(np.int64)).all())


def convolved(
    rows: NDArray[Any], weights: NDArray[np.int32], geometry: Geometry, dtype: str, bias: int | None = None
) -> NDArray[Any]:
    """Cross-correlation in floating point, ``[B, H * W * C]`` in and out.

    Args:
        rows: integers.
        weights: ``[C_out, C_in / groups, kH, kW]``.
        geometry: a dilation along an axis on which the kernel has one tap must be 1 (else oneDNN crashes).
        dtype: ``float32`` or ``float64``; the caller has proven that every partial sum is exact in it.
        bias: added to every sum, inside the same bound.
    """
    import torch

    g, kind = geometry, getattr(torch, dtype)
    with torch.no_grad():
        w = torch.from_numpy(weights).to(kind).contiguous(memory_format=torch.channels_last)
        added = None if bias is None else torch.full((len(weights),), float(bias), dtype=kind)
        x = _maps(torch.from_numpy(rows).to(kind), g)
        return _rows(torch.nn.functional.conv2d(x, w, added, g.stride, g.padding, g.dilation, g.groups))


class Int8Convolution:
    """oneDNN's uint8 x int8 convolution with exact int32 sums, given out as float32 ``MAGIC + sum``."""

    def __init__(self, weights: NDArray[np.int8], geometry: Geometry) -> None:
        import torch

        g, n = geometry, len(weights)
        self._geometry = g
        self._ones, self._zeros = torch.ones(n), torch.zeros(n, dtype=torch.int32)
        self._bias = torch.full((n,), float(MAGIC))
        self._shape = [list(g.stride), list(g.padding), list(g.dilation), g.groups]
        self._weights = torch.ops.onednn.qconv_prepack(
            torch.from_numpy(weights), self._ones, 1.0, 0, *self._shape, [32, *g.in_shape]
        )

    def __call__(self, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``[B, H * W * C]`` of 0 and 1 to ``[B, H * W * C]``."""
        import torch

        sums = torch.ops.onednn.qconv2d_pointwise(
            _maps(torch.from_numpy(rows), self._geometry), 1.0, 0, self._weights, self._ones, self._zeros, self._bias,
            *self._shape, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return _rows(sums)


def int8_convolution(weights: NDArray[np.int32], geometry: Geometry) -> Int8Convolution | None:
    """The int8 operator where the layer allows it, this PyTorch has it, and it is exact on a sample of the layer."""
    g, limits = geometry, np.iinfo(np.int8)
    fits = weights.min(initial=0) >= limits.min and weights.max(initial=0) <= limits.max
    if not fits or g.groups > 1 or g.dilation != (1, 1) or g.in_shape[0] < INT8_FROM_CHANNELS:
        return None
    sample = np.random.default_rng(0).integers(0, 2, (2, int(np.prod(g.in_shape))), np.uint8)
    try:
        operator = Int8Convolution(weights.astype(np.int8), g)
        found = operator(sample) - MAGIC
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    return operator if (found == convolved(sample, weights, g, "float64")).all() else None


def _maps(rows: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """``[B, H * W * C]`` as ``[B, C, H, W]`` without a copy.

    One channel is viewed in the default layout: torch 2.13 convolves wrongly where the strides fit both layouts.
    """
    c, h, w = geometry.in_shape
    return rows.view(-1, 1, h, w) if c == 1 else rows.view(-1, h, w, c).permute(0, 3, 1, 2)


def _rows(maps: torch.Tensor) -> NDArray[Any]:
    """``[B, C, H, W]`` as ``[B, H * W * C]``, without a copy if the channels are last."""
    flat: NDArray[Any] = maps.permute(0, 2, 3, 1).reshape(len(maps), -1).numpy()
    return flat
