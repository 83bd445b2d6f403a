"""What is allowed but often means a broken export: warnings NM151, one small rule each."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import nir
import numpy as np

from nmtool.errors import Diagnostic
from nmtool.ir.metadata import PREFIX
from nmtool.ir.parse import NEURON_TYPES, Parsed
from nmtool.ir.shapes import Shape, parameter_shape

Findings = Iterator[Diagnostic]


def lint(graph: Parsed, ins: Mapping[str, Shape], dt_s: float) -> list[Diagnostic]:
    """All rules over all nodes, in natural order of the names in ``ins``."""
    found = []
    for name in ins:
        op = graph.nodes[name]
        where = f"node {name} ({type(op).__name__})"
        found += [
            *invented_ends(where, name, op),
            *scalar_parameters(where, op, ins[name]),
            *delays(where, op, dt_s),
        ]
        if type(op).__name__ in NEURON_TYPES and not any(k.startswith(PREFIX) for k in op.metadata):
            found += [*time_constants(where, op, dt_s), *thresholds(where, op)]
    found += nir_refuses(graph)
    return found


def _warn(where: str, message: str, hint: str = "") -> Diagnostic:
    return Diagnostic("NM151", where, message, hint, "warning")


def invented_ends(where: str, name: str, op: Any) -> Findings:
    """nir names the ends that it makes up itself ``input_<node>`` and ``output_<node>``."""
    for kind in (nir.Input, nir.Output):
        if isinstance(op, kind) and name.startswith(f"{kind.__name__.lower()}_"):
            yield _warn(
                where, "its name is one that nir makes up where an edge is missing", "Check the edges"
            )


def scalar_parameters(where: str, op: Any, shape: Shape) -> Findings:
    """One value for a whole layer is not what NIR prescribes, but clear."""
    own = parameter_shape(op)
    if own is not None and own != shape and math.prod(own) == 1:
        message = (
            f"one parameter of shape {list(own)} is used for all {math.prod(shape)} elements of {list(shape)}"
        )
        yield _warn(where, message, "Write one value per element: other tools refuse this")


def time_constants(where: str, op: Any, dt_s: float) -> Findings:
    """Time constants are seconds; some tools write milliseconds or steps."""
    for key in ("tau", "tau_mem", "tau_syn"):
        tau = getattr(op, key, None)
        if tau is not None and np.size(tau) and np.max(tau) >= 1:
            message = f"{key} is {float(np.max(tau)):g} s"
            yield _warn(where, message, "It looks like milliseconds or steps; NIR's unit is the second")
        if tau is not None and np.size(tau) and dt_s / np.min(tau) >= 1 - 1e-6:
            message = f"{key} is {float(np.min(tau)):g} s, not longer than the step of {dt_s:g} s"
            yield _warn(where, message, "Nothing is kept from step to step; check dt")


def thresholds(where: str, op: Any) -> Findings:
    """A threshold that rest already exceeds or meets."""
    v_th = getattr(op, "v_threshold", None)
    if v_th is not None and (np.asarray(v_th) <= 0).any():
        yield _warn(where, f"v_threshold is {float(np.min(v_th)):g}, not above 0", "Check the export")


def delays(where: str, op: Any, dt_s: float) -> Findings:
    """A delay between two steps becomes the nearer one."""
    if isinstance(op, nir.Delay):
        steps = np.asarray(op.delay, np.float64) / dt_s
        off = np.abs(steps - np.rint(steps)) > 1e-3
        if off.any():
            yield _warn(
                where, f"a delay of {float(steps[off].flat[0]):g} steps is rounded to whole steps", "Check dt"
            )


def nir_refuses(graph: Parsed) -> Findings:
    """Whether nir's own type check, which other tools run on load, would refuse the graph."""
    nodes = {name: copy.copy(op) for name, op in graph.nodes.items()}
    for name, op in nodes.items():
        if type(op).__name__ in ("Conv1d", "Conv2d") or isinstance(op, nir.Flatten):
            nodes[name] = _typed(op)
    try:
        nir.NIRGraph(nodes, list(graph.edges), type_check=True)
    except (ValueError, AssertionError, TypeError, IndexError, AttributeError, NotImplementedError) as e:
        text = (str(e) or type(e).__name__).splitlines()[0][:160]
        message = f"the type check of nir {nir.version} refuses it ({text}); nmtool does not depend on it"
        yield Diagnostic("NM151", "graph", message, "Other tools may not read this file", "note")


def _typed(op: Any) -> Any:
    """The node as nir builds it from a file, with the types that nir works out."""
    fields = {
        k: getattr(op, k) for k in type(op).__dataclass_fields__ if k not in ("output_type", "metadata")
    }
    if not isinstance(op, nir.Flatten):
        del fields["input_type"]
    return type(op)(**fields)
