"""How one more linear node is folded into a link: reshape, delay, scale, linear, convolution, pooling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from nmtool.compiler.link import MAX_SYNAPSES, Link, Pair, too_many
from nmtool.errors import TargetError
from nmtool.ir.graph import Node


def extend(link: Link, node: Node, dt_s: float) -> Link:
    """The link with one more linear node behind it.

    Args:
        link: the map so far.
        node: what follows.
        dt_s: seconds per step, for delays.

    Raises:
        TargetError: NM205 for a node that cannot be folded, NM210 for a delay that is no multiple of the step.
    """
    kind = type(node.op).__name__
    step = _STEPS.get(kind)
    if step is None:
        raise TargetError(
            "NM205",
            node.name,
            f"{kind} between two populations cannot be compiled",
            f"Allowed there: {', '.join(sorted(_STEPS))}",
        )
    return replace(step(link, node, dt_s), out_shape=node.out_shape)


def _reshape(link: Link, node: Node, dt_s: float) -> Link:
    return link


def _same_delays(link: Link, node: Node) -> None:
    """Delays per neuron in the middle of a chain belong to neurons that no longer exist once it is folded."""
    if link.delay_steps.ndim == 2 and link.delay_steps.shape[0] != 1:
        raise TargetError(
            "NM205",
            node.name,
            "follows delays that differ between neurons, and a chain of linear layers is one stage on the chip",
            "Use one delay for all of them, or put neurons between the layers",
        )


def _delay(link: Link, node: Node, dt_s: float) -> Link:
    steps = np.asarray(node.op.delay, np.float64) / dt_s
    whole = np.rint(steps)
    if np.abs(steps - whole).max(initial=0) > 1e-3 or (whole < 0).any():
        raise TargetError(
            "NM210",
            node.name,
            f"a delay of {float(np.max(node.op.delay))} s is not a multiple of the step {dt_s} s",
            "Choose another step (--read dt_s=...) or another delay",
        )
    if np.ptp(whole) == 0:
        return replace(link, delay_steps=(link.delay_steps + np.int32(whole.flat[0])).astype(np.int32))
    if link.kind == "identity":
        return replace(link, delay_steps=(link.delay_steps + whole.reshape(1, -1)).astype(np.int32))
    return replace(link, delay_steps=(link.delay_steps + whole.reshape(-1, 1)).astype(np.int32))


def _scale(link: Link, node: Node, dt_s: float) -> Link:
    s = np.asarray(node.op.scale, np.float64)
    if np.ptp(s) == 0 and s.flat[0] > 0:
        return replace(link, factor=link.factor * float(s.flat[0]))
    return _composed(link, sp.diags(s.ravel()))


def _linear(link: Link, node: Node, dt_s: float) -> Link:
    _same_delays(link, node)
    w = np.asarray(node.op.weight, np.float64)
    if w.ndim != 2 or w.shape[1] != int(np.prod(link.out_shape)):
        raise TargetError(
            "NM205",
            node.name,
            f"weight of shape {w.shape} on an input of shape {link.out_shape} cannot be compiled",
            "Flatten the input first",
        )
    if link.kind == "identity":
        return replace(link, kind="dense", base=w, node=node.name)
    if link.pooled:
        gather = replace(link, factor=1.0).matrix()
        return replace(
            link,
            kind="dense",
            base=w,
            node=node.name,
            pooled=False,
            indices=None,
            expand=lambda v: np.asarray((gather.T @ v.T).T, v.dtype),
        )
    return _composed(link, sp.csr_matrix(w))


def _pair(value: Any) -> Pair:
    v = np.atleast_1d(np.asarray(value)).astype(int)
    return (int(v[0]), int(v[-1]))


def geometry(node: Node) -> dict[str, Any]:
    """Stride, padding, dilation and groups of a convolution or pooling node as 2-D pairs (1-D has height 1)."""
    op, one_d = node.op, type(node.op).__name__ == "Conv1d"
    pair = (
        (lambda v, fill: (fill, int(np.atleast_1d(np.asarray(v))[0])))
        if one_d
        else (lambda v, fill: _pair(v))
    )
    dilation = pair(getattr(op, "dilation", 1), 1)
    padding = getattr(op, "padding", 0)
    if isinstance(padding, str):
        k = np.shape(op.weight)[2:]
        k2 = (1, k[0]) if one_d else k
        padding = tuple(dilation[i] * (k2[i] - 1) // 2 for i in (0, 1)) if padding == "same" else (0, 0)
        return {
            "stride": pair(op.stride, 1),
            "padding": padding,
            "dilation": dilation,
            "groups": int(op.groups),
        }
    return {
        "stride": pair(op.stride, 1),
        "padding": pair(padding, 0),
        "dilation": dilation,
        "groups": int(getattr(op, "groups", 1)),
    }


def _chw(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2])


def _conv(link: Link, node: Node, dt_s: float) -> Link:
    _same_delays(link, node)
    w = np.asarray(node.op.weight, np.float64)
    w = w[:, :, None, :] if w.ndim == 3 else w
    here = Link(
        link.source,
        link.target,
        "conv",
        w,
        node=node.name,
        path=link.path,
        in_shape=_chw(node.in_shape),
        map_shape=_chw(node.out_shape),
        **geometry(node),
    )
    if link.kind == "identity":
        return replace(here, factor=link.factor, delay_steps=link.delay_steps)
    if link.pooled and link.kind == "conv" and here.dilation == (1, 1):
        (kh, kw), ones = link.stride, np.ones(link.stride)
        return replace(
            here,
            factor=link.factor,
            delay_steps=link.delay_steps,
            in_shape=link.in_shape,
            stride=(here.stride[0] * kh, here.stride[1] * kw),
            padding=(here.padding[0] * kh, here.padding[1] * kw),
            expand=lambda v: np.kron(v, ones.astype(v.dtype)),
        )
    return _composed(link, here.matrix())


def _pool(link: Link, node: Node, dt_s: float) -> Link:
    _same_delays(link, node)
    k = _pair(node.op.kernel_size)
    shape = _chw(link.out_shape)
    average = type(node.op).__name__ == "AvgPool2d"
    here = Link(
        link.source,
        link.target,
        "conv",
        np.ones((shape[0], 1, *k)),
        factor=1 / (k[0] * k[1]) if average else 1.0,
        path=link.path,
        in_shape=shape,
        map_shape=_chw(node.out_shape),
        **{**geometry(node), "groups": shape[0]},
    )
    if link.kind != "identity":
        return _composed(link, here.matrix())
    tiles = here.stride == k and here.padding == (0, 0) and shape[1] % k[0] == 0 and shape[2] % k[1] == 0
    return replace(here, factor=here.factor * link.factor, delay_steps=link.delay_steps, pooled=tiles)


def _composed(link: Link, after: Any) -> Link:
    """Multiply out; the result is sparse, or dense where at least a quarter of it is filled."""
    m = (sp.csr_matrix(after) @ link.matrix()).tocsr()
    m.sort_indices()
    if m.nnz > MAX_SYNAPSES:
        raise too_many(link)
    plain = replace(
        link,
        factor=1.0,
        expand=lambda w: w,
        node=None,
        pooled=False,
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        groups=1,
    )
    if m.nnz * 4 >= m.shape[0] * m.shape[1]:
        return replace(plain, kind="dense", base=m.toarray(), indices=None)
    coo = m.tocoo()
    return replace(plain, kind="sparse", base=coo.data, indices=np.stack([coo.row, coo.col]).astype(np.int32))


_STEPS: dict[str, Callable[[Link, Node, float], Link]] = {
    "Flatten": _reshape,
    "Output": _reshape,
    "Delay": _delay,
    "Scale": _scale,
    "Linear": _linear,
    "Affine": _linear,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
}
