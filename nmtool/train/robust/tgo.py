"""TGO's membrane constraint: potentials near the threshold cost, more so the longer training lasts.

Source: "Robust Spiking Neural Networks Against Adversarial Attacks" (ICLR 2026), Eqs. 12-14. Its text names a
quadratic penalty, its formula is linear; the formula is what is built. The other half of the method, noise on the
potential (Eq. 15), is the neuron's: ``neuron.noise_std``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nmtool.config import Tgo
from nmtool.train.robust.base import LayerTrace, Penalty, Regulariser


def constraint(traces: Sequence[LayerTrace], options: Tgo) -> Penalty:
    """``sum_l reduce(max(0, delta - |V_l - theta_l|))`` over all spiking layers (Eq. 12 and the sum of Eq. 13).

    The threshold is a constant here: were it trained, it would run away instead of the potentials. At V = theta
    exactly the derivative is 0.

    Args:
        traces: of one forward pass; a readout that does not spike is left out.
        options: ``delta``, ``reduction`` and which potential is meant.

    Returns:
        The sum, and the term of each layer by name.
    """
    terms = {t.name: _layer(t, options) for t in traces if t.spiking}
    return torch.stack(list(terms.values())).sum(), {name: term.detach() for name, term in terms.items()}


def _layer(trace: LayerTrace, options: Tgo) -> Tensor:
    v = trace.v_pre
    if options.v == "clean" and trace.noise is not None:
        v = v - trace.noise
    total: Tensor = _Near.apply(v, trace.theta.detach(), options.delta)
    return total / v.numel() if options.reduction == "mean" else total


class _Near(torch.autograd.Function):
    """``sum max(0, delta - |v - theta|)``, in few passes: the potentials of all steps are a layer's largest tensor."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, theta: Tensor, delta: float) -> Tensor:
        ctx.save_for_backward(v, theta)
        ctx.delta = delta
        return (v - theta).abs_().neg_().add_(delta).clamp_min_(0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        v, theta = ctx.saved_tensors
        z = v - theta
        inside = z.sub_(functional.hardshrink(z, ctx.delta))
        return inside.sign_().mul_(-grad), None, None


def weight(epoch: int, n_epochs: int, lambda_max: float) -> float:
    """``lambda_max / 2 * (1 - cos(pi epoch / n_epochs))`` (Eq. 14); epochs count from 0."""
    return 0.5 * lambda_max * (1 - math.cos(math.pi * epoch / n_epochs))


def regulariser(options: Tgo) -> Regulariser:
    """The method as the training loop runs it."""
    return Regulariser(
        "tgo", partial(constraint, options=options), partial(weight, lambda_max=options.lambda_max)
    )
