"""Shapes without batch and time, worked out along the edges; NIR's own inference is wrong for some convolutions.

Wrong there (nir 1.0.8): non-square kernels, groups, unchecked biases. See :func:`out_shape` for what holds here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nir
import numpy as np

from nmtool.errors import Diagnostic

Shape = tuple[int, ...]
MAX_ELEMENTS = 1 << 26


class ShapeError(Exception):
    """What does not fit, as a sentence without the node's name."""


def out_shape(op: Any, shape: Shape) -> Shape:
    """Shape of what a node gives for an input of ``shape``.

    Args:
        op: a NIR node as :mod:`nmtool.ir.parse` builds it.
        shape: of one sample and one step.

    Raises:
        ShapeError: says what was found and what is expected.
    """
    kind = type(op).__name__
    rule = _RULES.get(kind, _elementwise)
    result = rule(op, shape)
    if math.prod(result) > MAX_ELEMENTS:
        raise ShapeError(f"gives shape {list(result)}, more than {MAX_ELEMENTS} values")
    return result


def expected_in(op: Any) -> Shape | None:
    """The only input shape that a node takes, where its parameters decide it."""
    kind = type(op).__name__
    if kind in ("Linear", "Affine"):
        return (*op.weight.shape[:-2], op.weight.shape[-1])
    if kind in ("Input", "Output"):
        return declared(op)
    own = parameter_shape(op)
    return own if own is not None and math.prod(own) != 1 else None


def declared(op: Any) -> Shape:
    """Shape written in an Input or Output node."""
    kind = "input_type" if type(op).__name__ == "Input" else "output_type"
    return tuple(int(n) for n in next(iter(getattr(op, kind).values())))


def parameter_shape(op: Any) -> Shape | None:
    """Shape of the parameters of a node that works element by element, else None."""
    for name in ("r", "scale", "delay", "threshold"):
        if hasattr(op, name):
            return tuple(np.shape(getattr(op, name)))
    return None


def flattened(op: Any, shape: Shape, after: Sequence[Any]) -> Shape:
    """Shape after a Flatten. NIR shapes have no batch axis, but some exporters count one.

    ``start_dim`` 1 is taken as 0 where only that fits every node that follows.

    Raises:
        ShapeError: axes outside the input's shape.
    """
    plain = _flatten(op, shape)
    whole = (math.prod(shape),)
    wanted = [expected_in(node) for node in after]
    if op.start_dim == 1 and plain != whole and wanted and all(w == whole for w in wanted):
        return whole
    return plain


def infer(
    order: Sequence[str], nodes: Mapping[str, Any], sources: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Shape], dict[str, Shape], list[Diagnostic]]:
    """Input and output shape of every node whose predecessors are sound.

    Args:
        order: topological, without feedback; a node that only feedback reaches is worked out later.
        nodes: by name.
        sources: predecessors by name, feedback included.

    Returns:
        input shapes, output shapes, findings (NM104, and NM151 for a reinterpreted Flatten).
    """
    ins: dict[str, Shape] = {}
    outs: dict[str, Shape] = {}
    found: dict[str, Diagnostic] = {}
    followers: dict[str, list[Any]] = {}
    for name, before in sources.items():
        for b in before:
            followers.setdefault(b, []).append(nodes[name])
    todo = list(order)
    while todo:
        waiting = []
        for name in todo:
            op, known = nodes[name], [p for p in sources[name] if p in outs]
            if not known and not isinstance(op, nir.Input):
                waiting.append(name)
                continue
            ins[name] = outs[known[0]] if known else declared(op)
            try:
                outs[name], note = _one(name, op, ins[name], followers.get(name, ()))
            except ShapeError as e:
                note = _misfit(name, op, str(e), f"Look at what {' and '.join(known)} gives")
            if note:
                found[name] = note
        if len(waiting) == len(todo):
            break
        todo = waiting
    for name in (n for n in order if n in outs):
        given = {p: outs[p] for p in sources[name] if p in outs}
        if any(shape != ins[name] for shape in given.values()):
            listed = ", ".join(f"{list(shape)} from {p}" for p, shape in given.items())
            message = f"takes {list(ins[name])}, gets {listed}; inputs are added up and must be alike"
            found.setdefault(name, _misfit(name, nodes[name], message))
    return ins, outs, [found[n] for n in order if n in found]


def _one(name: str, op: Any, shape: Shape, after: Sequence[Any]) -> tuple[Shape, Diagnostic | None]:
    if not isinstance(op, nir.Flatten):
        return out_shape(op, shape), None
    plain, result = _flatten(op, shape), flattened(op, shape, after)
    return result, None if result == plain else _batch_axis(name, shape)


def _misfit(name: str, op: Any, message: str, hint: str = "") -> Diagnostic:
    return Diagnostic("NM104", f"node {name} ({type(op).__name__})", message, hint)


def _batch_axis(name: str, shape: Shape) -> Diagnostic:
    return Diagnostic(
        "NM151",
        f"node {name} (Flatten)",
        f"start_dim 1 on shape {list(shape)} keeps an axis, but what follows takes all {math.prod(shape)} values; "
        "it seems to count a batch axis and is read as start_dim 0",
        "Write start_dim 0: NIR shapes have no batch axis",
        "warning",
    )


def _elementwise(op: Any, shape: Shape) -> Shape:
    own = parameter_shape(op)
    if own is not None and own != shape and math.prod(own) != 1:
        raise ShapeError(f"has parameters of shape {list(own)}, its input has shape {list(shape)}")
    return shape


def _output(op: Any, shape: Shape) -> Shape:
    if declared(op) != shape:
        raise ShapeError(f"declares shape {list(declared(op))}, gets {list(shape)}")
    return shape


def _linear(op: Any, shape: Shape) -> Shape:
    w = op.weight.shape
    if shape != (*w[:-2], w[-1]):
        raise ShapeError(f"weight {list(w)} takes inputs of shape {[*w[:-2], w[-1]]}, gets {list(shape)}")
    result = (*w[:-2], w[-2])
    bias = getattr(op, "bias", None)
    if bias is not None and bias.shape != result:
        raise ShapeError(f"bias has shape {list(bias.shape)}, must be {list(result)}")
    return result


def _window(name: str, size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1, as PyTorch."""
    steps = size + 2 * padding - dilation * (kernel - 1) - 1
    if steps < 0:
        raise ShapeError(
            f"window of {dilation * (kernel - 1) + 1} is wider than the {size + 2 * padding} of {name}"
        )
    return steps // stride + 1


def _conv(op: Any, shape: Shape) -> Shape:
    w = op.weight.shape
    axes = ("height", "width") if len(w) == 4 else ("length",)
    c_in = w[1] * op.groups
    if len(shape) != len(w) - 1 or shape[0] != c_in:
        raise ShapeError(
            f"weight {list(w)} with groups {op.groups} takes [{c_in}, {', '.join(axes)}], gets {list(shape)}"
        )
    stated = np.atleast_1d(op.input_shape).tolist() if op.input_shape is not None else list(shape[1:])
    if stated != list(shape[1:]):
        raise ShapeError(f"says input_shape {stated}, gets {list(shape[1:])}")
    stride, padding, dilation = (np.atleast_1d(v).tolist() for v in (op.stride, op.padding, op.dilation))
    sizes = (
        _window(axis, shape[1 + i], w[2 + i], stride[i], padding[i], dilation[i])
        for i, axis in enumerate(axes)
    )
    return (w[0], *sizes)


def _pool(op: Any, shape: Shape) -> Shape:
    if len(shape) != 3:
        raise ShapeError(f"takes [channels, height, width], gets {list(shape)}")
    k, stride, padding = (np.atleast_1d(v).tolist() for v in (op.kernel_size, op.stride, op.padding))
    sizes = (
        _window(axis, shape[1 + i], k[i], stride[i], padding[i]) for i, axis in enumerate(("height", "width"))
    )
    return (shape[0], *sizes)


def _flatten(op: Any, shape: Shape) -> Shape:
    n = len(shape)
    start, end = (d + n if d < 0 else d for d in (op.start_dim, op.end_dim))
    if not 0 <= start <= end < n:
        raise ShapeError(f"flattens axes {op.start_dim} to {op.end_dim} of shape {list(shape)}")
    return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])


_RULES: dict[str, Callable[[Any, Shape], Shape]] = {
    "Output": _output,
    "Linear": _linear,
    "Affine": _linear,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "Flatten": _flatten,
}
