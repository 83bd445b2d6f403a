"""Recipe to network: synaptic layers that run for all steps at once, and neurons that scan over time."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmtool.config import Recipe
from nmtool.data.datasets import DataSpec
from nmtool.errors import ConfigError
from nmtool.ir.semantics import ModelSemantics
from nmtool.surrogate import Surrogate
from nmtool.train.neurons import NoisyLeaky
from nmtool.train.robust.base import LayerTrace


class Forward(NamedTuple):
    """``logits`` ``[B, K]``, and one trace per neuron layer in network order."""

    logits: Tensor
    traces: list[LayerTrace]


class SpikingNet(nn.Module):
    """A feed-forward spiking network.

    Attributes:
        layers: synaptic layers, normalisation and neurons in order, by name; the last one is the population that
            is read. This is what an exporter walks.
        model: encoder, steps, readout, bounds and classes.
    """

    def __init__(self, layers: OrderedDict[str, nn.Module], model: ModelSemantics) -> None:
        super().__init__()
        self.layers = nn.Sequential(layers)
        self.model = model

    def forward(self, x: Tensor, generator: torch.Generator | None = None, noise: bool = True) -> Forward:
        """Class scores and traces.

        Synapses see the steps as one long batch ``[T * B, ...]``; before the first neurons of a ``direct`` network
        all steps are equal, so there they see ``[B, ...]`` once.

        Args:
            x: ``[B, *shape]`` in ``model.bounds``.
            generator: source of the neurons' noise and of rate coding. None: no noise (and no rate coding).
            noise: False keeps the neurons free of noise although there is a generator.

        Raises:
            ValueError: a rate-coded network without a generator.
        """
        n_steps, n_samples = self.model.n_steps, x.shape[0]
        repeated = self.model.encoder == "direct"
        h = x if repeated else _rate_code(x, n_steps, generator).flatten(0, 1)
        traces: list[LayerTrace] = []
        for name, module in self.layers.named_children():
            if isinstance(module, NoisyLeaky):
                steps = (
                    h.unsqueeze(0).expand(n_steps, *h.shape)
                    if repeated
                    else h.unflatten(0, (n_steps, n_samples))
                )
                is_output = module is self.layers[-1]
                traces.append(module.trace(name, steps, generator if noise else None, is_output))
                h, repeated = traces[-1].spikes.flatten(0, 1), False
            else:
                h = module(h)
        out = traces[-1]
        logits = out.spikes.sum(0) if self.model.readout == "spike_count" else out.v_pre[-1]
        return Forward(logits, traces)


def _rate_code(x: Tensor, n_steps: int, generator: torch.Generator | None) -> Tensor:
    """Bernoulli spikes ``[T, B, ...]`` with probability x; the derivative by x is 1 (straight through)."""
    if generator is None:
        raise ValueError("a rate-coded network needs a generator")
    draw = torch.rand((n_steps, *x.shape), generator=generator, device=x.device, dtype=x.dtype)
    return (draw < x).to(x.dtype) + (x - x.detach())


def build_net(recipe: Recipe, data: DataSpec) -> SpikingNet:
    """The recipe's network with weights drawn from its seed; the global random state stays as it was.

    Raises:
        ConfigError: NM004 if the data do not fit the recipe's kind of network or encoder.
    """
    if recipe.network.kind == "conv" and len(data.shape) != 3:
        raise ConfigError(
            "NM004",
            "network.kind",
            f"is 'conv', but samples of {data.name} are {data.shape}, not (C, H, W)",
            "Use kind = 'mlp'",
        )
    if recipe.network.encoder == "rate" and not 0 <= data.bounds[0] < data.bounds[1] <= 1:
        raise ConfigError(
            "NM004",
            "network.encoder",
            f"is 'rate', but {data.name} spans {data.bounds}, not [0, 1]",
            "Use encoder = 'direct'",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        layers = OrderedDict(_layers(recipe, data))
    _wake_output_(layers, recipe)
    n = recipe.network
    model = ModelSemantics(
        dt_s=n.dt_s,
        encoder=n.encoder,
        n_steps=n.n_steps,
        readout=n.readout,
        bounds=data.bounds,
        class_labels=data.class_labels,
        data=data.name,
    )
    return SpikingNet(layers, model)


def _layers(recipe: Recipe, data: DataSpec) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules in order: conv1, (norm1,) lif1, ..., flatten, fc1, ..."""
    n = recipe.network
    batch_norm, shape, index = n.norm == "batch", data.shape, 0
    for channels in n.channels:
        index += 1
        yield f"conv{index}", nn.Conv2d(shape[0], channels, n.kernel, n.stride, n.kernel // 2, bias=n.bias)
        shape = (channels, *((s + 2 * (n.kernel // 2) - n.kernel) // n.stride + 1 for s in shape[1:]))
        if batch_norm:
            yield f"norm{index}", nn.BatchNorm2d(channels)
        yield f"lif{index}", _neuron(recipe)
    if len(shape) > 1:
        yield "flatten", nn.Flatten()
    n_in = math.prod(shape)
    widths = (*n.hidden, len(data.class_labels))
    for width in widths:
        index += 1
        yield f"fc{index}", nn.Linear(n_in, width, bias=n.bias)
        if batch_norm:
            yield f"norm{index}", nn.BatchNorm1d(width)
        n_in = width
        yield f"lif{index}", _neuron(recipe, output=index == len(n.channels) + len(widths))


def _wake_output_(layers: OrderedDict[str, nn.Module], recipe: Recipe) -> None:
    """Add the bias that takes output neurons at rest to half their threshold.

    One that starts below its surrogate's window at every step never gets a gradient, and its class is lost: with
    the triangle that happened to four of six seeds on digits.
    """
    readout = next(m for m in reversed(layers.values()) if isinstance(m, nn.Linear))
    if recipe.network.readout == "spike_count" and recipe.network.bias:
        with torch.no_grad():
            readout.bias.add_(0.5 * recipe.neuron.threshold * (1 - recipe.neuron.beta))


def _neuron(recipe: Recipe, output: bool = False) -> NoisyLeaky:
    """The recipe's neuron; a readout by membrane integrates without threshold and noise."""
    p = recipe.neuron
    surrogate = Surrogate(p.surrogate, p.width)
    if output and recipe.network.readout == "membrane":
        return NoisyLeaky(p.beta, math.inf, 0.0, surrogate, p.reset)
    return NoisyLeaky(p.beta, p.threshold, p.noise_std, surrogate, p.reset)
