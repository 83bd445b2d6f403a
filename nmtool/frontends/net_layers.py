"""One layer of a ``.net`` file as neurons and synapses of a :class:`Program`, its integers unchanged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmtool.compiler.program import Connection, ConnectionKind, Population, SignMode
from nmtool.fixedpoint.ops import DECAY_UNITY
from nmtool.frontends.net_file import Int, Section

Int32 = NDArray[np.int32]

BIAS_EXP = 6
MAX_THRESHOLD = (1 << 18) - 1
DEFAULT_NEURON = {"iDecay": 0, "vDecay": DECAY_UNITY, "vThMant": 1 << 17}
MAX_DELAY = 62
INT16 = (-(1 << 15), (1 << 15) - 1)
INT32 = (-(1 << 31), (1 << 31) - 1)
MAX_SIZE = 1 << 24
W_SCALE = 64
"""Weight units per real weight, lava-dl's default. The file does not say; no spike depends on it."""

_NEURON_LIMITS = (
    ("refDelay", 1, "Lava's LIF has no refractory time"),
    ("gradedSpike", 0, "Lava's LIF sends binary spikes"),
    ("messageBits", 0, "Lava's LIF sends binary spikes"),
    ("wgtExp", 0, "netx drops it"),
    ("weight_exp", 0, "netx drops it"),
)


@dataclass(frozen=True)
class Front:
    """Where the next layer connects: a population or the input, its shape as wired, and its latency."""

    name: str
    shape: tuple[int, ...]
    latency: int


class Block(NamedTuple):
    """What one layer adds."""

    population: Population
    connections: tuple[Connection, ...]


class Synapses(NamedTuple):
    """Weights on a grid that Lava keeps, and how to read them (see :class:`Connection`)."""

    weights: Int32
    weight_exp: int
    weight_bits: int
    sign_mode: SignMode


def shape_of(layer: Section) -> tuple[int, ...]:
    """``(n,)`` or ``(C, H, W)`` as the file declares it.

    Raises:
        ModelError: NM106 missing, NM104 another number of axes or too many neurons.
    """
    value = layer.integers("shape", 1, MAX_SIZE).reshape(-1).tolist()
    if len(value) not in (1, 3) or math.prod(value) > MAX_SIZE:
        raise layer.error(
            "NM104", "shape", f"is {value}, expected [n] or [C, H, W], {MAX_SIZE} neurons at most"
        )
    return tuple(value)


def flatten(layer: Section, front: Front) -> Front:
    """The same lines in C, H, W order.

    Raises:
        ModelError: NM104 if the declared shape has another size.
    """
    n = math.prod(front.shape)
    if "shape" in layer and math.prod(shape_of(layer)) != n:
        raise layer.error(
            "NM104", "shape", f"is {shape_of(layer)}, but '{front.name}' has shape {front.shape}"
        )
    return replace(front, shape=(n,))


def dense(layer: Section, front: Front) -> Block:
    """``dense`` or ``dense_rec``. A delay lies in the synapses of the layer that declares it, as netx has it.

    Raises:
        ModelError: see :func:`nmtool.frontends.netx.read_net`.
    """
    n = math.prod(shape_of(layer))
    if len(front.shape) != 1:
        found = f"is dense, but its input '{front.name}' has shape {front.shape}"
        raise layer.error("NM104", "", found, "A flatten layer belongs between them")
    weights = matrix(layer, "weight", n, front.shape[0])
    _agree(layer, {"outFeatures": n, "inFeatures": front.shape[0]})
    delays = _delays(layer, weights.shape)
    neurons = population(layer, (n,), front.latency + 1)
    forward = replace(_connection(layer, "weight", weights, front.name, neurons), delay_steps=delays)
    if layer.text("type") == "dense":
        return Block(neurons, (forward,))
    if delays.any():
        found = "is not zero in a dense_rec layer, whose weight exponent netx then drops"
        raise layer.error("NM103", "delay", found, "Train this layer without delays")
    again = _connection(layer, "weight_rec", matrix(layer, "weight_rec", n, n), neurons.name, neurons)
    return Block(neurons, (forward, replace(again, delay_steps=np.ones((), np.int32))))


def matrix(layer: Section, key: str, n_out: int, n_in: int | None = None) -> Int:
    """Weights ``[n_out, n_in]``; a single row may be stored flat.

    Raises:
        ModelError: NM104 if they have another shape.
    """
    w = layer.integers(key, *INT32)
    if w.ndim == 1 and w.size % n_out == 0:
        w = w.reshape(n_out, -1)
    if w.ndim != 2 or w.shape[0] != n_out or n_in not in (None, w.shape[1]):
        raise layer.error("NM104", key, f"has shape {w.shape}, expected ({n_out}, {n_in or 'inputs'})")
    return w


def conv(layer: Section, front: Front) -> Block:
    """2-D cross-correlation in torch's orientation; old files have a time axis of length 1 behind the kernel.

    Raises:
        ModelError: see :func:`nmtool.frontends.netx.read_net`.
    """
    if len(front.shape) != 3:
        found = f"is a conv, but its input '{front.name}' has shape {front.shape}, expected (C, H, W)"
        raise layer.error("NM104", "", found)
    w = layer.integers("weight", *INT32)
    w = w[..., 0] if w.ndim == 5 and w.shape[-1] == 1 else w
    groups, c_in = layer.scalar("groups", 1, MAX_SIZE), front.shape[0]
    if w.ndim != 4 or w.shape[1] * groups != c_in or w.shape[0] % groups:
        found = f"has shape {w.shape}, expected (C_out, {c_in} / groups, kH, kW), groups is {groups}"
        raise layer.error("NM104", "weight", found)
    _agree(layer, {"inChannels": c_in, "outChannels": w.shape[0]})
    if "delay" in layer and layer.integers("delay", 0, INT32[1]).any():
        found = "is not zero in a conv layer; netx drops it"
        raise layer.error("NM103", "delay", found, "Train this layer without delays")
    geometry = _geometry(layer, front.shape, w)
    out_shape = geometry["out_shape"]
    neurons = population(layer, out_shape, front.latency + 1)
    return Block(
        neurons, (replace(_connection(layer, "weight", w, front.name, neurons), groups=groups, **geometry),)
    )


def _geometry(layer: Section, in_shape: tuple[int, ...], w: Int) -> dict[str, Any]:
    """The fields of a conv :class:`Connection` that say where its kernel goes."""
    kernel = (w.shape[2], w.shape[3])
    if "kernelSize" in layer and _pair(layer, "kernelSize", 1) != kernel:
        found = f"is {_pair(layer, 'kernelSize', 1)}, but weight has shape {w.shape}"
        raise layer.error("NM104", "kernelSize", found)
    stride, padding, dilation = (
        _pair(layer, k, low) for k, low in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    axes = zip(in_shape[1:], kernel, stride, padding, dilation, strict=True)
    made = (w.shape[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes))
    if shape_of(layer) != made:
        how = f"kernel {kernel}, stride {stride}, padding {padding} and dilation {dilation}"
        raise layer.error("NM104", "shape", f"is {shape_of(layer)}, but {how} make {made} of {in_shape}")
    return {
        "in_shape": in_shape,
        "out_shape": made,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
    }


def _pair(layer: Section, key: str, low: int) -> tuple[int, int]:
    """(H, W); one value stands for both."""
    value = layer.integers(key, low, MAX_SIZE).reshape(-1)
    if value.size not in (1, 2):
        raise layer.error("NM104", key, f"holds {value.size} values, expected (H, W)")
    return int(value[0]), int(value[-1])


def _agree(layer: Section, counts: Mapping[str, int]) -> None:
    """Counts that the file repeats must be those of the weights and of the layer before."""
    for key, n in counts.items():
        found = layer.scalar(key, *INT32, default=n)
        if found != n:
            raise layer.error("NM104", key, f"is {found}, but the weights and the layer before have {n}")


def _delays(layer: Section, shape: tuple[int, ...]) -> Int32:
    """Steps per synapse: one for all, or per row, column or synapse; a vector that fits both is the rows'."""
    if "delay" not in layer:
        return np.zeros((), np.int32)
    d = layer.integers("delay", 0, MAX_DELAY).astype(np.int32)
    if d.size == 1 or not d.any():
        return np.asarray(d.max(), np.int32)
    if d.shape == shape[:1]:
        d = d[:, None]
    elif d.shape not in (shape[1:], shape):
        found = f"has shape {d.shape}, expected one value, {shape[:1]}, {shape[1:]} or {shape}"
        raise layer.error("NM104", "delay", found)
    return np.ascontiguousarray(np.broadcast_to(d, shape))


def _connection(layer: Section, key: str, weights: Int, source: str, target: Population) -> Connection:
    synapses = on_grid(layer, key, weights)
    kind: ConnectionKind = "conv" if weights.ndim == 4 else "dense"
    return Connection(f"{target.name}.{key}", source, target.name, kind, **synapses._asdict())


def on_grid(layer: Section, key: str, weights: Int) -> Synapses:
    """Integers that Lava keeps when it truncates, with the net effect of ``weights``.

    One sign: 8 bits as they are. Both signs: even ones as they are; odd ones doubled, with the sum halved
    again, where that fits (not in a conv, which has no exponent), else at 9 bits, which Lava does not truncate.

    Raises:
        ModelError: NM202 if they are outside what lava-dl exports and Lava keeps.
    """
    w = weights.astype(np.int32)
    low, high = int(w.min()), int(w.max())
    if low >= 0 and high <= 255:
        return Synapses(w, 0, 8, "excitatory")
    if low >= -255 and high <= 0:
        return Synapses(w, 0, 8, "inhibitory")
    if low < -256 or high > 254:
        found = f"holds {low} .. {high}; a synapse holds 0 .. 255, -255 .. 0 or, with both signs, -256 .. 254"
        raise layer.error("NM202", key, found, "Export again with lava-dl, whose quantiser clamps")
    if not (w & 1).any():
        return Synapses(w, 0, 8, "mixed")
    if w.ndim == 2 and low >= -128 and high <= 127:
        return Synapses(w << 1, -1, 8, "mixed")
    return Synapses(w, 0, 9, "mixed")


def population(layer: Section, shape: tuple[int, ...], latency: int) -> Population:
    """The CUBA neurons of a layer; a dense layer without any gets netx's: they integrate and never spike.

    Raises:
        ModelError: NM103 if the file asks for what Lava's LIF does not do; NM104, NM106 as everywhere.
    """
    kind, bias = layer.text("type"), np.zeros((), np.int32)
    if "neuron" in layer:
        _check_neuron(layer)
        limits = {"iDecay": DECAY_UNITY, "vDecay": DECAY_UNITY, "vThMant": MAX_THRESHOLD}
        registers = {k: _per_neuron(layer, f"neuron/{k}", shape, (0, top)) for k, top in limits.items()}
    elif kind in ("dense", "dense_rec"):
        registers = {k: np.asarray(v, np.int32) for k, v in DEFAULT_NEURON.items()}
    else:
        raise layer.error("NM106", "neuron", "is missing; only a dense layer may have no neurons")
    if "bias" in layer and kind != "input":
        bias = _per_neuron(layer, "bias", shape, INT16)
    return Population(
        name=kind + layer.group.rpartition("/")[2],
        shape=shape,
        decay_syn_q12=registers["iDecay"],
        decay_mem_q12=registers["vDecay"],
        v_th_man=registers["vThMant"],
        bias_man=bias,
        bias_exp=np.asarray(BIAS_EXP, np.int32),
        scale=1.0 / (W_SCALE << BIAS_EXP),
        latency=latency,
    )


def _per_neuron(layer: Section, key: str, shape: tuple[int, ...], allowed: tuple[int, int]) -> Int32:
    """One value for all neurons, or one per channel (of a dense layer: per neuron)."""
    value = layer.integers(key, *allowed).astype(np.int32)
    if value.size == 1:
        return value.reshape(())
    if value.size != shape[0]:
        raise layer.error("NM104", key, f"has shape {value.shape}, expected one value or {shape[:1]}")
    return np.ascontiguousarray(np.broadcast_to(value.reshape(-1, *(1 for _ in shape[1:])), shape))


def _check_neuron(layer: Section) -> None:
    """Refuse what the file asks for and Lava's LIF would not do."""
    for key, wanted, why in _NEURON_LIMITS:
        found = layer.scalar(f"neuron/{key}", *INT32, default=wanted)
        if found != wanted:
            raise layer.error("NM103", f"neuron/{key}", f"is {found}, supported is {wanted}: {why}")
