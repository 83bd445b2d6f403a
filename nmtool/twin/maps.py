"""Nodes without memory on tensors: ``[T, B, *in_shape]`` to ``[T, B, *out_shape]``, differentiable."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nmtool.errors import ModelError
from nmtool.ir.graph import Node
from nmtool.ir.resolve import delay_steps
from nmtool.twin.synapses import delayed


class Map(nn.Module):
    """What a node without memory computes.

    Args:
        node: any map of :mod:`nmtool.ir.maps`.
        sums: type in which weighted sums are formed, before they are rounded to that of the signal. In float64 neither
            batch size nor library decides about a spike, as in the float engine.

    Raises:
        ModelError: NM102 for a node that is no map.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, node: Node, sums: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.node, self.sums = node, sums
        kind = type(node.op).__name__
        if kind not in _MAPS:
            raise ModelError("NM102", f"node {node.name}", f"{kind} is no map without memory")
        self.rule = _MAPS[kind]
        for name, source in (("weight", "scale" if kind == "Scale" else "weight"), ("bias", "bias")):
            value = np.asarray(getattr(node.op, source, 0.0), np.float64)
            self.register_buffer(name, torch.from_numpy(value.copy()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Every step and sample alike."""
        lead = x.shape[:2]
        y = self.rule(self, x.reshape(-1, *self.node.in_shape))
        return y.reshape(*lead, *self.node.out_shape)

    def weighted(self, x: Tensor, f: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """``f(x, weight, bias)`` in the type of sums, rounded once to that of ``x``."""
        return f(x.to(self.sums), self.weight.to(self.sums), self.bias.to(self.sums)).to(x.dtype)


class Delay(nn.Module):
    """``y[t] = x[t - d]`` with d steps per element, zeros before the first."""

    steps: Tensor

    def __init__(self, node: Node, dt_s: float) -> None:
        super().__init__()
        d = np.broadcast_to(delay_steps(node.op, dt_s), node.out_shape)
        self.register_buffer("steps", torch.from_numpy(d.copy()), persistent=False)
        self.lengths = tuple(int(n) for n in np.unique(d))

    def forward(self, x: Tensor, n_steps: int) -> Tensor:
        """``[T, B, *shape]`` (or one step that stays) to ``[n_steps, B, *shape]``."""
        return sum(
            (delayed(x * (self.steps == d), d, n_steps) for d in self.lengths[1:]), self._first(x, n_steps)
        )

    def _first(self, x: Tensor, n_steps: int) -> Tensor:
        return delayed(x * (self.steps == self.lengths[0]), self.lengths[0], n_steps)

    def at(self, past: list[Tensor]) -> Tensor:
        """The output now, ``[1, B, *shape]``, of every input up to now."""
        shares = [past[-1 - d] * (self.steps == d) for d in self.lengths if d < len(past)]
        return sum(shares[1:], shares[0]) if shares else torch.zeros_like(past[0])


def _linear(m: Map, x: Tensor) -> Tensor:
    if m.weight.ndim == 2:
        return m.weighted(x, lambda a, w, b: a @ w.T + b)
    return m.weighted(x, lambda a, w, b: (w @ a[..., None])[..., 0] + b)


def _conv1d(m: Map, x: Tensor) -> Tensor:
    op = m.node.op
    return m.weighted(x, lambda a, w, b: F.conv1d(a, w, b, op.stride, op.padding, op.dilation, op.groups))


def _conv2d(m: Map, x: Tensor) -> Tensor:
    op = m.node.op
    how = _pair(op.stride), _pair(op.padding), _pair(op.dilation)
    return m.weighted(x, lambda a, w, b: F.conv2d(a, w, b, *how, op.groups))


def _pool(m: Map, x: Tensor) -> Tensor:
    return _average(m, x) * math.prod(_pair(m.node.op.kernel_size))


def _average(m: Map, x: Tensor) -> Tensor:
    op = m.node.op
    return F.avg_pool2d(x, _pair(op.kernel_size), _pair(op.stride), _pair(op.padding), count_include_pad=True)


def _pair(value: Any) -> tuple[int, int]:
    a, b = np.atleast_1d(value).tolist()
    return a, b


_MAPS: dict[str, Callable[[Map, Tensor], Tensor]] = {
    "Output": lambda m, x: x,
    "Flatten": lambda m, x: x.flatten(1),
    "Scale": lambda m, x: x * m.weight.to(x.dtype),
    "Linear": _linear,
    "Affine": _linear,
    "Conv1d": _conv1d,
    "Conv2d": _conv2d,
    "SumPool2d": _pool,
    "AvgPool2d": _average,
}
