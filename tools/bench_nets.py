"""The networks of the benchmarks: one description, from which an integer program and a float snnTorch net are built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import snntorch
import torch
from numpy.typing import NDArray

from nmtool.compiler.program import Connection, HostLayer, InputSpec, Population, Program

LEAK_Q12 = 2048
RATE = 0.1
WEIGHT_STD = 40.0
DT_S = 1e-3


@dataclass(frozen=True)
class Synapse:
    """Dense if ``kernel`` is 0, else a convolution with ``kernel // 2`` padding."""

    source: str
    target: str
    kernel: int = 0
    stride: int = 1


@dataclass(frozen=True)
class Net:
    """Populations by name in order, each with its shape; the first is the input.

    Attributes:
        direct: the input is an image that is the same at every step; else spikes.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    synapses: tuple[Synapse, ...]
    n_steps: int
    direct: bool

    @property
    def input(self) -> str:
        """Name of the input."""
        return next(iter(self.shapes))


def mlp() -> Net:
    """784-256-128-10 on spikes, 64 steps."""
    shapes = {"in": (784,), "fc1": (256,), "fc2": (128,), "fc3": (10,)}
    names = list(shapes)
    pairs = zip(names, names[1:], strict=False)
    return Net("mlp", shapes, tuple(Synapse(a, b) for a, b in pairs), 64, False)


def vgg11() -> Net:
    """VGG-11 widths on 32 x 32 x 3, 4 steps; a stride stands where VGG pools, so that the products are as many."""
    plan = ((64, 1), (128, 2), (256, 2), (256, 1), (512, 2), (512, 1), (512, 2), (512, 1))
    shapes: dict[str, tuple[int, ...]] = {"in": (3, 32, 32)}
    synapses = []
    last, side = "in", 32
    for i, (width, stride) in enumerate(plan):
        name, side = f"conv{i + 1}", side // stride
        shapes[name] = (width, side, side)
        synapses.append(Synapse(last, name, 3, stride))
        last = name
    shapes["fc"] = (10,)
    return Net("vgg11", shapes, (*synapses, Synapse(last, "fc")), 4, True)


def wrn16() -> Net:
    """WideResNet-16-4 on 32 x 32 x 3, 4 steps: spikes of a block's input are added to its second current."""
    shapes: dict[str, tuple[int, ...]] = {"in": (3, 32, 32), "stem": (16, 32, 32)}
    synapses = [Synapse("in", "stem", 3)]
    last, side = "stem", 32
    for group, width in enumerate((64, 128, 256)):
        for block in range(2):
            stride = 2 if group and not block else 1
            side //= stride
            a, b = f"g{group}b{block}a", f"g{group}b{block}b"
            shapes[a] = shapes[b] = (width, side, side)
            synapses += [Synapse(last, a, 3, stride), Synapse(a, b, 3), Synapse(last, b, 1, stride)]
            last = b
    shapes["fc"] = (10,)
    return Net("wrn16", shapes, (*synapses, Synapse(last, "fc")), 4, True)


def even_weights(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Mixed-sign 8-bit weights as the chip holds them."""
    return np.clip(2 * np.rint(rng.normal(0, WEIGHT_STD / 2, shape)), -256, 254).astype(np.int32)


def _weights(net: Net, s: Synapse, rng: np.random.Generator) -> NDArray[np.int32]:
    source, target = net.shapes[s.source], net.shapes[s.target]
    if s.kernel:
        return even_weights(rng, (target[0], source[0], s.kernel, s.kernel))
    return even_weights(rng, (int(np.prod(target)), int(np.prod(source))))


def fan_in(net: Net, name: str) -> int:
    """Synapses per neuron (full, at a border too)."""
    parts = [s for s in net.synapses if s.target == name]
    return sum(
        net.shapes[s.source][0] * s.kernel**2 if s.kernel else int(np.prod(net.shapes[s.source]))
        for s in parts
    )


def thresholds(net: Net) -> dict[str, int]:
    """Threshold mantissas of about 1.2 standard deviations of a membrane whose inputs fire at :data:`RATE`."""
    return {n: int(1.2 * WEIGHT_STD * np.sqrt(1.33 * RATE * fan_in(net, n))) for n in list(net.shapes)[1:]}


def build(net: Net, seed: int = 0) -> Program:
    """The integer program with random weights."""
    rng = np.random.default_rng(seed)
    level = thresholds(net)

    def constant(value: int) -> NDArray[np.int32]:
        return np.array(value, np.int32)

    populations = tuple(
        Population(n, shape, constant(4096), constant(LEAK_Q12), constant(level[n]), constant(0), constant(0), 1.0, i)
        for i, (n, shape) in enumerate(net.shapes.items()) if i
    )  # fmt: skip
    connections = [_connection(net, s, _weights(net, s, rng)) for s in net.synapses]
    host = None
    if net.direct:
        first, connections = connections[0], connections[1:]
        n = int(np.prod(net.shapes[first.target]))
        # an image of 255 units and weights of std 40 give biases of the size of the threshold
        host = HostLayer(first, np.zeros(n, np.int64), 3, -(1 << 20), 1 << 20)
    spec = InputSpec(net.input, net.shapes[net.input], "direct" if net.direct else "spikes", net.n_steps)
    return Program(
        "bench", spec, populations, tuple(connections), host, populations[-1].name, "spike_count", DT_S
    )


def _connection(net: Net, s: Synapse, weights: NDArray[np.int32]) -> Connection:
    name = f"{s.source}->{s.target}"
    if not s.kernel:
        return Connection(name, s.source, s.target, "dense", weights)
    source, target = net.shapes[s.source], net.shapes[s.target]
    return Connection(
        name, s.source, s.target, "conv", weights, stride=(s.stride,) * 2, padding=(s.kernel // 2,) * 2,
        in_shape=(source[0], source[1], source[2]), out_shape=(target[0], target[1], target[2]),
    )  # fmt: skip


def sample(net: Net, n_samples: int, seed: int = 1) -> NDArray[Any]:
    """Input: spikes at :data:`RATE`, or images."""
    rng = np.random.default_rng(seed)
    shape = net.shapes[net.input]
    if net.direct:
        return rng.random((n_samples, *shape), np.float32)
    return (rng.random((net.n_steps, n_samples, *shape)) < RATE).astype(np.uint8)


class FloatNet(torch.nn.Module):
    """The same network in snnTorch: one module per synapse, one Leaky per population, a loop over time."""

    def __init__(self, net: Net, program: Program) -> None:
        super().__init__()
        self.net = net
        self.synapses = torch.nn.ModuleList()
        known = {
            c.name: c for c in (*program.connections, *([program.host.connection] if program.host else []))
        }
        for s in net.synapses:
            w = known[f"{s.source}->{s.target}"].weights
            layer: Any = (
                torch.nn.Conv2d(w.shape[1], w.shape[0], s.kernel, s.stride, s.kernel // 2, bias=False)
                if s.kernel
                else torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
            )
            layer.weight.data = torch.from_numpy(w).float() / 64
            self.synapses.append(layer)
        beta = 1 - LEAK_Q12 / 4096
        self.neurons = torch.nn.ModuleDict(
            {
                n: snntorch.Leaky(beta=beta, threshold=t / 64, reset_mechanism="zero")
                for n, t in thresholds(net).items()
            }
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Spike counts ``[B, K]`` of ``[B, *shape]`` (direct) or ``[T, B, *shape]``."""
        mem = {n: neuron.init_leaky() for n, neuron in self.neurons.items()}
        out = []
        for t in range(self.net.n_steps):
            spikes = {self.net.input: x if self.net.direct else x[t]}
            for name, neuron in self.neurons.items():
                current: Any = 0
                for s, layer in zip(self.net.synapses, self.synapses, strict=True):
                    if s.target == name:
                        source = spikes[s.source]
                        current = current + layer(source if s.kernel else source.flatten(1))
                spikes[name], mem[name] = neuron(current, mem[name])
            out.append(spikes[name])
        return torch.stack(out).sum(0)
