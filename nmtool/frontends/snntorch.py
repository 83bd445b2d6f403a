"""PyTorch and snnTorch networks to NIR without loss, by symbolic tracing of one step or of an unrolled time loop.

What has no exact counterpart is an error that names the module. Sums of signals become several edges into one node;
recurrent neurons become a cycle; batch normalisation is folded; dropout disappears.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nir
import numpy as np
import snntorch as snn
import torch
from torch import fx, nn
from torch.fx.proxy import TraceError

from nmtool.errors import Diagnostic, ModelError, raise_errors
from nmtool.frontends import layers as convert
from nmtool.frontends.layers import NoCounterpartError
from nmtool.frontends.wiring import (
    INPUT,
    OUTPUT,
    Fired,
    Item,
    Opaque,
    Signal,
    State,
    Wiring,
    item_of,
    signal,
    stacked,
)
from nmtool.ir import graph as ir
from nmtool.ir import order, shapes
from nmtool.ir.resolve import to_nir
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
SUPPORTED = ", ".join(t.__name__ for t in (*NEURONS, *SYNAPSES, *NORMS, nn.Identity, nn.Dropout))

_PROBE = (-1.0, -1e-3, 0.0, 1e-3, 1.0)
_EQUATION = ("forward", "fire", "mem_reset", "_base_state_function", "_base_sub", "_base_zero", "_base_int")


def export(
    layers: nn.Module, input_shape: tuple[int, ...], model: ModelSemantics
) -> tuple[nir.NIRGraph, dict[str, NeuronSemantics]]:
    """A network as a NIR graph and the difference equations of its neurons.

    Args:
        layers: ``nn.Sequential``, or a module whose ``forward`` computes one step, or loops over steps with the same
            wiring at each. Its first argument is the input, others are states. Batch norm uses running statistics.
        input_shape: of one sample and one step, without batch.
        model: graph-level facts; ``dt_s`` decides the time constants that stand for the decays.

    Returns:
        the graph and the exact equations, as :func:`nmtool.ir.graph.write` takes them.

    Raises:
        FindingsError: NM107 for everything that has no counterpart, NM104 where shapes do not fit.
        ModelError: NM107 if ``forward`` cannot be traced.
    """
    wiring = _Interpreter(_root(layers)).run()
    raise_errors(wiring.findings)
    found: list[Diagnostic] = []
    ops = _synapses(wiring, input_shape, found)
    raise_errors(found)
    neurons = _neurons(wiring, ops, found)
    raise_errors(found)
    for name, neuron in neurons.items():
        ops[name] = to_nir(neuron, model.dt_s)
    return nir.NIRGraph(ops, wiring.edges, type_check=False), neurons


def save(
    layers: nn.Module, input_shape: tuple[int, ...], model: ModelSemantics, path: Path
) -> tuple[Diagnostic, ...]:
    """:func:`export` into a file; returns notes on what other tools will read differently.

    Raises:
        ConfigError: NM002 if the file cannot be written.
    """
    graph, neurons = export(layers, input_shape, model)
    return ir.write(graph, model, neurons, path)


def _root(layers: nn.Module) -> nn.Module:
    return nn.Sequential(layers) if isinstance(layers, (*NEURONS, *SYNAPSES, *NORMS, *NOTHING)) else layers


def _refused(path: str, module: nn.Module | None, e: NoCounterpartError) -> Diagnostic:
    where = f"module {path} ({type(module).__name__})" if module is not None else f"operation {path}"
    return Diagnostic("NM107", where, e.message, e.hint)


class _Tracer(fx.Tracer):
    """Layers and neurons are opaque, whatever they contain."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = (*SYNAPSES, *NORMS, *NOTHING, snn.SpikingNeuron)
        return isinstance(m, known) or super().is_leaf_module(m, module_qualified_name)


class _Interpreter:
    """Follows a traced forward with signals in the place of tensors."""

    def __init__(self, root: nn.Module) -> None:
        self.root, self.wiring = root, Wiring()
        self._flattened: dict[tuple[str, ...], int] = {}

    def run(self) -> Wiring:
        """The wiring, with every finding.

        Raises:
            ModelError: NM107 if the forward is not traceable.
        """
        before = set(vars(self.root))
        try:
            traced = _Tracer().trace(self.root)
        except (TraceError, TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError) as e:
            message = f"its forward cannot be traced ({type(e).__name__}: {str(e).splitlines()[0][:200]})"
            hint = "Export a module whose forward computes one step with layers, sums and flatten"
            raise ModelError("NM107", f"module {type(self.root).__name__}", message, hint) from e
        values: dict[fx.Node, Any] = {}
        for node in traced.nodes:
            try:
                values[node] = self._node(node, values)
            except NoCounterpartError as e:
                module = self.root.get_submodule(str(node.target)) if node.op == "call_module" else None
                self.wiring.findings.append(_refused(_called(node), module, e))
                values[node] = Signal()
        for name in set(vars(self.root)) - before:
            delattr(self.root, name)
        for name in self.wiring.differing():
            item = self.wiring.items[name]
            message = "is used at several places with different inputs; NIR has no shared nodes"
            why = NoCounterpartError(message, "Make a copy of the module for each place")
            self.wiring.findings.append(_refused(item.path, item.module, why))
        return self.wiring

    def _node(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        args = fx.map_arg(node.args, lambda n: values.get(n, n))
        if node.op == "placeholder":
            if INPUT in self.wiring.items:
                return State()
            self.wiring.items[INPUT] = Item(INPUT, None, INPUT)
            return Signal(((INPUT, None),))
        if node.op == "get_attr":
            return _constant(operator.attrgetter(str(node.target))(self.root))
        if node.op == "call_module":
            return self._module(str(node.target), self.root.get_submodule(str(node.target)), args)
        if node.op == "output":
            return self._output(args[0])
        return self._function(_called(node), args, node.kwargs)

    def _module(self, path: str, module: nn.Module, args: tuple[Any, ...]) -> Any:
        given = signal(args[0])
        if isinstance(module, NOTHING):
            return given
        family = next((f for t, f in NEURONS.items() if isinstance(module, t)), None)
        if family is None:
            kind = "norm" if isinstance(module, NORMS) else SYNAPSES.get(type(module), ("", None))[0]
            if not kind:
                raise NoCounterpartError("is not supported", f"Supported: {SUPPORTED}, sums, flatten")
            return self.wiring.call(Item(path, module, kind), given)[1]
        if not _same_equation(module, family):
            raise NoCounterpartError(f"changes the equation of snntorch.{family}", f"Use snntorch.{family}")
        name, fired = self.wiring.call(Item(path, module, family), given, remembers=True)
        states = {s for a in args[1:] for s in ([a.owner] if isinstance(a, State) else signal(a).names)}
        if states - {None, name}:
            raise NoCounterpartError("is given the state of another neuron", "Pass its own states")
        if family in ("RLeaky", "RSynaptic") and f"{name}.w_rec" not in self.wiring.items:
            self.wiring.items[f"{name}.w_rec"] = Item(f"{path}.w_rec", module, "w_rec")
            self.wiring.edges += [(name, f"{name}.w_rec"), (f"{name}.w_rec", name)]
            self.wiring.late.add((name, f"{name}.w_rec"))
        return Fired(fired, State(name))

    def _function(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if name in ("add", "iadd", "add_") and "alpha" not in kwargs and len(args) == 2:
            return Signal(tuple(s for a in args for s in signal(a).sources))
        if name == "getitem":
            return item_of(*args)
        if name in ("getattr", "size", "dim"):
            return Opaque()
        if name in ("detach", "contiguous", "clone"):
            return args[0]
        if name == "stack":
            return stacked(args[0])
        if name == "flatten":
            return self._flatten(args[0], *args[1:], **kwargs)
        if name in ("view", "reshape") and len(args) == 3 and isinstance(args[1], Opaque) and args[2] == -1:
            return self._flatten(args[0], 1)
        raise NoCounterpartError(
            "is an operation without a NIR node", f"Supported: {SUPPORTED}, sums, flatten"
        )

    def _flatten(self, value: Any, start_dim: int = 0, end_dim: int = -1) -> Signal:
        given = signal(value)
        path = f"flatten({', '.join(given.names)}, {start_dim}, {end_dim})"
        return self.wiring.call(Item(path, None, "flatten", (start_dim, end_dim)), given)[1]

    def _output(self, value: Any) -> None:
        several = isinstance(value, tuple | list) and not isinstance(value, Signal | State | Fired | Opaque)
        first = value[0] if several and value else value
        out = Signal(((first.owner, 0),)) if isinstance(first, State) and first.owner else signal(first)
        self.wiring.items[OUTPUT] = Item(OUTPUT, None, OUTPUT)
        self.wiring.edges += [(s, OUTPUT) for s in out.names]
        if not out.names and not self.wiring.findings:
            raise NoCounterpartError("returns nothing that a layer gives")


def _called(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def _constant(value: Any) -> Signal:
    """A tensor that ``forward`` brings along: initial states, which are zero."""
    if isinstance(value, torch.Tensor) and not value.any():
        return Signal()
    raise NoCounterpartError("is a constant or parameter that is no layer's", "Keep values in layers")


def _same_equation(module: nn.Module, family: str) -> bool:
    """Whether a subclass of a snnTorch neuron still is one; a neuron with ``noise_std`` adds that and nothing else."""
    base = next(t for t, f in NEURONS.items() if f == family)
    kept = all(getattr(type(module), m, None) is getattr(base, m, None) for m in _EQUATION)
    return kept or hasattr(module, "noise_std")


def _check_spikes(module: Any) -> None:
    """The forward side of the surrogate has to be the step function that NIR means."""
    try:
        with torch.no_grad():
            given = convert.numbers(module.spike_grad(torch.tensor(_PROBE, device=module.threshold.device)))
    except (TypeError, ValueError, RuntimeError) as e:
        message = f"has a surrogate that cannot be evaluated ({type(e).__name__}: {e})"
        raise NoCounterpartError(message, "Use one of snntorch.surrogate") from e
    if not np.array_equal(given, np.array(_PROBE) > 0):
        raise NoCounterpartError(f"fires {given.tolist()} at {list(_PROBE)} above its threshold, not 0 or 1")


def _synapses(wiring: Wiring, input_shape: tuple[int, ...], found: list[Diagnostic]) -> dict[str, Any]:
    """NIR nodes of everything but neurons; an :class:`Item` still stands for those. Folds batch norm in ``wiring``."""
    ops: dict[str, Any] = {}
    for name, item in wiring.items.items():
        try:
            if item.kind == INPUT:
                ops[name] = nir.Input(input_type=np.array(input_shape))
            elif item.kind == "flatten" and item.module is None:
                ops[name] = convert.flatten(*item.args)
            elif type(item.module) in SYNAPSES:
                ops[name] = SYNAPSES[type(item.module)][1](item.module)
            else:
                ops[name] = item
        except NoCounterpartError as e:
            found.append(_refused(item.path, item.module, e))
            ops[name] = item
    for name in [n for n, item in wiring.items.items() if item.kind == "norm"]:
        try:
            _fold(name, wiring, ops)
        except NoCounterpartError as e:
            found.append(_refused(wiring.items[name].path, wiring.items[name].module, e))
    return ops


def _fold(name: str, wiring: Wiring, ops: dict[str, Any]) -> None:
    """Fold a batch norm into the only layer before it, which has no other use."""
    before = [a for a, b in wiring.edges if b == name]
    users = [b for a, b in wiring.edges if a in before]
    if len(before) != 1 or users != [name] or not hasattr(ops[before[0]], "weight"):
        raise NoCounterpartError("does not stand directly behind one Linear or Conv", "Move it there")
    ops[before[0]] = convert.fold_norm(ops[before[0]], wiring.items[name].module)
    wiring.edges = [(before[0] if a == name else a, b) for a, b in wiring.edges if b != name]
    del ops[name]


def _neurons(wiring: Wiring, ops: dict[str, Any], found: list[Diagnostic]) -> dict[str, NeuronSemantics]:
    """Neurons and recurrent synapses, whose shape follows from the layers before; completes ``ops``."""
    names = {n for n, item in wiring.items.items() if item.kind in NEURONS.values()}
    back, _ = order.feedback(INPUT, ops, wiring.edges, names)
    for a, b in wiring.misplaced(back):
        why = NoCounterpartError(
            f"takes what {a} gave at another step than the graph would", "Feed back spikes"
        )
        found.append(_refused(wiring.items[b].path, wiring.items[b].module, why))
    sources: dict[str, list[str]] = {n: [] for n in ops}
    for a, b in wiring.edges:
        sources[b].append(a)
    ahead = [e for e in wiring.edges if e not in back]
    _, outs, notes = shapes.infer(order.topological(ops, ahead), ops, sources)
    found += notes
    neurons = {}
    for name in [n for n, op in ops.items() if isinstance(op, Item) and n in outs]:
        item, shape = wiring.items[name], outs[name]
        try:
            if item.kind == "w_rec":
                ops[name] = convert.recurrence(item.module, shape)
            elif name in names:
                _check_spikes(item.module)
                neurons[name] = convert.neuron(item.module, item.kind, shape)
            elif item.kind == OUTPUT:
                ops[name] = nir.Output(output_type=np.array(shape))
        except NoCounterpartError as e:
            found.append(_refused(item.path, item.module, e))
    return neurons
