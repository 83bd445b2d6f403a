"""Whether nodes and edges make one sound network: ends, dangling edges, reachability, loops."""

from __future__ import annotations

from collections.abc import Sequence

import nir
import numpy as np

from nmtool.errors import Diagnostic, did_you_mean
from nmtool.ir.order import Edge, natural, reachable
from nmtool.ir.parse import NEURON_TYPES, Parsed
from nmtool.ir.shapes import expected_in, out_shape


def complete_ends(graph: Parsed) -> list[Diagnostic]:
    """Add an Input or Output where a file of an old version has none and it is clear where it belongs.

    Changes ``graph``. Returns a warning for each added node.
    """
    found = []
    for kind, end in (("input", nir.Input), ("output", nir.Output)):
        if any(isinstance(op, end) for op in graph.nodes.values()) or graph.broken:
            continue
        inner = {e[1] for e in graph.edges} if kind == "input" else {e[0] for e in graph.edges}
        free = sorted(set(graph.nodes) - inner, key=natural)
        shape = expected_in(graph.nodes[free[0]]) if len(free) == 1 else None
        if len(free) != 1 or shape is None or kind in graph.nodes:
            continue
        if kind == "input":
            graph.nodes[kind] = nir.Input(input_type=np.array(shape))
            graph.edges.append((kind, free[0]))
        else:
            graph.nodes[kind] = nir.Output(output_type=np.array(out_shape(graph.nodes[free[0]], shape)))
            graph.edges.append((free[0], kind))
        message = f"the graph has no {kind.capitalize()} node; one was added at {free[0]}"
        found.append(Diagnostic("NM151", "graph", message, "Write the file with a current nir", "warning"))
    return found


def check_structure(graph: Parsed) -> list[Diagnostic]:
    """Findings about nodes and edges before anything is computed from them (NM105, warnings NM151).

    Nodes that are broken in themselves are left out: they have their own findings.
    """
    found = [*_edges(graph), *_ends(graph)]
    if found or graph.broken:
        return found
    source = next(n for n, op in graph.nodes.items() if isinstance(op, nir.Input))
    sink = next(n for n, op in graph.nodes.items() if isinstance(op, nir.Output))
    reached = reachable(source, graph.edges)
    used = reachable(sink, [(b, a) for a, b in graph.edges])
    for name in sorted(graph.nodes, key=natural):
        if name not in reached:
            found.append(
                Diagnostic("NM105", f"node {name}", f"is not reached from {source}", "Connect or remove it")
            )
        elif name not in used:
            message = f"does not reach {sink}: it is computed for nothing"
            found.append(Diagnostic("NM151", f"node {name}", message, "Connect or remove it", "warning"))
    return found


def describe_loops(loops: Sequence[set[str]]) -> list[Diagnostic]:
    """One error per cycle without a neuron: its values would have to be known before they are computed."""
    return [
        Diagnostic(
            "NM105",
            f"nodes {', '.join(sorted(part, key=natural))}",
            "form a loop without a neuron, which has no first value",
            f"Put one of {', '.join(NEURON_TYPES)} into it",
        )
        for part in loops
    ]


def _edges(graph: Parsed) -> list[Diagnostic]:
    found = []
    known = set(graph.nodes) | graph.broken
    for name in sorted({n for e in graph.edges for n in e} - known, key=natural):
        ends = ", ".join(f"{a} -> {b}" for a, b in graph.edges if name in (a, b))
        message = f"there is no node '{name}', but the edge {ends} needs it"
        found.append(Diagnostic("NM105", "edges", message, did_you_mean(name, known)))
    seen: set[Edge] = set()
    for edge in graph.edges:
        if edge in seen:
            message = f"{edge[0]} -> {edge[1]} stands there twice"
            found.append(
                Diagnostic("NM105", "edges", message, "Scale the weights instead: inputs are added up")
            )
        seen.add(edge)
    return found


def _ends(graph: Parsed) -> list[Diagnostic]:
    found = []
    for kind in (nir.Input, nir.Output):
        names = sorted((n for n, op in graph.nodes.items() if isinstance(op, kind)), key=natural)
        word = kind.__name__
        if not names and not graph.broken:
            found.append(Diagnostic("NM105", "graph", f"has no {word} node", f"Add a nir.{word}"))
        if len(names) > 1:
            message = f"has {len(names)} {word} nodes ({', '.join(names)}); nmtool runs graphs with one"
            hint = (
                "A name like output_fc2 is made up by an exporter that lost an edge; export again with nmtool"
            )
            found.append(Diagnostic("NM105", "graph", message, hint))
        for name in names:
            wrong = [e for e in graph.edges if e[1 if word == "Input" else 0] == name]
            if wrong:
                side = "into" if word == "Input" else "out of"
                message = f"{word} has the edge {wrong[0][0]} -> {wrong[0][1]} {side} it"
                found.append(Diagnostic("NM105", f"node {name}", message, "Remove the edge"))
    return found
