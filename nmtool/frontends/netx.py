"""lava-dl ``.net`` files straight into a :class:`Program`: the integers of the file, nothing requantised.

Accepted is what lava-dl 0.6.0's loader (``netx.hdf5.Network``) can run with CUBA neurons: ``input``,
``flatten``, ``dense``, ``dense_rec``, ``conv``. What it cannot load is refused, and so is what it drops without
a word: delays of a conv, graded spikes, weight exponents.

The file's weights are kept as they are, also where the loader loses some: it scales a dense matrix up to fill
8 bits, and Lava then clips. So a matrix of negative weights whose lowest is a power of two arrives there
changed, and one of zeros not at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nmtool.compiler.program import Connection, HostLayer, InputSpec, Population, Program, Readout
from nmtool.errors import ConfigError, Diagnostic, ModelError, raise_errors
from nmtool.frontends import net_file, net_layers
from nmtool.frontends.net_file import NetFile, Reader, Section
from nmtool.frontends.net_layers import INT16, INT32, Front
from nmtool.provenance import sha256_file

BUILDERS = {"dense": net_layers.dense, "dense_rec": net_layers.dense, "conv": net_layers.conv}
LAYERS = ("input", "flatten", *BUILDERS)
NEURONS = ("CUBA", "LOIHI")
INPUT_NAME = "input"
DEFAULT_STEPS = 16
INPUT_FRACTION_BITS = 8
SILENT_THRESHOLD = (1 << 17) - 1

_LAYER_KEYS = (
    "type shape weight weight_rec bias delay inFeatures outFeatures inChannels outChannels kernelSize stride"
)
_NEURON_KEYS = (
    "type iDecay vDecay vThMant refDelay gradedSpike theta wgtExp weight_exp messageBits scaleRho tauRho"
)
KNOWN = frozenset(
    [*_LAYER_KEYS.split(), "padding", "dilation", "groups", *(f"neuron/{k}" for k in _NEURON_KEYS.split())]
)


@dataclass(frozen=True)
class _Head:
    """The input, what the first layer connects to, and the neurons and the host's part of an input layer."""

    spec: InputSpec
    front: Front
    population: Population | None = None
    host: HostLayer | None = None


def read_net(
    path: Path,
    n_steps: int | None = None,
    target: str = "loihi2",
    num_layers: int | None = None,
    input_range: tuple[float, float] = (-1.0, 1.0),
    reader: Reader | None = None,
) -> Program:
    """Read a ``.net`` file.

    Shapes are ``(C, H, W)``, flattened in that order. An input layer *without* neurons takes spikes. One *with*
    neurons is driven through its bias: data ``x`` in [0, 1] become ``bias_man = round(W x' + B)`` with ``W`` and
    ``B`` of the file and ``x' = lo + (hi - lo) x``. The file does not say which ``x'`` the training fed;
    lava-dl's own networks were fed ``2 x - 1``.

    Args:
        path: the file.
        n_steps: default T; None takes ``simulation/tSample / Ts`` of the file, else 16.
        target: name of the target description that the program is for.
        num_layers: read only so many layers of the file, None for all.
        input_range: ``(lo, hi)`` above; without effect on an input layer without neurons.
        reader: a running HDF5 reader, for many files.

    Raises:
        ConfigError: NM001 no such file, NM004 ``num_layers`` or ``input_range``.
        ModelError: NM101 not such a file or damaged; NM103 value; NM104 shapes; NM105 no neurons; NM106 data
            set missing; NM108 not finite; NM202 weights that no synapse holds.
        FindingsError: all layers that cannot be read: NM102 type, NM103 neurons, NM105 place.
    """
    file = net_file.read(path, reader)
    layers = _take(path, file, num_layers)
    raise_errors(_refusals(layers))
    head = _head(layers, input_range)
    populations, connections = _wire(layers, head)
    if not populations:
        raise ModelError("NM105", str(path), f"has no neurons in its first {len(layers)} layers")
    steps, dt_s = _time(file.simulation, n_steps)
    notes = [*_ignored(layers), *_wide(connections), *_assumed(head, input_range)]
    return Program(
        target=target,
        input=replace(head.spec, n_steps=steps),
        populations=tuple(populations),
        connections=tuple(connections),
        host=head.host,
        output=populations[-1].name,
        readout=_readout(populations[-1]),
        dt_s=dt_s,
        graph_sha256=sha256_file(path),
        info={
            "format": "lava-dl .net",
            "layers": len(layers),
            "layers_in_file": len(file.layers),
            "notes": notes,
        },
    )


def _wire(layers: tuple[Section, ...], head: _Head) -> tuple[list[Population], list[Connection]]:
    """Every layer connected to the one before it."""
    front, populations = head.front, [head.population] if head.population else []
    connections: list[Connection] = []
    for layer in layers:
        kind = layer.text("type")
        if kind == "flatten":
            front = net_layers.flatten(layer, front)
        elif kind in BUILDERS:
            block = BUILDERS[kind](layer, front)
            populations.append(block.population)
            connections.extend(block.connections)
            front = Front(block.population.name, block.population.shape, block.population.latency)
    return populations, connections


def _take(path: Path, file: NetFile, num_layers: int | None) -> tuple[Section, ...]:
    n = len(file.layers)
    if num_layers is not None and not 1 <= num_layers <= n:
        raise ConfigError(
            "NM004", str(path), f"num_layers is {num_layers}, allowed is 1 .. {n}, the layers it has"
        )
    return file.layers[:num_layers]


def _refusals(layers: tuple[Section, ...]) -> Iterator[Diagnostic]:
    """Every layer that cannot be read, by name."""
    for i, layer in enumerate(layers):
        kind, where = layer.text("type"), f"{layer.file}: {layer.group}"
        stop = f"Read only the layers before it: --read layers={i}" if i else ""
        if kind not in LAYERS:
            found = f"type {kind!r} cannot be run by Lava; supported: {', '.join(LAYERS)}"
            yield Diagnostic("NM102", where, found, stop)
        elif kind == "input" and i:
            yield Diagnostic("NM105", where, "is an input layer; only layer/0 can be one", stop)
        elif "weight/real" in layer or "weight/imag" in layer:
            yield Diagnostic(
                "NM103", f"{where}/weight", f"'{kind}' has complex weights; supported: real ones", stop
            )
        elif "neuron" in layer and layer.text("neuron/type") not in NEURONS:
            found = f"'{kind}' has {layer.text('neuron/type')!r} neurons; supported: {', '.join(NEURONS)}"
            yield Diagnostic("NM103", f"{where}/neuron/type", found, stop)


def _ignored(layers: tuple[Section, ...]) -> Iterator[str]:
    for layer in layers:
        if unknown := sorted(set(layer.values) - KNOWN):
            yield f"{layer.group}: ignored, not part of the format: {', '.join(unknown)}"


def _wide(connections: list[Connection]) -> Iterator[str]:
    for c in connections:
        if c.weight_bits > 8:
            yield f"{c.name}: odd weights of both signs need 9 bits; Lava simulates them, no chip holds them"


def _assumed(head: _Head, input_range: tuple[float, float]) -> Iterator[str]:
    if head.host:
        low, high = input_range
        yield f"{INPUT_NAME}: 0 .. 1 taken as {low:g} .. {high:g} in training; the file does not say"


def _time(simulation: Section, n_steps: int | None) -> tuple[int, float]:
    """Steps, and seconds per step: SLAYER counts ``Ts`` and ``tSample`` in milliseconds."""
    ts = simulation.scalar("Ts", 1, INT32[1], default=1)
    if n_steps is not None and n_steps < 1:
        raise ConfigError("NM004", "n_steps", f"is {n_steps}, allowed is 1 or more")
    if n_steps is None:
        n_steps = max(1, simulation.scalar("tSample", 1, INT32[1], default=DEFAULT_STEPS * ts) // ts)
    return n_steps, ts / 1000.0


def _readout(output: Population) -> Readout:
    """Neurons that the highest threshold keeps silent are read by their membrane."""
    return "membrane" if int(output.v_th_man.min()) >= SILENT_THRESHOLD else "spike_count"


def _head(layers: tuple[Section, ...], input_range: tuple[float, float]) -> _Head:
    layer = layers[0]
    if layer.text("type") != "input":
        shape = _shape_of_input(layer)
    else:
        shape = net_layers.shape_of(layer)
        conv_next = len(layers) > 1 and layers[1].text("type") == "conv"
        if not conv_next and max(shape) == math.prod(shape):
            shape = (math.prod(shape),)
    if "neuron" not in layer or layer.text("type") != "input":
        return _Head(
            InputSpec(INPUT_NAME, shape, "spikes", DEFAULT_STEPS, 1.0, 1), Front(INPUT_NAME, shape, 0)
        )
    population = net_layers.population(layer, shape, latency=0)
    spec, host = _bias_drive(layer, population, input_range)
    return _Head(spec, Front(population.name, shape, 0), population, host)


def _shape_of_input(layer: Section) -> tuple[int, ...]:
    """The shape of the input where the file begins with a layer of synapses."""
    if layer.text("type") not in ("dense", "dense_rec"):
        found = f"is the first layer and a '{layer.text('type')}': the shape of its input is unknown"
        raise layer.error("NM106", "", found, "Put an input layer with its shape in front of it")
    n_out = math.prod(net_layers.shape_of(layer))
    return (net_layers.matrix(layer, "weight", n_out).shape[1],)


def _bias_drive(
    layer: Section, population: Population, input_range: tuple[float, float]
) -> tuple[InputSpec, HostLayer]:
    """``bias_man = round(W (lo + (hi - lo) x) + B)`` in integers, x in steps of 1 / (256 |W| (hi - lo))."""
    low, high = input_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError("NM004", "input_range", f"is {input_range}, expected two numbers, the lower first")
    weight = layer.scalar("weight", *INT16, default=net_layers.W_SCALE)
    bias = layer.scalar("bias", *INT16, default=0)
    if weight == 0:
        raise layer.error("NM103", "weight", "is 0, so that the input has no effect")
    ends = sorted(math.floor(weight * x + bias + 0.5) for x in input_range)
    if ends[0] < INT16[0] or ends[1] > INT16[1]:
        found = f"{input_range} makes biases of {ends[0]} .. {ends[1]} with the file's weight {weight}, bias {bias}"
        raise ConfigError("NM004", "input_range", f"{found}; Lava stores {INT16[0]} .. {INT16[1]}")
    lines = np.arange(population.n_neurons, dtype=np.int32)
    connection = Connection(
        name=f"{population.name}.weight",
        source=INPUT_NAME,
        target=population.name,
        kind="sparse",
        weights=np.full(lines.shape, 1 if weight > 0 else -1, np.int32),
        sign_mode="excitatory" if weight > 0 else "inhibitory",
        indices=np.stack([lines, lines]),
    )
    unity = 1 << INPUT_FRACTION_BITS
    levels = abs(weight) * (high - low) * unity
    start = np.full(lines.shape, round((weight * low + bias) * unity), np.int64)
    spec = InputSpec(INPUT_NAME, population.shape, "direct", DEFAULT_STEPS, 1.0 / levels, round(levels))
    return spec, HostLayer(connection, start, INPUT_FRACTION_BITS, ends[0], ends[1])
