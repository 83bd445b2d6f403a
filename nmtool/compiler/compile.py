"""Graph and target in, frozen program out, with every finding, the utilisation and what quantisation cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.compiler.check import check_decays, check_graph, check_placement, check_program
from nmtool.compiler.incoming import OnGrid
from nmtool.compiler.links import constants, links
from nmtool.compiler.lower import Context, Lowered, lower, neuron_of
from nmtool.compiler.options import CompileOptions
from nmtool.compiler.passes import balance, latencies
from nmtool.compiler.place import Placement, place
from nmtool.compiler.program import InputSpec, Program
from nmtool.errors import Diagnostic, ModelError, raise_errors
from nmtool.fixedpoint.ops import DECAY_UNITY
from nmtool.ir.graph import Graph
from nmtool.ir.semantics import NeuronSemantics
from nmtool.quant.scheme import UNIT
from nmtool.target import TargetSpec

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Compiled:
    """Everything that compiling yields.

    Attributes:
        program: frozen; its ``info`` holds the quantisation report and the placement.
        findings: warnings and notes (errors were raised).
        placement: populations to cores.
        weights: integers per graph node, for writing back; a node that got two different quantisations is absent.
        biases: real biases on the grid, per neuron node.
        neurons: the difference equations as the chip realises them, per neuron node.
    """

    program: Program
    findings: tuple[Diagnostic, ...]
    placement: Placement
    weights: Mapping[str, OnGrid]
    biases: Mapping[str, F64]
    neurons: Mapping[str, NeuronSemantics]


def compile_graph(graph: Graph, spec: TargetSpec, options: CompileOptions | None = None) -> Compiled:
    """Compile a graph for a target.

    Args:
        graph: checked by :mod:`nmtool.ir`.
        spec: the target.
        options: the user's choices.

    Raises:
        FindingsError: every violated design rule at once.
        TargetError: a construct that has no counterpart on the target.
    """
    options = options or CompileOptions()
    raise_errors(check_graph(graph, spec))
    source = _input(graph, options)
    arriving, bias = links(graph), constants(graph, "steady-state-bias" in options.allow)
    order = tuple(n for n in graph.order() if graph.nodes[n].neuron is not None)
    context = Context(spec, options, source)
    parts = {
        n: lower(graph.nodes[n], tuple(k for k in arriving if k.target == n), bias[n], context) for n in order
    }
    program, findings = _assemble(graph, spec, source, order, parts)
    findings += check_program(program, spec) + check_decays(graph, program)
    raise_errors(findings)
    placement = place(program, spec)
    findings += check_placement(program, placement, spec)
    raise_errors(findings)
    info = {
        **program.info,
        "placement": placement.as_dict(),
        "n_cores": placement.n_cores,
        "n_chips": placement.n_chips,
        "options": {**vars(options), "allow": sorted(options.allow)},
    }
    return Compiled(
        replace(program, info=info),
        findings,
        placement,
        _unambiguous(parts),
        {n: part.bias for n, part in parts.items()},
        {n: realised(neuron_of(graph.nodes[n]), part) for n, part in parts.items()},
    )


def _unambiguous(parts: Mapping[str, Lowered]) -> dict[str, OnGrid]:
    """Quantised weights of nodes that feed one population; a node shared by several has no single grid."""
    found: dict[str, list[OnGrid]] = {}
    for part in parts.values():
        for node, weights in part.weights.items():
            found.setdefault(node, []).append(weights)
    return {node: weights[0] for node, weights in found.items() if len(weights) == 1}


def _input(graph: Graph, options: CompileOptions) -> InputSpec:
    model, shape = graph.model, graph.nodes[graph.input].out_shape
    if model.encoder == "spikes":
        return InputSpec(graph.input, shape, "spikes", model.n_steps, 1.0, 1)
    low, high = model.bounds
    if low != 0 or high <= 0:
        raise ModelError(
            "NM103",
            graph.input,
            f"analog input has bounds {low:g} to {high:g}; they have to start at 0",
            "Move the normalisation into the first layer's weights and bias",
        )
    top = (1 << options.input_bits) - 1
    return InputSpec(graph.input, shape, model.encoder, model.n_steps, high / top, top)


def _assemble(
    graph: Graph, spec: TargetSpec, source: InputSpec, order: tuple[str, ...], parts: Mapping[str, Lowered]
) -> tuple[Program, tuple[Diagnostic, ...]]:
    hosts = {n: p.host for n, p in parts.items() if p.host is not None}
    if len(hosts) > 1:
        raise ModelError(
            "NM103",
            graph.input,
            f"an analog input feeds {len(hosts)} populations ({', '.join(hosts)}); the host layer serves one",
            "Join them into one layer",
        )
    connections = tuple(c for n in order for c in parts[n].connections)
    latency = latencies(order, connections, source.name, frozenset(hosts))
    populations, findings = balance([parts[n].population for n in order], connections, latency, spec)
    output = _output(graph)
    return Program(
        spec.name,
        source,
        populations,
        connections,
        next(iter(hosts.values()), None),
        output,
        graph.model.readout,
        graph.model.dt_s,
        graph.model.class_labels,
        graph.sha256,
        {"quantisation": [parts[n].report for n in order]},
    ), findings


def _output(graph: Graph) -> str:
    """The population that the output node reads."""
    name = graph.readout_source()
    if graph.nodes[name].neuron is None:
        raise ModelError(
            "NM103",
            name,
            f"the output is a {type(graph.nodes[name].op).__name__}; it has to be one population of neurons",
            "End the network with a neuron layer (LIF, or LI for a membrane readout)",
        )
    return name


def realised(neuron: NeuronSemantics, part: Lowered) -> NeuronSemantics:
    """The chip's own decays, threshold and noise in real units; nothing else changes."""
    p = part.population
    shape = p.shape

    def full(a: Any) -> F64:
        return np.broadcast_to(np.asarray(a, np.float64), shape).copy()

    v_th = full(p.v_th_man) * UNIT * p.scale
    noise = part.report.get("noise")
    return replace(
        neuron,
        beta_mem=full(1 - p.decay_mem_q12 / DECAY_UNITY),
        beta_syn=None if neuron.beta_syn is None else full(1 - p.decay_syn_q12 / DECAY_UNITY),
        v_th=np.where(np.isfinite(neuron.v_th), v_th, neuron.v_th),
        noise_std=float(noise["sigma_realised"]) if noise else 0.0,
    )
