"""What is worth watching in a network while it trains: activity, closeness to the threshold, dead gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nmtool.train.nets import SpikingNet

PROBE_SAMPLES = 256


def watch(net: SpikingNet, x: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, Any]:
    """Diagnostics of ``net`` in evaluation mode on one batch, noise on.

    Args:
        net: left in training mode.
        x, y: ``[B, *shape]`` and labels ``[B]``.
        generator: source of noise.

    Returns:
        ``zero_grad_inputs``: share of samples whose loss has an exactly zero gradient at the input (robust.md G1);
        ``layers``: per layer ``firing_rate`` (spikes per neuron and step), ``in_window`` and ``no_gradient``
        (shares of potentials inside the surrogate's window, and where its density is exactly zero), ``mean_abs_z``.
    """
    net.eval()
    probe = x.detach().clone().requires_grad_()
    logits, traces = net(probe, generator)
    (grad,) = torch.autograd.grad(functional.cross_entropy(logits, y), probe)
    net.train()
    layers = {}
    for t in traces:
        if t.spiking:
            z = t.z.detach()
            layers[t.name] = {
                "firing_rate": float(t.spikes.detach().mean()),
                "in_window": float((z.abs() <= t.surrogate.window).float().mean()),
                "no_gradient": float((t.surrogate.density(z) == 0).float().mean()),
                "mean_abs_z": float(z.abs().mean()),
            }
    dead = (grad.flatten(1) == 0).all(dim=1)
    return {"zero_grad_inputs": float(dead.float().mean()), "layers": layers}


def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of the first tensor that holds a NaN or an infinity."""
    return next((name for name, value in named if not bool(value.isfinite().all())), None)


def layer_of(parameter: str) -> str:
    """``layers.fc1.weight`` to ``fc1``."""
    return parameter.removeprefix("layers.").rpartition(".")[0]


def broken_layer(net: nn.Module) -> str | None:
    """First layer with a parameter that is not finite."""
    name = first_not_finite(net.named_parameters())
    return None if name is None else layer_of(name)
