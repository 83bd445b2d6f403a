"""The first synaptic layer of a ``direct`` network, in integers on the host, entering the chip as bias.

Loihi 1 takes no analog input. The image's weighted sum is constant over the steps, so it is computed once per sample
and written into the bias registers of the first population. It is host work, and reports price it as such.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.compiler.incoming import OnGrid, connection, rows_of
from nmtool.compiler.link import Link
from nmtool.compiler.program import HostLayer, InputSpec, Population
from nmtool.errors import TargetError
from nmtool.quant import scheme
from nmtool.target import TargetSpec

F64 = NDArray[np.float64]
MAX_SHIFT = 30


def largest_bias(link: Link, gain: F64, bias: F64, source: InputSpec) -> float:
    """Largest absolute bias in volts that any input can cause: an interval bound, so that nothing ever clips.

    Args:
        link: the first layer.
        gain: input gain of the population, ``[*shape]``.
        bias: constant part in volts per step, ``[*shape]``.
        source: gives the range of the input.
    """
    rows = rows_of(link, gain)
    top = source.x_max * source.x_scale
    high = _row_sums(link, np.maximum(link.base, 0) * (link.factor * rows)) * top
    low = _row_sums(link, np.minimum(link.base, 0) * (link.factor * rows)) * top
    flat = bias.ravel()
    return float(max(np.abs(flat + high).max(initial=0), np.abs(flat + low).max(initial=0)))


def _row_sums(link: Link, effective: F64) -> F64:
    """Sum of one row's weights, per output neuron ``[N]`` (a convolution's border counts as full)."""
    w = link.expand(effective)
    n = int(np.prod(link.out_shape))
    if link.kind == "sparse" and link.indices is not None:
        return np.bincount(link.indices[0], w, minlength=n).astype(np.float64)
    sums = w.reshape(w.shape[0], -1).sum(axis=1)
    result: F64 = np.repeat(sums, n // len(sums))
    return result


@dataclass(frozen=True)
class HostPart:
    """What moving a layer to the host yields.

    Attributes:
        population: with the host's bias exponent and no bias of its own.
        layer: the host's layer.
        weights: its integers, per real unit of the graph node's weights.
        bias: what a zero input adds per step, volts ``[N]``.
        row: for the quantisation report.
    """

    population: Population
    layer: HostLayer
    weights: OnGrid
    bias: F64
    row: dict[str, Any]


def host_layer(
    population: Population, link: Link, gain: F64, bias: F64, source: InputSpec, spec: TargetSpec
) -> HostPart:
    """Integer weights and shift so that ``acc / 2**shift`` is the bias mantissa.

    Raises:
        TargetError: NM205 if the first layer has delays.
    """
    if link.delay_steps.any():
        raise TargetError(
            "NM205",
            link.target,
            "a delay before the first layer has no meaning for a constant input",
            "Remove it",
        )
    rows = rows_of(link, gain)
    units_per_volt, bits = 1 / population.scale, int(spec.number("host.weight_bits"))
    top = largest_bias(link, gain, bias, source) * units_per_volt
    man_max = int(spec.number("neuron.bias_man_max"))
    exps = (spec.number("neuron.bias_exp_min"), spec.number("neuron.bias_exp_max"))
    exp = int(np.clip(np.ceil(np.log2(max(top, 1) / (man_max - 1))), *exps))
    per_man = units_per_volt / 2.0**exp
    per_weight = np.asarray(link.factor * rows * source.x_scale * per_man)
    limit = 2.0 ** (bits - 1) - 1
    largest = np.abs(link.base * per_weight).max(initial=0.0)
    shift = int(np.clip(np.floor(np.log2(limit / largest)), 0, MAX_SHIFT)) if largest > 0 else 0
    real = link.base * per_weight * 2.0**shift
    integers = np.rint(real).astype(np.int64)
    grid = scheme.Grid("mixed", bits, int(-limit), int(limit))
    wired = connection(link, f"{link.source}->{link.target}", link.expand(integers), 0, grid, source.x_max)
    constant = np.rint(bias.ravel() * per_man * 2.0**shift).astype(np.int64)
    no_bias = np.zeros(population.shape, np.int32)
    row = {
        "connection": wired.name,
        "on": "host",
        "weight_bits": bits,
        **scheme.error_report(real, integers, 1.0),
    }
    return HostPart(
        replace(population, bias_man=no_bias, bias_exp=np.asarray(exp, np.int32)),
        HostLayer(wired, constant, shift, int(spec.number("neuron.bias_man_min")), man_max),
        OnGrid(integers, per_weight * 2.0**shift, bits),
        constant / 2.0**shift / per_man,
        row,
    )
