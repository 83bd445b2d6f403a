"""The links of a graph: everything linear between two neuron nodes becomes one synapse stage.

A synapse stage costs a step on the chip, so pooling without overlap is folded into the next kernel and other
compositions are multiplied out. The integers are chosen for the graph's own weights (``base``) and expanded
afterwards, so that they can be written back into the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nmtool.compiler.fold import extend
from nmtool.compiler.link import Link
from nmtool.errors import TargetError
from nmtool.ir.graph import Graph, Node

F64 = NDArray[np.float64]


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
            link = extend(link, graph.nodes[name], graph.model.dt_s)
        link = _finish(link)
        yield replace(link, delay_steps=(link.delay_steps + np.int32(feedback)).astype(np.int32))


def _paths(graph: Graph, name: str) -> Iterator[tuple[str, ...]]:
    """Chains of nodes without neuron that end in ``name``: (population or input, linear, ..., linear)."""
    for before in graph.predecessors(name):
        if graph.nodes[before].neuron is not None or before == graph.input:
            yield (before,)
        else:
            for path in _paths(graph, before):
                yield (*path, before)


def constants(graph: Graph, late_bias: bool = False) -> dict[str, F64]:
    """What arrives at every neuron node when nothing spikes: the biases on the way, ``[*shape]``.

    Args:
        graph: the network.
        late_bias: accept that a bias behind a delay acts from the first step on.

    Raises:
        TargetError: NM205 for such a bias if it is not accepted.
    """
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
            if not late_bias and np.any(getattr(node.op, "delay", 0)):
                raise TargetError(
                    "NM205",
                    name,
                    "delays a bias, which the target's bias register does not",
                    "Remove the bias, or let it act from the first step on with --allow steady-state-bias",
                )
            start = Link(
                name,
                name,
                "identity",
                np.ones(()),
                in_shape=node.in_shape,
                out_shape=node.in_shape,
                path=(name,),
            )
            out = (extend(start, node, graph.model.dt_s).matrix() @ arriving.ravel()).reshape(node.out_shape)
        bias = getattr(node.op, "bias", None)
        if bias is not None:
            b = np.asarray(bias, np.float64)
            out = out + (b.reshape(-1, *(1,) * (len(node.out_shape) - 1)) if b.ndim == 1 else b)
        values[name] = out
    return {k[5:]: v for k, v in values.items() if k.startswith("into ")}


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
