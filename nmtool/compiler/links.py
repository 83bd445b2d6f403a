"""Chains of linear nodes between two populations, folded into one link each.

A synapse stage costs a step on the chip, so everything linear between two neuron nodes becomes *one* stage: pooling
without overlap is folded into the next kernel, other compositions are multiplied out. The integers are chosen for
the graph's own weights (``base``) and expanded afterwards, so that they can be written back into the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from nmtool.errors import TargetError
from nmtool.ir.graph import Graph, Node

F64 = NDArray[np.float64]
Pair = tuple[int, int]
MAX_SYNAPSES = 50_000_000


@dataclass(frozen=True)
class Link:
    """One linear map from a population (or the input) to a population, in real numbers.

    Attributes:
        base: weights to quantise: ``dense`` ``[n_out, n_in]``, ``conv`` ``[C_out, C_in / g, kH, kW]``,
            ``sparse`` ``[nnz]``.
        factor: the map is ``factor * expand(base)``, with non-negative integer-preserving ``expand``.
        expand: from ``base`` (real or integer) to the connection's weights.
        node: the graph node whose weights ``base`` is, or None after a composition.
        delay_steps: NIR delays on the way, own time; scalar or ``[n_out, n_in]``.
        path: names of the nodes on the way.
    """

    source: str
    target: str
    kind: Literal["identity", "dense", "sparse", "conv"]
    base: F64
    factor: float = 1.0
    expand: Callable[[NDArray[Any]], NDArray[Any]] = lambda w: w
    node: str | None = None
    delay_steps: NDArray[np.int32] = field(default_factory=lambda: np.zeros((), np.int32))
    path: tuple[str, ...] = ()
    indices: NDArray[np.int32] | None = None
    in_shape: tuple[int, ...] = ()
    out_shape: tuple[int, ...] = ()
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    pooled: bool = False

    @property
    def weights(self) -> F64:
        """Real weights of the connection."""
        w: F64 = self.factor * self.expand(self.base)
        return w

    def matrix(self) -> sp.csr_matrix:
        """The map as a sparse ``[n_out, n_in]`` matrix."""
        n_out, n_in = int(np.prod(self.out_shape)), int(np.prod(self.in_shape))
        if self.kind == "identity":
            return sp.identity(n_in, format="csr") * self.factor
        if self.kind == "dense":
            return sp.csr_matrix(self.weights)
        if self.kind == "sparse":
            indices = self.indices if self.indices is not None else np.zeros((2, 0), np.int32)
            return sp.csr_matrix((self.weights, (indices[0], indices[1])), shape=(n_out, n_in))
        return conv_matrix(self)


def conv_matrix(link: Link) -> sp.csr_matrix:
    """Every synapse of a convolution, border-exact.

    Raises:
        TargetError: NM205 if that were more than 50 million.
    """
    w = link.weights
    _, h_in, w_in = link.in_shape
    c_out, h_out, w_out = link.out_shape
    _, per_group, kh, kw = w.shape
    if c_out * h_out * w_out * per_group * kh * kw > MAX_SYNAPSES:
        raise TargetError(
            "NM205",
            " > ".join(link.path),
            "this composition of linear layers has more than 50 million synapses",
            "Put a neuron between the layers",
        )
    co, ci, ky, kx = (a.ravel() for a in np.indices(w.shape))
    oy, ox = (a.ravel() for a in np.indices((h_out, w_out)))
    y = oy[None] * link.stride[0] - link.padding[0] + ky[:, None] * link.dilation[0]
    x = ox[None] * link.stride[1] - link.padding[1] + kx[:, None] * link.dilation[1]
    inside = (y >= 0) & (y < h_in) & (x >= 0) & (x < w_in)
    channel = (co // (c_out // link.groups)) * per_group + ci
    rows = (co[:, None] * h_out + oy[None]) * w_out + ox[None]
    cols = (channel[:, None] * h_in + y) * w_in + x
    values = np.broadcast_to(w.reshape(-1, 1), inside.shape)
    shape = (c_out * h_out * w_out, int(np.prod(link.in_shape)))
    return sp.csr_matrix((values[inside], (rows[inside], cols[inside])), shape=shape)


def links(graph: Graph) -> tuple[Link, ...]:
    """All links of a graph, in the order of its edges."""
    return tuple(
        link for node in graph.nodes.values() if node.neuron is not None for link in _into(graph, node)
    )


def _into(graph: Graph, node: Node) -> Iterator[Link]:
    for path in _paths(graph, node.name):
        source = path[0]
        shape = graph.nodes[source].out_shape
        link = Link(
            source,
            node.name,
            "identity",
            np.ones(()),
            path=(*path, node.name),
            in_shape=shape,
            out_shape=shape,
        )
        feedback = sum(
            edge in graph.feedback_edges for edge in zip(path, (*path[1:], node.name), strict=True)
        )
        for name in path[1:]:
            link = _extend(link, graph.nodes[name], graph.model.dt_s)
        yield replace(_finish(link), delay_steps=(link.delay_steps + np.int32(feedback)).astype(np.int32))


def _paths(graph: Graph, name: str) -> Iterator[tuple[str, ...]]:
    """Chains of nodes without neuron that end in ``name``: (population or input, linear, ..., linear)."""
    for before in graph.predecessors(name):
        if graph.nodes[before].neuron is not None or before == graph.input:
            yield (before,)
        else:
            for path in _paths(graph, before):
                yield (*path, before)


def constants(graph: Graph) -> dict[str, F64]:
    """What arrives at every neuron node when nothing spikes: the biases on the way, ``[*shape]``."""
    values: dict[str, F64] = {}
    for name in graph.order():
        node = graph.nodes[name]
        arriving = sum(
            (values[p] for p in graph.predecessors(name) if p in values), np.zeros(node.in_shape, np.float64)
        )
        if node.neuron is not None:
            values[f"into {name}"] = arriving
        if node.neuron is not None or name == graph.input:
            values[name] = np.zeros(node.out_shape)
            continue
        out = np.zeros(node.out_shape)
        if np.any(arriving):
            start = Link(
                name,
                name,
                "identity",
                np.ones(()),
                in_shape=node.in_shape,
                out_shape=node.in_shape,
                path=(name,),
            )
            out = (_extend(start, node, graph.model.dt_s).matrix() @ arriving.ravel()).reshape(node.out_shape)
        bias = getattr(node.op, "bias", None)
        if bias is not None:
            b = np.asarray(bias, np.float64)
            out = out + (b.reshape(-1, *(1,) * (len(node.out_shape) - 1)) if b.ndim == 1 else b)
        values[name] = out
    return {k[5:]: v for k, v in values.items() if k.startswith("into ")}


def _extend(link: Link, node: Node, dt_s: float) -> Link:
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


def _delay(link: Link, node: Node, dt_s: float) -> Link:
    steps = np.asarray(node.op.delay, np.float64) / dt_s
    whole = np.rint(steps)
    if np.abs(steps - whole).max(initial=0) > 1e-3 or (whole < 0).any():
        raise TargetError(
            "NM210",
            node.name,
            f"a delay of {float(np.max(node.op.delay))} s is not a multiple of the step {dt_s} s",
            "Choose another --dt or another delay",
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
        out_shape=_chw(node.out_shape),
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
        out_shape=_chw(node.out_shape),
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
        raise TargetError(
            "NM205",
            " > ".join(link.path),
            "this composition of linear layers has more than 50 million synapses",
            "Put a neuron between the layers",
        )
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


def _finish(link: Link) -> Link:
    """A bare identity becomes one synapse per neuron; a delay per neuron needs synapses of their own."""
    if link.kind == "identity":
        n = int(np.prod(link.in_shape))
        link = replace(
            link, kind="sparse", base=np.ones(n), indices=np.tile(np.arange(n, dtype=np.int32), (2, 1))
        )
    if link.delay_steps.ndim and link.kind != "dense":
        n_out, n_in = int(np.prod(link.out_shape)), int(np.prod(link.in_shape))
        dense = np.broadcast_to(link.delay_steps, (n_out, n_in))
        coo = link.matrix().tocoo()
        order = np.lexsort((coo.col, coo.row))
        at = np.stack([coo.row[order], coo.col[order]]).astype(np.int32)
        return replace(
            link,
            kind="sparse",
            base=coo.data[order],
            factor=1.0,
            expand=lambda w: w,
            node=None,
            indices=at,
            delay_steps=dense[at[0], at[1]].astype(np.int32),
        )
    if link.delay_steps.ndim:
        n_out, n_in = int(np.prod(link.out_shape)), int(np.prod(link.in_shape))
        return replace(link, delay_steps=np.broadcast_to(link.delay_steps, (n_out, n_in)).astype(np.int32))
    return link


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
