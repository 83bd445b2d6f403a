"""A network read from a ``.nir`` file: checked nodes with shapes and difference equations, in a fixed order."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nir
import numpy as np

from nmtool.errors import Diagnostic, ModelError, raise_errors
from nmtool.ir import hdf5, metadata, shapes
from nmtool.ir.lint import lint
from nmtool.ir.order import Edge, feedback, topological
from nmtool.ir.parse import NEURON_TYPES, Parsed, parse
from nmtool.ir.resolve import Scheme, resolve, resolve_dt, to_nir
from nmtool.ir.semantics import ModelSemantics, NeuronSemantics
from nmtool.ir.validate import check_structure, complete_ends, describe_loops
from nmtool.provenance import sha256_file, writing


@dataclass(frozen=True, eq=False)
class Node:
    """One node.

    Attributes:
        name: unique in the graph.
        op: the NIR node; stride, padding and dilation are tuples of numbers.
        neuron: its difference equation, or None for a map without memory.
        in_shape, out_shape: without batch and time.
    """

    name: str
    op: Any
    neuron: NeuronSemantics | None
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """A sound network with one input and one output.

    Attributes:
        nodes: by name, in the order of :meth:`order`.
        edges: (source, target); signals on several edges into one node are added up in this order.
        model: graph-level facts.
        sha256: of the file, or "" for a graph that came from none.
        input, output: names of the end nodes.
        feedback_edges: edges that carry the previous step; they leave a neuron.
        warnings: what was unusual.
    """

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    model: ModelSemantics
    sha256: str
    input: str
    output: str
    feedback_edges: tuple[Edge, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()

    def predecessors(self, name: str) -> tuple[str, ...]:
        """Sources of the edges into a node, in the order of the edges."""
        return tuple(a for a, b in self.edges if b == name)

    def successors(self, name: str) -> tuple[str, ...]:
        """Targets of the edges out of a node, in the order of the edges."""
        return tuple(b for a, b in self.edges if a == name)

    def order(self) -> tuple[str, ...]:
        """Every node after its predecessors, apart from feedback; the same for any order of nodes in the file."""
        return tuple(self.nodes)

    def readout_source(self) -> str:
        """The node that is read: the only predecessor of the output, through nodes that only reshape."""
        return _readout_source(self.output, {n: v.op for n, v in self.nodes.items()}, self.edges)


def read(path: Path, dt_s: float | None = None, *, scheme: Scheme = "euler") -> Graph:
    """Read a ``.nir`` file, ours or another tool's.

    Args:
        path: the file.
        dt_s: seconds per step; None takes the recorded or inferred one (see :func:`nmtool.ir.resolve.resolve_dt`).
        scheme: how differential equations become steps.

    Raises:
        ConfigError: NM001 no such file, NM004 a step that is not positive.
        ModelError: NM101 not a NIR file.
        FindingsError: everything else that is wrong with it (NM101 to NM108), all of it.
    """
    tree = hdf5.load(path)
    return from_tree(tree, str(path), sha256_file(path), dt_s=dt_s, scheme=scheme)


def from_nir(graph: nir.NIRGraph, dt_s: float | None = None, *, scheme: Scheme = "euler") -> Graph:
    """A graph in memory, checked as if it came from a file.

    Raises:
        FindingsError: see :func:`read`.
    """
    return from_tree({"node": _as_tree(graph)}, "graph", "", dt_s=dt_s, scheme=scheme)


def from_tree(
    tree: hdf5.Tree, where: str, sha256: str, *, dt_s: float | None = None, scheme: Scheme = "euler"
) -> Graph:
    """The contents of a file as a graph; see :func:`read`."""
    if "node" not in tree:
        held = ", ".join(sorted(tree)[:6]) or "nothing"
        raise ModelError(
            "NM101", where, f"is HDF5, but no NIR graph: it holds {held}, not 'node'", "Give a .nir file"
        )
    parsed = parse(tree["node"], where)
    found = parsed.findings
    if any(d.code == "NM101" for d in found):
        raise_errors(found)
    found += complete_ends(parsed)
    structure = check_structure(parsed)
    found += structure
    if any(d.severity == "error" for d in structure) or parsed.broken:
        raise_errors(found)
    return _assemble(parsed, sha256, dt_s, scheme)


def _assemble(parsed: Parsed, sha256: str, dt_s: float | None, scheme: Scheme) -> Graph:
    """Order, shapes, steps and neurons of a graph whose structure is sound."""
    found, nodes = list(parsed.findings), parsed.nodes
    first, last = (next(n for n, op in nodes.items() if isinstance(op, k)) for k in (nir.Input, nir.Output))
    neurons = {n for n, op in nodes.items() if type(op).__name__ in NEURON_TYPES}
    back, loops = feedback(first, nodes, parsed.edges, neurons)
    raise_errors(found + describe_loops(loops))
    order = topological(nodes, [e for e in parsed.edges if e not in back])
    sources: dict[str, list[str]] = {n: [] for n in order}
    for a, b in parsed.edges:
        sources[b].append(a)
    ins, outs, notes = shapes.infer(order, nodes, sources)
    dt, dt_notes, same_dt = resolve_dt(nodes, parsed.metadata.get("nmtool.dt_s"), dt_s)
    model, model_notes = metadata.decode_model(parsed.metadata, dt)
    found += notes + dt_notes + model_notes
    resolved: dict[str, NeuronSemantics] = {}
    for name in order:
        op, where = nodes[name], f"node {name} ({type(nodes[name]).__name__})"
        if name in neurons and name in outs:
            neuron, notes = resolve(where, op, outs[name], dt, scheme)
            if not any(d.severity == "error" for d in notes):
                neuron, more = metadata.decode_neuron(where, neuron, op.metadata, same_dt)
                notes = notes + more
            resolved[name] = neuron
            found += notes
        elif hasattr(op, "weight"):
            found += metadata.check_weights(where, op)
        if name in outs:
            _settle(op, ins[name], outs[name])
    raise_errors(found)
    found += lint(parsed, ins, dt)
    model, notes = _readout(model, parsed, _readout_source(last, nodes, parsed.edges), resolved, outs[last])
    raise_errors(found + notes)
    return Graph(
        {n: Node(n, nodes[n], resolved.get(n), ins[n], outs[n]) for n in order},
        tuple(parsed.edges),
        model,
        sha256,
        first,
        last,
        back,
        tuple(found + notes),
    )


def _settle(op: Any, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
    """Write what is known now into the node, so that it means the same to everybody who reads it."""
    if isinstance(op, nir.Flatten):
        op.input_type, op.output_type = {"input": np.array(in_shape)}, {"output": np.array(out_shape)}
        if len(out_shape) == 1:
            op.start_dim, op.end_dim = 0, -1
    elif isinstance(op, nir.Conv1d):
        op.input_shape = in_shape[1]
    elif isinstance(op, nir.Conv2d):
        op.input_shape = in_shape[1:]


def _readout_source(output: str, nodes: Mapping[str, Any], edges: list[Edge] | tuple[Edge, ...]) -> str:
    name = output
    while isinstance(nodes[name], nir.Output | nir.Flatten):
        before = [a for a, b in edges if b == name]
        if len(before) != 1:
            break
        name = before[0]
    return name


def _readout(
    model: ModelSemantics,
    parsed: Parsed,
    source: str,
    neurons: Mapping[str, NeuronSemantics],
    shape: tuple[int, ...],
) -> tuple[ModelSemantics, list[Diagnostic]]:
    """The readout that fits what is read; a recorded one that does not is an error."""
    found = []
    neuron = neurons.get(source)
    if neuron is not None and not neuron.spiking and model.readout == "spike_count":
        if "nmtool.readout" in parsed.metadata:
            message = f"nmtool.readout is 'spike_count', but '{source}' never spikes"
            found.append(Diagnostic("NM106", "metadata of the graph", message, "Use readout 'membrane'"))
        model = replace(model, readout="membrane")
    if neuron is None and model.readout == "membrane":
        message = f"nmtool.readout is 'membrane', but '{source}' is a {type(parsed.nodes[source]).__name__}"
        found.append(Diagnostic("NM106", "metadata of the graph", message, "End the network with a neuron"))
    n = int(np.prod(shape))
    if model.class_labels and len(model.class_labels) != n:
        message = f"nmtool.class_labels names {len(model.class_labels)} classes, the output has {n} values"
        found.append(Diagnostic("NM103", "metadata of the graph", message))
    return model, found


def write(
    graph: nir.NIRGraph, model: ModelSemantics, neurons: Mapping[str, NeuronSemantics], path: Path
) -> tuple[Diagnostic, ...]:
    """Write a ``.nir`` file that nir 1.0.6 and later read, with everything that NIR cannot say as metadata.

    Neuron nodes are written from ``neurons`` (their parameters as float32 vectors, exact values as metadata); all
    other nodes as they are in ``graph``.

    Args:
        graph: nodes and edges.
        model: graph-level facts.
        neurons: the difference equation of every neuron node.
        path: written aside and renamed.

    Returns:
        notes on what other tools will read differently.

    Raises:
        ConfigError: NM002 if the file cannot be written; what was there before stays.
        FindingsError: if the graph is not sound (see :func:`read`), or a name holds "/" (NM105).
        ModelError: NM108 for a decay outside 0 to 1.
    """
    tree = _as_tree(graph)
    tree["metadata"] = metadata.encode_model(model)
    for name, neuron in neurons.items():
        if name in tree["nodes"]:
            try:
                op = to_nir(neuron, model.dt_s)
            except ValueError as e:
                raise ModelError("NM108", f"node {name}", str(e), "Decays are fractions of 0 to 1") from e
            op.metadata = metadata.encode_neuron(neuron)
            tree["nodes"][name] = _node_tree(op)
    checked = from_tree({"node": tree}, str(path), "")
    kept = {n: v.neuron for n, v in checked.nodes.items() if v.neuron is not None}
    odd = [n for n in checked.nodes if "/" in n] + sorted(set(kept) ^ set(neurons))
    raise_errors(
        Diagnostic(
            "NM105", f"node {n}", "is not a neuron node with a difference equation, or its name holds '/'"
        )
        for n in odd
    )
    ops = {name: copy.copy(node.op) for name, node in checked.nodes.items()}
    result = nir.NIRGraph(ops, list(checked.edges), metadata=tree["metadata"], type_check=False)
    with writing(path) as part:
        nir.write(part, result)
    return tuple(d for n, v in kept.items() for d in _not_in_nir(n, v)) + checked.warnings


def _not_in_nir(name: str, neuron: NeuronSemantics) -> list[Diagnostic]:
    """What stands in metadata alone, so that other tools compute something else."""
    lost = []
    if neuron.spiking and neuron.reset != "zero":
        lost.append(f"reset '{neuron.reset}'; other tools reset to {np.max(neuron.v_reset):g}")
    if neuron.spiking and neuron.reset_delay:
        lost.append("a reset one step after the spike; other tools reset at once")
    if neuron.noise_std > 0:
        lost.append(f"noise of {neuron.noise_std:g}; other tools run without")
    return [Diagnostic("NM151", f"node {name}", f"NIR cannot say {m}", severity="warning") for m in lost]


def _as_tree(graph: nir.NIRGraph) -> dict[str, Any]:
    """A graph in memory in the form in which a file is read."""
    edges = np.empty((len(graph.edges), 2), object)
    for i, edge in enumerate(graph.edges):
        edges[i] = [str(n) for n in edge]
    return {
        "type": "NIRGraph",
        "nodes": {
            name: _as_tree(op) if isinstance(op, nir.NIRGraph) else _node_tree(op)
            for name, op in graph.nodes.items()
        },
        "edges": edges,
        "metadata": _plain(graph.metadata or {}),
    }


def _node_tree(op: Any) -> dict[str, Any]:
    return {**_plain({k: v for k, v in op.to_dict().items() if v is not None})}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a file gives them back: texts, arrays, groups."""
    return {
        k: _plain(v) if isinstance(v, dict) else v if isinstance(v, str) else np.asarray(v)
        for k, v in values.items()
    }
