"""One population of the graph with everything that flows into it, in the chip's integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.compiler.host import host_layer, largest_bias
from nmtool.compiler.incoming import Incoming, OnGrid, arrange, quantise
from nmtool.compiler.link import Link
from nmtool.compiler.options import CompileOptions
from nmtool.compiler.program import Connection, HostLayer, InputSpec, Population
from nmtool.errors import TargetError
from nmtool.fixedpoint.ops import DECAY_UNITY
from nmtool.ir.graph import Node
from nmtool.ir.semantics import NeuronSemantics
from nmtool.quant import scheme
from nmtool.quant.noise import NoiseMap, map_noise
from nmtool.target import TargetSpec

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Lowered:
    """The integers of one population.

    Attributes:
        population: latency still 0.
        connections: chip connections into it, delays in own time.
        host: the host's layer, if the input is analog and the target takes none.
        report: one row of the quantisation report (JSON types).
        weights: the integers again, per graph node whose weights were quantised.
        bias: everything that is added per step for a zero input, real volts on the grid, ``[*shape]``.
    """

    population: Population
    connections: tuple[Connection, ...]
    host: HostLayer | None
    report: dict[str, Any]
    weights: dict[str, OnGrid]
    bias: F64


@dataclass(frozen=True)
class Context:
    """What is the same for every population."""

    spec: TargetSpec
    options: CompileOptions
    source: InputSpec


def lower(node: Node, incoming: tuple[Link, ...], bias: F64, context: Context) -> Lowered:
    """Choose the scale of one population and quantise everything that belongs to it.

    Args:
        node: a neuron node.
        incoming: its links, host-driven ones too.
        bias: what the biases on the way add to the neuron's input per step, ``[*shape]``, before input gains.
        context: target, options and input.

    Raises:
        TargetError: NM205 where the neuron has no counterpart. Ranges are left to the design rules.
    """
    neuron, spec, source = neuron_of(node), context.spec, context.source
    gain = np.broadcast_to(
        neuron.gain_mem * (1.0 if neuron.beta_syn is None else neuron.gain_syn), node.out_shape
    )
    if (gain <= 0).any():
        raise TargetError(
            "NM205",
            node.name,
            f"input gain {float(gain.min())} is not positive",
            "Move the sign into the weights",
        )
    decay_syn = DECAY_UNITY if neuron.beta_syn is None else _lost(neuron.beta_syn)
    on_host = source.encoder == "direct" and not spec.flag("input.graded")
    host_link = next((k for k in incoming if on_host and k.source == source.name), None)
    chip_links = tuple(k for k in incoming if k is not host_link)
    graded = [source.encoder == "direct" and k.source == source.name for k in chip_links]
    payloads = tuple(source.x_max if g else 1 for g in graded)
    chip_links = tuple(_per_unit(k, source) if g else k for k, g in zip(chip_links, graded, strict=True))
    chip = arrange(chip_links, gain, payloads, spec, context.options.weight_bits, context.options.sign_split)
    constant = _constant(node, neuron, bias, gain, decay_syn, context)
    largest = float(np.abs(constant).max(initial=0))
    top_bias = largest_bias(host_link, gain, constant, source) if host_link else largest
    budget = _budget(neuron, chip, top_bias, decay_syn, context)
    scale, noise = _scale(node, neuron, budget, context)
    population = _population(node, neuron, scale, noise, constant, spec)
    connections, weights, rows = quantise(chip, scale)
    real_bias = np.broadcast_to(population.params.bias * population.scale, (population.n_neurons,))
    host = None
    if host_link is not None:
        part = host_layer(population, host_link, gain, constant, source, spec)
        population, host, real_bias = part.population, part.layer, part.bias
        rows.append(part.row)
        weights |= {host_link.node: part.weights} if host_link.node is not None else {}
    report = _report(neuron, scale, budget, noise, population, rows)
    return Lowered(population, connections, host, report, weights, real_bias.reshape(node.out_shape) / gain)


def neuron_of(node: Node) -> NeuronSemantics:
    """The neuron of a node that has to be one."""
    if node.neuron is None:
        raise TargetError("NM205", node.name, "is not a neuron", "Compile neuron nodes only")
    return node.neuron


def _per_unit(link: Link, source: InputSpec) -> Link:
    """A graded input arrives as an integer: fold its unit into the factor."""
    return replace(link, factor=link.factor * source.x_scale)


def _lost(beta: F64) -> NDArray[np.int64]:
    """Fraction lost per step in 1/4096, rounded half to even."""
    return np.rint(DECAY_UNITY * (1 - np.asarray(beta))).astype(np.int64)


def _constant(
    node: Node, neuron: NeuronSemantics, bias: F64, gain: F64, decay_syn: Any, context: Context
) -> F64:
    """Volts added per step, behind the input gain."""
    if np.any(bias) and neuron.beta_syn is not None:
        if "steady-state-bias" not in context.options.allow:
            raise TargetError(
                "NM205",
                node.name,
                "a bias enters a synaptic filter, which the target's bias register bypasses",
                "Remove the bias, or accept its steady state with --allow steady-state-bias",
            )
        bias = bias * DECAY_UNITY / np.maximum(decay_syn, 1)
    return np.broadcast_to(bias * gain + neuron.leak, node.out_shape).astype(np.float64)


def _budget(
    neuron: NeuronSemantics, chip: tuple[Incoming, ...], top_bias: float, decay_syn: Any, context: Context
) -> scheme.Budget:
    spec, drive = context.spec, sum(i.row_sum() for i in chip)
    top_th = float(neuron.v_th[np.isfinite(neuron.v_th)].max(initial=0.0))
    conv = any(i.link.kind == "conv" for i in chip)
    bias_max = spec.number("neuron.bias_man_max") * 2.0 ** spec.number("neuron.bias_exp_max")
    return scheme.Budget(
        weights=tuple(i.grid.scale_limit(i.effective) * scheme.UNIT for i in chip),
        threshold=spec.number("neuron.v_th_man_max") * scheme.UNIT / top_th if top_th > 0 else np.inf,
        bias=bias_max / top_bias if top_bias > 0 else np.inf,
        current=scheme.current_budget(drive, int(np.min(decay_syn))),
        membrane=np.inf if neuron.spiking else _membrane_budget(neuron, drive, top_bias, decay_syn, context),
        exponents=(0, 0)
        if conv
        else (int(spec.number("synapse.exp_min")), int(spec.number("synapse.exp_max"))),
    )


def _membrane_budget(
    neuron: NeuronSemantics, drive: float, top_bias: float, decay_syn: Any, context: Context
) -> float:
    """Largest scale at which a readout that must not spike stays below the largest threshold, for any input."""
    lost = np.maximum(_lost(neuron.beta_mem), DECAY_UNITY / context.source.n_steps)
    current = drive * DECAY_UNITY / max(int(np.min(decay_syn)), 1)
    largest = (current + top_bias) * DECAY_UNITY / float(lost.min())
    return context.spec.number("neuron.v_th_man_max") * scheme.UNIT / largest if largest > 0 else np.inf


def _scale(
    node: Node, neuron: NeuronSemantics, budget: scheme.Budget, context: Context
) -> tuple[scheme.Scale, NoiseMap | None]:
    scale = scheme.choose_scale(budget)
    if neuron.noise_std == 0 or "no-noise" in context.options.allow:
        return scale, None
    spec, options = context.spec, context.options
    mapped = None
    if spec.has("noise.exp_max"):
        exponents = (int(spec.number("noise.exp_min")), int(spec.number("noise.exp_max")))
        mapped = map_noise(
            neuron.noise_std, scale.units_per_volt, exponents, options.noise_model, options.noise_draws
        )
    if mapped is None:
        offered = (
            spec.cite("noise.exp_min") if spec.has("noise.exp_min") else "it publishes no noise generator"
        )
        raise TargetError(
            "NM208",
            node.name,
            f"noise of {neuron.noise_std:g} V cannot be produced by {spec.name} ({offered})",
            "Train with other noise, or drop it with --allow no-noise",
        )
    return scheme.with_scale(mapped.units_per_volt, budget), mapped


def _population(
    node: Node,
    neuron: NeuronSemantics,
    scale: scheme.Scale,
    noise: NoiseMap | None,
    constant: F64,
    spec: TargetSpec,
) -> Population:
    shape = node.out_shape
    per_volt = scale.units_per_volt
    v_th = np.where(
        np.isfinite(neuron.v_th),
        neuron.v_th * per_volt / scheme.UNIT,
        spec.number("neuron.v_th_man_max"),
    )
    man, exp = _mantissas(constant * per_volt, spec)
    syn = np.full(shape, DECAY_UNITY) if neuron.beta_syn is None else _lost(neuron.beta_syn)
    return Population(
        node.name,
        shape,
        _packed(syn, shape),
        _packed(np.minimum(_lost(neuron.beta_mem), int(spec.number("neuron.decay_max_q12"))), shape),
        _packed(np.rint(v_th), shape),
        np.ascontiguousarray(np.broadcast_to(man, shape), np.int32),
        _packed(exp, shape),
        1 / per_volt,
        0,
        noise=noise.spec if noise else None,
    )


def _packed(a: Any, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Scalar where all neurons agree, else ``[*shape]``; int32."""
    a = np.asarray(a)
    same = a.ndim == 0 or np.ptp(a) == 0
    return (
        np.asarray(a.flat[0], np.int32) if same else np.ascontiguousarray(np.broadcast_to(a, shape), np.int32)
    )


def _mantissas(units: F64, spec: TargetSpec) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bias as mantissa and the smallest exponent at which it fits, per neuron."""
    top = spec.number("neuron.bias_man_max")
    exp = np.clip(
        np.ceil(np.log2(np.maximum(np.abs(units), 1) / top)),
        spec.number("neuron.bias_exp_min"),
        spec.number("neuron.bias_exp_max"),
    )
    return np.rint(units / 2.0**exp).astype(np.int64), exp.astype(np.int64)


def _report(
    neuron: NeuronSemantics,
    scale: scheme.Scale,
    budget: scheme.Budget,
    noise: NoiseMap | None,
    population: Population,
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    per_volt = scale.units_per_volt
    lost = DECAY_UNITY * (1 - np.asarray(neuron.beta_mem))
    row: dict[str, Any] = {
        "name": population.name,
        "units_per_volt": per_volt,
        "limited_by": budget.binding,
        "connections": rows,
        "v_th_man": int(population.v_th_man.flat[0]),
        "v_th_resolution": scheme.UNIT / per_volt,
        "bias_resolution": float(2.0 ** population.bias_exp.max() / per_volt),
        "decay_mem_rounding": float(np.abs(np.asarray(population.decay_mem_q12) - lost).max() / DECAY_UNITY),
    }
    if noise:
        row["noise"] = {
            "sigma_model": neuron.noise_std,
            "sigma_realised": noise.std_units / per_volt,
            "exponent": noise.spec.exponent,
            "mantissa_offset": noise.spec.mantissa_offset,
            "at": noise.spec.at,
            "model": noise.spec.model,
            "draws": noise.spec.draws,
            "cdf_error_vs_gaussian": noise.cdf_error,
            "support_in_std": None if np.isinf(noise.support_std) else noise.support_std,
        }
    return row
