"""The first synaptic layer of a ``direct`` network, in integers on the host, entering the chip as bias.

Loihi 1 takes no analog input. The image's weighted sum is constant over the steps, so it is computed once per sample
and written into the bias registers of the first population. It is host work, and reports price it as such.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nmtool.compiler.incoming import connection, rows_of
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


def host_layer(
    population: Population, link: Link, gain: F64, bias: F64, source: InputSpec, spec: TargetSpec
) -> tuple[Population, HostLayer, F64]:
    """Integer weights and shift so that ``acc / 2**shift`` is the bias mantissa.

    Returns:
        the population with the host's bias exponent, the layer, and the factor from real node weights to its integers.

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
    units_per_volt = 1 / population.scale
    top = largest_bias(link, gain, bias, source) * units_per_volt
    man_max = int(spec.number("neuron.bias_man_max"))
    exp = int(
        np.clip(
            np.ceil(np.log2(max(top, 1) / (man_max - 1))),
            spec.number("neuron.bias_exp_min"),
            spec.number("neuron.bias_exp_max"),
        )
    )
    per_man = units_per_volt / 2.0**exp
    effective = link.base * (link.factor * rows * source.x_scale * per_man)
    largest = np.abs(effective).max(initial=0.0)
    limit = 2.0 ** (int(spec.number("host.weight_bits")) - 1) - 1
    shift = int(np.clip(np.floor(np.log2(limit / largest)), 0, MAX_SHIFT)) if largest > 0 else 0
    integers = np.rint(effective * 2.0**shift).astype(np.int64)
    grid = scheme.Grid("mixed", int(spec.number("host.weight_bits")), int(-limit), int(limit))
    wired = connection(link, f"{link.source}->{link.target}", link.expand(integers), 0, grid, source.x_max)
    constant = np.rint(bias.ravel() * per_man * 2.0**shift).astype(np.int64)
    layer = HostLayer(wired, constant, shift, int(spec.number("neuron.bias_man_min")), man_max)
    silent = replace(
        population, bias_man=np.zeros(population.shape, np.int32), bias_exp=np.asarray(exp, np.int32)
    )
    return silent, layer, np.asarray(link.factor * rows * source.x_scale * per_man * 2.0**shift)
