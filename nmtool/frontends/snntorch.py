"""PyTorch and snnTorch networks to NIR without loss, by symbolic tracing of one step or of an unrolled time loop.

What has no exact counterpart is an error that names the module. Sums of signals become several edges into one node;
recurrent neurons become a cycle; batch normalisation is folded; dropout disappears.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import nir
import numpy as np
import snntorch as snn
import torch
from torch import Tensor, fx, nn

from nmtool.errors import Diagnostic, ModelError, raise_errors
from nmtool.frontends import layers as convert
from nmtool.frontends.layers import NoCounterpartError
from nmtool.ir import graph as ir
from nmtool.ir import shapes
from nmtool.ir.order import Edge, feedback, topological
from nmtool.ir.semantics import ModelSemantics, NeuronSemantics

NEURONS: Mapping[type[nn.Module], str] = {
    snn.RLeaky: "RLeaky",
    snn.RSynaptic: "RSynaptic",
    snn.Synaptic: "Synaptic",
    snn.Leaky: "Leaky",
}
SYNAPSES: Mapping[type[nn.Module], tuple[str, Callable[[Any], Any]]] = {
    nn.Linear: ("fc", convert.linear),
    nn.Conv1d: ("conv", convert.conv),
    nn.Conv2d: ("conv", convert.conv),
    nn.AvgPool2d: ("pool", convert.average_pool),
    nn.Flatten: ("flatten", lambda m: convert.flatten(m.start_dim, m.end_dim)),
}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
SUPPORTED = ", ".join(
    t.__name__ for t in (*NEURONS, *SYNAPSES, *NORMS, nn.Identity, nn.Dropout)
)  # for messages


def export(
    layers: nn.Module, input_shape: tuple[int, ...], model: ModelSemantics
) -> tuple[nir.NIRGraph, dict[str, NeuronSemantics]]:
    """A network as a NIR graph and the difference equations of its neurons.

    Args:
        layers: ``nn.Sequential``, or a module whose ``forward`` computes one step, or loops over the steps with the same
            wiring at each. Its first argument is the input; others are states. Batch norm uses its running statistics.
        input_shape: of one sample and one step, without batch.
        model: graph-level facts; ``dt_s`` decides the time constants that stand for the decays.

    Returns:
        the graph (parameters as float32 vectors) and the exact equations, as :func:`nmtool.ir.graph.write` takes them.

    Raises:
        FindingsError: NM107 for everything that has no counterpart, NM104 where shapes do not fit.
    """
    wiring = _trace(layers)
    ops, shape_in = _nodes(wiring, input_shape)
    neurons, findings = {}, []
    for name in [n for n, op in ops.items() if isinstance(op, _Neuron)]:
        item = ops[name]
        try:
            neurons[name] = convert.neuron(item.module, item.family, shape_in[name])
            _check_spikes(item.module)
        except NoCounterpartError as e:
            findings.append(_no_counterpart(item.path, item.module, e))
    raise_errors(findings)
    for name, neuron in neurons.items():
        ops[name] = ir.neuron_node(neuron, model.dt_s)
    graph = nir.NIRGraph(ops, wiring.edges, type_check=False)
    return graph, neurons


def save(
    layers: nn.Module, input_shape: tuple[int, ...], model: ModelSemantics, path: Path
) -> tuple[Diagnostic, ...]:
    """:func:`export` into a file.

    Returns:
        notes on what other tools will read differently.
    """
    graph, neurons = export(layers, input_shape, model)
    return ir.write(graph, model, neurons, path)


class _Neuron(NamedTuple):
    """A neuron module whose shape is not known yet."""

    path: str
    module: nn.Module
    family: str


class _Signal(NamedTuple):
    """A sum of what nodes give, each with the call that gave it (None for the input, the same at every step)."""

    sources: tuple[tuple[str, int | None], ...]


class _State(NamedTuple):
    """A membrane or a current of a neuron node; ``owner`` is None for an argument of ``forward``."""

    owner: str | None


@dataclass
class _Wiring:
    """What tracing found."""

    nodes: dict[str, tuple[str, nn.Module | None, Any]] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    late: set[Edge] = field(default_factory=set)
    calls: dict[str, list[frozenset[str]]] = field(default_factory=dict)
    findings: list[Diagnostic] = field(default_factory=list)

    def call(self, name: str, signal: _Signal) -> _Signal:
        """A call of a node with a signal; returns what it gives."""
        k = len(self.calls.setdefault(name, []))
        self.calls[name].append(frozenset(s for s, _ in signal.sources))
        if len(self.calls[name][k]) < len(signal.sources):
            raise NoCounterpartError("adds a signal to itself", "Double the weights instead")
        for source, step in signal.sources:
            edge = (source, name)
            if step not in (None, k, k - 1) or (edge in self.edges and (edge in self.late) != (step == k - 1)):
                raise NoCounterpartError(
                    f"takes what {source} gave at another step", "A loop may use the step before only through neurons"
                )
            if step == k - 1:
                self.late.add(edge)
            if edge not in self.edges:
                self.edges.append(edge)
        return _Signal(((name, k),))


class _Tracer(fx.Tracer):
    """Neurons are opaque, whatever they contain."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = (*NEURONS, *SYNAPSES, *NORMS, *NOTHING, snn.SpikingNeuron)
        return isinstance(m, known) or super().is_leaf_module(m, module_qualified_name)


class _Interpreter:
    """Follows a traced forward with signals instead of tensors."""

    def __init__(self, root: nn.Module) -> None:
        self.root, self.wiring, self.names = root, _Wiring(), dict[str, str]()
        self._functions = 0

    def run(self, traced: fx.Graph) -> _Wiring:
        """The wiring of the whole graph, with every finding."""
        values: dict[fx.Node, Any] = {}
        for node in traced.nodes:
            try:
                values[node] = self._node(node, lambda n: values.get(n, n))
            except NoCounterpartError as e:
                module = self.root.get_submodule(node.target) if node.op == "call_module" else None
                self.wiring.findings.append(_no_counterpart(str(node.target), module, e))
                values[node] = _Signal(())
        return self.wiring

    def _node(self, node: fx.Node, look_up: Callable[[fx.Node], Any]) -> Any:
        args = fx.map_arg(node.args, look_up)
        if node.op == "placeholder":
            first = not any(k == "input" for k in self.wiring.nodes)
            if first:
                self.wiring.nodes["input"] = ("input", None, None)
            return _Signal((("input", None),)) if first else _State(None)
        if node.op == "get_attr":
            return _constant(operator.attrgetter(node.target)(self.root))
        if node.op == "call_module":
            return self._module(node.target, self.root.get_submodule(node.target), args)
        if node.op == "output":
            return self._output(args[0])
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
        return self._function(str(name), args, dict(node.kwargs))

    def _module(self, path: str, module: nn.Module, args: tuple[Any, ...]) -> Any:
        signal = _signal(args[0] if args else None)
        if isinstance(module, NOTHING):
            return signal
        family = next((f for t, f in NEURONS.items() if isinstance(module, t)), None)
        kind = next((k for t, (k, _) in SYNAPSES.items() if type(module) is t), None)
        kind = "lif" if family else "norm" if isinstance(module, NORMS) else kind
        if kind is None:
            raise NoCounterpartError("is not supported", f"Supported: {SUPPORTED}, sums, flatten")
        if family and not _same_equation(module, family):
            raise NoCounterpartError(f"changes the equation of snntorch.{family}", f"Use snntorch.{family} itself")
        name = self._name(path, kind)
        if any(isinstance(s, _State) and s.owner not in (None, name) for s in args[1:]):
            raise NoCounterpartError("is given the state of another neuron")
        self.wiring.nodes[name] = (path, module, family)
        out = self.wiring.call(name, signal)
        if family in ("RLeaky", "RSynaptic"):
            self.wiring.nodes[f"{name}.w_rec"] = (path, module, None)
            for edge in ((name, f"{name}.w_rec"), (f"{name}.w_rec", name)):
                if edge not in self.wiring.edges:
                    self.wiring.edges.append(edge)
        return _Fired(out, _State(name)) if family else out

    def _function(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in ("add", "iadd", "add_") and not set(kwargs) & {"alpha"}:
            return _Signal(tuple(s for a in args for s in _signal(a).sources))
        if name == "getitem":
            return _item(*args)
        if name in ("getattr", "size", "dim"):
            return _SHAPE
        if name in ("detach", "contiguous", "clone", "float"):
            return args[0]
        if name == "stack":
            return _stacked(args[0])
        if name == "flatten":
            dims = [*args[1:], *(kwargs[k] for k in ("start_dim", "end_dim") if k in kwargs)]
            return self._flatten(args[0], *dims)
        if name in ("view", "reshape") and len(args) == 3 and args[1] is _SHAPE and args[2] == -1:
            return self._flatten(args[0], 1)
        raise NoCounterpartError("is an operation without a NIR node", f"Supported: {SUPPORTED}, sums, flatten")

    def _flatten(self, value: Any, start_dim: int = 0, end_dim: int = -1) -> _Signal:
        self._functions += 1
        signal = _signal(value)
        # The same line of a time loop flattens the same node again.
        before = [n for n, (p, _, _) in self.wiring.nodes.items() if p == f"flatten of {_names(signal)}"]
        name = before[0] if before else self._name(f"flatten of {_names(signal)}", "flatten")
        self.wiring.nodes[name] = (f"flatten of {_names(signal)}", None, convert.flatten(start_dim, end_dim))
        return self.wiring.call(name, signal)

    def _output(self, value: Any) -> None:
        first = value[0] if isinstance(value, tuple | list) and value else value
        if isinstance(first, _State) and first.owner:
            first = _Signal(((first.owner, 0),))
        self.wiring.nodes["output"] = ("output", None, None)
        names = {s for s, _ in _signal(first).sources}
        self.wiring.edges += [(s, "output") for s in dict.fromkeys(s for s, _ in _signal(first).sources)]
        if not names:
            raise NoCounterpartError("returns nothing that a layer gives")

    def _name(self, path: str, kind: str) -> str:
        """The module's own name; numbers get a running number in front of what they are."""
        if path not in self.names:
            numbered = path.replace(".", "").isdecimal() or " " in path
            self.names[path] = f"{len(self.names) + 1:02d}_{kind}" if numbered else path
        return self.names[path]
