"""A program's connection on tensors: exact integer sums in floating point, differentiable in the source."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmtool.compiler.program import Connection
from nmtool.errors import BackendUnavailableError
from nmtool.fixedpoint.ops import U_HALF
from nmtool.twin.fixed import INT32_HALF, wrap

EXACT_FLOAT32 = 1 << 24
EXACT_FLOAT64 = 1 << 53
EXACT_TF32 = 1 << 11


def straight_through(x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    """``f(x)`` with the derivative of the identity; exact where ``x`` and ``f(x)`` are multiples of a power of two."""
    fixed = x.detach()
    return x + (f(fixed) - fixed)


def exact_sum(where: str, bound: int) -> int:
    """``bound``, if float64 holds every integer up to it.

    Raises:
        BackendUnavailableError: NM304 if not.
    """
    if bound >= EXACT_FLOAT64:
        found = f"sums may reach {bound:.3g}, the differentiable twin is exact below 2**53"
        raise BackendUnavailableError(
            "NM304", where, found, "Run this program on the simulator, without gradients"
        )
    return bound


class Synapses(nn.Module):
    """One connection.

    Args:
        connection: integer weights.
        sizes: number of targets and of sources.
        max_message: largest magnitude of a source's value; 1 for spikes.
        on_chip: apply the shift by ``weight_exp`` and the accumulator's wraps; a host's sums are plain int64.

    Attributes:
        bound: largest magnitude that can come out.
        dtype: of the sums; float32 where it is exact. Convolutions on a GPU take float64 in any case, because fast
            float32 algorithms there (Winograd, FFT) round even where the plain sum would not.

    Raises:
        BackendUnavailableError: NM304 if the sums could leave what float64 holds exactly.
    """

    indices: Tensor

    def __init__(
        self, connection: Connection, sizes: tuple[int, int], max_message: int = 1, on_chip: bool = True
    ) -> None:
        super().__init__()
        c = self.connection = connection
        self.n_out, self.n_in = sizes
        self.on_chip, self.binary = on_chip, on_chip and not c.message_bits and max_message > 1
        self.sum_bound = _largest_row(c, self.n_out) * (1 if self.binary else max_message)
        self.bound = exact_sum(c.name, self.sum_bound << max(c.weight_exp, 0))
        small = self.bound < EXACT_FLOAT32 and int(np.abs(c.weights).max(initial=0)) < EXACT_TF32
        self.dtype = torch.float32 if small else torch.float64
        self.delays = tuple(int(d) for d in np.unique(c.delay_steps))
        for d in self.delays:
            kept = np.where(np.broadcast_to(c.delay_steps == d, c.weights.shape), c.weights, 0)
            self.register_buffer(f"weights_{d}", torch.from_numpy(kept.astype(np.int32)), persistent=False)
        indices = None if c.indices is None else torch.from_numpy(c.indices.astype(np.int64))
        self.register_buffer("indices", indices, persistent=False)

    def arrive(self, source: Tensor, delay: int) -> Tensor:
        """What the synapses of one delay make of ``[T, B, n_in]``: ``[T, B, n_out]``, not yet shifted in time."""
        if self.binary:
            source = straight_through(source, lambda s: (s != 0).to(s.dtype))
        dtype = torch.float64 if source.is_cuda and self.connection.kind == "conv" else self.dtype
        acc = self._sum(getattr(self, f"weights_{delay}").to(dtype), source.to(dtype))
        return self._shifted(acc) if self.on_chip else acc

    def forward(self, source: Tensor, n_steps: int) -> Tensor:
        """Everything that arrives, ``[n_steps, B, n_out]``.

        Args:
            source: ``[T, B, n_in]``, or ``[1, B, n_in]`` for a value that stays.
            n_steps: T.
        """
        total = source.new_zeros(1, source.shape[1], self.n_out).expand(n_steps, -1, -1)
        for i, d in enumerate(self.delays):
            late = delayed(self.arrive(source, d), d, n_steps)
            total = late if i == 0 else total + late
        return total

    def _sum(self, weights: Tensor, source: Tensor) -> Tensor:
        c = self.connection
        lead = source.shape[:-1]
        if c.kind == "dense":
            return F.linear(source, weights)
        if c.kind == "sparse":
            matrix = torch.sparse_coo_tensor(
                self.indices, weights, (self.n_out, self.n_in), check_invariants=False
            )
            return torch.sparse.mm(matrix, source.reshape(-1, self.n_in).T).T.reshape(*lead, self.n_out)
        out = F.conv2d(
            source.reshape(-1, *(c.in_shape or ())), weights, None, c.stride, c.padding, c.dilation, c.groups
        )
        return out.reshape(*lead, self.n_out)

    def _shifted(self, acc: Tensor) -> Tensor:
        """The chip's accumulator and its shift. A left shift needs no wrap here: the current wraps the same bits."""
        c = self.connection
        if c.kind == "conv":
            return straight_through(acc, lambda a: wrap(a, U_HALF)) if self.sum_bound >= U_HALF else acc
        if c.weight_exp >= 0:
            return acc * 2.0**c.weight_exp
        if self.sum_bound >= INT32_HALF:
            acc = straight_through(acc, lambda a: wrap(a, INT32_HALF))
        return straight_through(acc * 2.0**c.weight_exp, torch.floor)


def delayed(x: Tensor, delay: int, n_steps: int) -> Tensor:
    """``[T, B, N]`` (or one step that stays) shifted to later by ``delay`` steps, zeros before, ``n_steps`` long."""
    if x.shape[0] == 1:
        x = x.expand(n_steps, -1, -1)
    if delay == 0:
        return x
    late = x[: max(n_steps - delay, 0)]
    return torch.cat([late.new_zeros(min(delay, n_steps), *x.shape[1:]), late])


def _largest_row(c: Connection, n_out: int) -> int:
    """Largest sum of absolute weights into one target."""
    w = np.abs(c.weights.astype(np.int64))
    if c.kind == "sparse":
        rows = np.zeros(n_out, np.int64)
        if c.indices is not None:
            np.add.at(rows, c.indices[0], w)
    else:
        rows = w.reshape(w.shape[0], -1).sum(axis=1)
    return int(rows.max(initial=0))
