"""The contents of a ``.nir`` file as NIR nodes: every field checked, nested graphs flattened, all findings kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np

from nmtool.errors import Diagnostic, did_you_mean
from nmtool.ir.fields import BadFieldError, Fields

MAX_NESTING = 8

NEURON_TYPES = ("IF", "LIF", "CubaLIF", "LI", "CubaLI", "I", "Threshold")
"""Nodes that stand for a difference equation; all others are maps without memory, apart from Delay."""

_ARRAYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Linear": (("weight",), ()),
    "Affine": (("weight", "bias"), ()),
    "Scale": (("scale",), ()),
    "Delay": (("delay",), ()),
    "Threshold": (("threshold",), ()),
    "I": (("r",), ()),
    "IF": (("r", "v_threshold"), ("v_reset",)),
    "LI": (("tau", "r", "v_leak"), ()),
    "LIF": (("tau", "r", "v_leak", "v_threshold"), ("v_reset",)),
    "CubaLI": (("tau_syn", "tau_mem", "r", "v_leak"), ("w_in",)),
    "CubaLIF": (("tau_syn", "tau_mem", "r", "v_leak", "v_threshold"), ("v_reset", "w_in")),
}
"""Types whose fields are all arrays: required, optional."""


@dataclass
class Parsed:
    """A flat graph before it is checked as a whole.

    Attributes:
        nodes: by name.
        edges: (source, target) in the file's order, which decides the order of sums.
        metadata: of the graph.
        findings: what was wrong with single nodes; such a node is missing from ``nodes``.
        broken: names of the nodes that are missing because they are broken.
    """

    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    findings: list[Diagnostic] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)


def parse(tree: Any, where: str = "graph", depth: int = 0) -> Parsed:
    """A graph group (``node`` of the file, or a nested graph) as NIR nodes.

    Args:
        tree: the group as :mod:`nmtool.ir.hdf5` reads it.
        where: what to call it in findings.
        depth: how many graphs are around it.
    """
    out = Parsed()
    if type_of(tree) != "NIRGraph" or "nodes" not in tree:
        out.findings.append(
            Diagnostic("NM101", where, "is no NIR graph: it lacks 'type' = NIRGraph or 'nodes'")
        )
        return out
    if depth > MAX_NESTING:
        out.findings.append(Diagnostic("NM103", where, f"graphs are nested deeper than {MAX_NESTING}"))
        return out
    out.metadata = metadata_of(tree)
    inner: dict[str, Parsed] = {}
    nodes = tree["nodes"]
    for name in sorted(nodes if isinstance(nodes, Mapping) else ()):
        _node(name, nodes[name], out, inner, depth)
    try:
        out.edges = _edges(tree.get("edges"))
    except BadFieldError as e:
        out.findings.append(Diagnostic(e.code, where, e.message, e.hint))
    for name, graph in inner.items():
        _inline(out, name, graph)
    return out


def type_of(tree: Any) -> str:
    """The type that a group of the file says it is, "" if it does not."""
    kind = tree.get("type") if isinstance(tree, Mapping) else None
    return kind if isinstance(kind, str) else ""


def metadata_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Flat metadata: texts, Python scalars for 0-d arrays, arrays. Nested groups stay as they are."""
    raw = tree.get("metadata")
    if not isinstance(raw, Mapping):
        return {}
    return {k: v.item() if isinstance(v, np.ndarray) and v.ndim == 0 else v for k, v in raw.items()}


def _node(name: str, tree: Any, out: Parsed, inner: dict[str, Parsed], depth: int) -> None:
    kind, where = type_of(tree), f"node {name}"
    if kind == "NIRGraph":
        inner[name] = parse(tree, where, depth + 1)
        return
    try:
        if not kind:
            raise BadFieldError("NM102", "has no type", "A node name must not contain '/'")
        out.nodes[name] = build_node(kind, tree)
    except BadFieldError as e:
        out.findings.append(Diagnostic(e.code, f"{where} ({kind})" if kind else where, e.message, e.hint))
        out.broken.add(name)


def build_node(kind: str, tree: Mapping[str, Any]) -> Any:
    """One NIR node from its fields as a file holds them: arrays and texts.

    Raises:
        BadFieldError: with the code and what is wrong.
    """
    fields = Fields({k: v for k, v in tree.items() if k not in ("type", "metadata")})
    if kind in _ARRAYS:
        required, optional = _ARRAYS[kind]
        values = {k: fields.array(k) for k in required}
        values |= {k: fields.array(k) for k in optional if k in fields}
        op = _parametric(kind, values)
    elif kind in _BUILDERS:
        op = _BUILDERS[kind](fields)
    else:
        known = (*_ARRAYS, *_BUILDERS, "NIRGraph")
        raise BadFieldError("NM102", f"'{kind}' is not a NIR node type", did_you_mean(kind, known))
    fields.all_used()
    op.metadata = metadata_of(tree)
    return op


def _parametric(kind: str, values: dict[str, Any]) -> Any:
    if kind in ("Linear", "Affine"):
        weight = values["weight"]
        if weight.ndim < 2 or not weight.size:
            raise BadFieldError("NM104", f"weight has shape {weight.shape}, must be [..., n_out, n_in]")
    elif kind == "Delay" and (values["delay"] < 0).any():
        raise BadFieldError("NM108", f"delay is {values['delay'].min():g} s, must not be negative")
    elif kind in ("CubaLIF", "CubaLI"):
        values.setdefault("w_in", np.ones_like(values["v_leak"]))
        if values["w_in"].size == 1:
            values["w_in"] = np.broadcast_to(values["w_in"], values["v_leak"].shape).copy()
    if kind in NEURON_TYPES:
        shapes = {k: v.shape for k, v in values.items()}
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{k} {s}" for k, s in shapes.items())
            raise BadFieldError(
                "NM104", f"parameters differ in shape: {listed}", "Write one value per neuron"
            )
    return getattr(nir, kind)(**values)


def _input(f: Fields) -> Any:
    return nir.Input(input_type=np.array(f.integers("shape", 1)))


def _output(f: Fields) -> Any:
    return nir.Output(output_type=np.array(f.integers("shape", 1)))


def _flatten(f: Fields) -> Any:
    start, end = f.integer("start_dim", default=1), f.integer("end_dim", default=-1)
    f.ignore("input_type")
    return nir.Flatten(None, start, end)


def _pool(kind: str) -> Callable[[Fields], Any]:
    def build(f: Fields) -> Any:
        size = {k: f.integers(k, low, 2) for k, low in (("kernel_size", 1), ("stride", 1), ("padding", 0))}
        return getattr(nir, kind)(**{k: np.array(v) for k, v in size.items()})

    return build


def _conv(n_axes: int) -> Callable[[Fields], Any]:
    def build(f: Fields) -> Any:
        weight, groups = f.array("weight"), f.integer("groups", 1, default=1)
        stride, dilation = f.integers("stride", 1, n_axes), f.integers("dilation", 1, n_axes)
        bias = f.array("bias") if "bias" in f else np.zeros(weight.shape[:1], weight.dtype)
        if weight.ndim != 2 + n_axes or not weight.size:
            axes = "[c_out, c_in / groups, " + ", ".join(("k_h", "k_w") if n_axes == 2 else ("k",)) + "]"
            raise BadFieldError("NM104", f"weight has shape {weight.shape}, must be {axes}")
        if bias.shape != weight.shape[:1]:
            raise BadFieldError(
                "NM104", f"bias has shape {bias.shape}, weight has {weight.shape[0]} channels"
            )
        if weight.shape[0] % groups:
            raise BadFieldError(
                "NM103", f"{weight.shape[0]} output channels do not divide into {groups} groups"
            )
        weight, padding = f.padding(weight, stride, dilation)
        shape = f.integers("input_shape", 1, n_axes) if "input_shape" in f else None
        if n_axes == 1:
            args = (stride[0], padding[0], dilation[0], groups, bias)
            op = nir.Conv1d(None, weight, *args)
            op.input_shape = shape[0] if shape else None
            return op
        op = nir.Conv2d(None, weight, stride, padding, dilation, groups, bias)
        op.input_shape = shape
        return op

    return build


_BUILDERS: dict[str, Callable[[Fields], Any]] = {
    "Input": _input,
    "Output": _output,
    "Flatten": _flatten,
    "SumPool2d": _pool("SumPool2d"),
    "AvgPool2d": _pool("AvgPool2d"),
    "Conv1d": _conv(1),
    "Conv2d": _conv(2),
}


def _edges(value: Any) -> list[tuple[str, str]]:
    """Pairs of names; old files number their nodes instead."""
    if value is None:
        raise BadFieldError("NM105", "has no edges")
    if not isinstance(value, np.ndarray) or (value.size and (value.ndim != 2 or value.shape[1] != 2)):
        shape = getattr(value, "shape", type(value).__name__)
        raise BadFieldError("NM105", f"edges have shape {shape}, must be pairs of node names")
    if value.size and value.dtype.kind not in "Oiu":
        raise BadFieldError("NM105", f"edges are {value.dtype}, must be pairs of node names")
    return [(str(a), str(b)) for a, b in value] if value.size else []


def _inline(out: Parsed, name: str, graph: Parsed) -> None:
    """Put a nested graph's nodes, named ``name.inner``, in the place of its node."""
    out.findings += [
        Diagnostic(d.code, f"{name}.{d.where.removeprefix('node ')}", d.message, d.hint, d.severity)
        for d in graph.findings
    ]
    out.broken |= {f"{name}.{b}" for b in graph.broken} | ({name} if graph.findings else set())
    ends = [[k for k, op in graph.nodes.items() if isinstance(op, kind)] for kind in (nir.Input, nir.Output)]
    if graph.findings:
        return
    if [len(e) for e in ends] != [1, 1]:
        message = (
            f"is a nested graph with {len(ends[0])} inputs and {len(ends[1])} outputs; it must have one each"
        )
        out.findings.append(
            Diagnostic("NM105", f"node {name}", message, "Flatten the graph before writing it")
        )
        out.broken.add(name)
        return
    renamed = {k: f"{name}.{k}" for k in graph.nodes}
    out.nodes |= {renamed[k]: op for k, op in graph.nodes.items()}
    first, last = renamed[ends[0][0]], renamed[ends[1][0]]
    outer = [(last if a == name else a, first if b == name else b) for a, b in out.edges]
    out.edges = outer + [(renamed.get(a, a), renamed.get(b, b)) for a, b in graph.edges]
    for passing in (first, last):
        before = [a for a, b in out.edges if b == passing]
        after = [b for a, b in out.edges if a == passing]
        out.edges = [e for e in out.edges if passing not in e] + [(a, b) for a in before for b in after]
        del out.nodes[passing]
