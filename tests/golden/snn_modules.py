"""snnTorch networks whose synaptic sums are exact in float32, and a loop that runs them as snnTorch documents."""

from collections.abc import Sequence

import numpy as np
import snntorch as snn
import torch
from numpy.typing import NDArray
from torch import nn

KINDS = {"Leaky": snn.Leaky, "Synaptic": snn.Synaptic, "RLeaky": snn.RLeaky, "RSynaptic": snn.RSynaptic}


def on_grid(module: nn.Module, bits: int = 8) -> nn.Module:
    """Weights as multiples of 2**-bits: then every sum over spikes is exact, whatever its order."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.round(p * 2**bits) / 2**bits)
    return module


def neuron(
    kind: str, shape: tuple[int, ...], reset: str, delay: bool, per_neuron: bool, generator: torch.Generator
) -> nn.Module:
    """One snnTorch neuron layer; with ``per_neuron`` decays and thresholds differ, else one value serves all."""

    def value(low: float, high: float, plain: float) -> float | torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator) if per_neuron else plain

    options = {
        "beta": value(0.45, 0.97, 0.9),
        "threshold": value(0.3, 1.2, 0.75),
        "reset_mechanism": reset,
        "reset_delay": delay,
    }
    if kind.endswith("Synaptic"):
        options["alpha"] = value(0.2, 0.8, 0.6)
    if kind.startswith("R"):
        options |= (
            {"linear_features": shape[0]}
            if len(shape) == 1
            else {"conv2d_channels": shape[0], "kernel_size": 3}
        )
    return KINDS[kind](**options)


def run_steps(layers: Sequence[nn.Module], x: torch.Tensor) -> NDArray[np.float32]:
    """Outputs of the last layer, ``[T, B, ...]``, for inputs of the same layout; states are passed by hand."""
    states: dict[int, tuple[torch.Tensor, ...]] = {}
    out = []
    with torch.no_grad():
        for h in x:
            for i, module in enumerate(layers):
                if not isinstance(module, snn.SpikingNeuron):
                    h = module(h)
                    continue
                if i not in states:
                    module.reset_mem()
                given = module(h, *states.get(i, ()))
                # The surrogate gives float32 spikes whatever the network's type.
                h, *rest = (a.to(x.dtype) for a in given)
                states[i] = (h, *rest) if isinstance(module, snn.RLeaky | snn.RSynaptic) else tuple(rest)
            out.append(h)
    return torch.stack(out).numpy()
