"""Nodes without memory as functions of one step's values, ``[B, *in_shape]`` to ``[B, *out_shape]``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nmtool.errors import ModelError
from nmtool.ir.graph import Node
from nmtool.ir.kernels import Floats, convolve, pool_sum

Map = Callable[[Floats], Floats]


def as_map(node: Node) -> Map:
    """What a node without memory computes; weights are converted once, the result has the type of its argument.

    Raises:
        ModelError: NM102 for a node that is no map.
    """
    build = _MAPS.get(type(node.op).__name__)
    if build is None:
        raise ModelError("NM102", f"node {node.name}", f"{type(node.op).__name__} is no map without memory")
    return build(node)


def _same(node: Node) -> Map:
    return lambda x: x


def _flatten(node: Node) -> Map:
    return lambda x: x.reshape(len(x), *node.out_shape)


def _scale(node: Node) -> Map:
    scale = np.asarray(node.op.scale, np.float64)
    return lambda x: x * scale.astype(x.dtype)


def _linear(node: Node) -> Map:
    weight = np.asarray(node.op.weight, np.float64)
    bias = np.asarray(getattr(node.op, "bias", 0.0), np.float64)
    if weight.ndim == 2:
        return lambda x: (x.astype(np.float64) @ weight.T + bias).astype(x.dtype)
    return lambda x: (np.matmul(weight, x.astype(np.float64)[..., None])[..., 0] + bias).astype(x.dtype)


def _conv1d(node: Node) -> Map:
    op = node.op
    weight, bias = np.asarray(op.weight, np.float64)[:, :, None], np.asarray(op.bias, np.float64)
    how = ((1, op.stride), (0, op.padding), (1, op.dilation))
    return lambda x: convolve(x[:, :, None], weight, bias, how, op.groups)[:, :, 0]


def _conv2d(node: Node) -> Map:
    op = node.op
    weight, bias = np.asarray(op.weight, np.float64), np.asarray(op.bias, np.float64)
    how = (_pair(op.stride), _pair(op.padding), _pair(op.dilation))
    return lambda x: convolve(x, weight, bias, how, op.groups)


def _pool(node: Node) -> Map:
    op, size = node.op, _pair(node.op.kernel_size)
    return lambda x: pool_sum(x, size, _pair(op.stride), _pair(op.padding))


def _average(node: Node) -> Map:
    total, n = _pool(node), math.prod(_pair(node.op.kernel_size))
    return lambda x: total(x) / x.dtype.type(n)


def _pair(value: Any) -> tuple[int, int]:
    a, b = np.atleast_1d(value).tolist()
    return a, b


_MAPS: dict[str, Callable[[Node], Map]] = {
    "Input": _same,
    "Output": _same,
    "Flatten": _flatten,
    "Scale": _scale,
    "Linear": _linear,
    "Affine": _linear,
    "Conv1d": _conv1d,
    "Conv2d": _conv2d,
    "SumPool2d": _pool,
    "AvgPool2d": _average,
}
