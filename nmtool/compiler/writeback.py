"""The quantised network as a graph again: every value lies exactly on the chip's grid.

Any other tool that reads the file then runs the network as deployed, up to the chip's integer state.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nir
import numpy as np

from nmtool.compiler.compile import Compiled
from nmtool.errors import Diagnostic
from nmtool.ir.graph import Graph, Node, write
from nmtool.ir.semantics import NeuronSemantics


def quantised_graph(
    graph: Graph, compiled: Compiled
) -> tuple[nir.NIRGraph, dict[str, NeuronSemantics], tuple[Diagnostic, ...]]:
    """Copy of the graph with weights, biases and neurons as the chip holds them.

    Returns:
        the NIR graph, the difference equation per neuron node, and a note for every node whose weights were
        multiplied out with others, so that they cannot be written back one by one.
    """
    nodes: dict[str, Any] = {}
    notes = []
    for name, node in graph.nodes.items():
        op = copy.copy(node.op)
        if name in compiled.weights:
            on_grid, shape = compiled.weights[name], np.shape(node.op.weight)
            op.weight = on_grid.values.reshape(shape)
            op.metadata = dict(op.metadata)
            if on_grid.per_unit.ndim == 0:
                op.metadata |= {
                    "nmtool.w_int": on_grid.integers.reshape(shape).astype(np.int32),
                    "nmtool.w_scale": 1 / float(on_grid.per_unit),
                    "nmtool.w_bits": on_grid.bits,
                }
            if hasattr(op, "bias"):
                op.bias = _bias(graph, node, compiled)
        elif hasattr(op, "weight"):
            notes.append(
                Diagnostic(
                    "NM251",
                    name,
                    "feeds several populations or was multiplied with its neighbours; the file keeps its real weights",
                    severity="note",
                )
            )
        nodes[name] = op
    return nir.NIRGraph(nodes, list(graph.edges), type_check=False), dict(compiled.neurons), tuple(notes)


def _bias(graph: Graph, node: Node, compiled: Compiled) -> Any:
    """The bias on the grid, where it is the only constant that enters one population; else as it was."""
    targets = [t for t in graph.successors(node.name) if t in compiled.biases]
    if len(targets) != 1 or len(graph.successors(node.name)) != 1:
        return node.op.bias
    (target,) = targets
    others = [p for p in graph.predecessors(target) if np.any(getattr(graph.nodes[p].op, "bias", 0))]
    neuron = graph.nodes[target].neuron
    if others not in ([], [node.name]) or neuron is None or np.any(neuron.leak):
        return node.op.bias
    value = compiled.biases[target].reshape(node.out_shape)
    return value if len(node.out_shape) == 1 else value.reshape(node.out_shape[0], -1)[:, 0]


def write_quantised(graph: Graph, compiled: Compiled, path: Path) -> tuple[Diagnostic, ...]:
    """Write the quantised network as a ``.nir`` file.

    Returns:
        notes on nodes that keep their real weights, and on what other tools will read differently.

    Raises:
        ConfigError: NM002 if the file cannot be written; what was there before stays.
    """
    quantised, neurons, notes = quantised_graph(graph, compiled)
    return notes + write(quantised, graph.model, neurons, path)
