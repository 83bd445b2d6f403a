"""Noisy leaky integrate-and-fire neurons: snnTorch's equation, all time steps of a layer in one autograd node."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import snntorch
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nmtool.surrogate import BackwardRule, ResetGrad, Surrogate, rule, spike
from nmtool.train.robust.base import LayerTrace, Reset


class _Scan(torch.autograd.Function):
    """``V[t] = beta U[t-1] + I[t]``, ``S[t] = [V[t] > theta]`` for all t, without a graph node per step.

    Backward, with g the density of the rule in force and k the derivative of V[t+1] by V[t]:
    ``dV[t] = gV[t] + gS[t] g(V[t] - theta) + k[t] dV[t+1]`` and ``dI = dV``.
    """

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, beta: Tensor, theta: Tensor, reset: Reset, how: BackwardRule
    ) -> tuple[Tensor, Tensor]:
        v = torch.empty_like(current, memory_format=torch.contiguous_format)
        fired = torch.empty_like(v, dtype=torch.bool)
        steps, spiked = v.unbind(0), fired.unbind(0)
        for t, drive in enumerate(current.unbind(0)):
            if t == 0:
                steps[t].copy_(drive)
            else:
                torch.mul(steps[t - 1], beta, out=steps[t])
                if reset == "zero":
                    steps[t].masked_fill_(spiked[t - 1], 0.0)
                steps[t].add_(drive)
                if reset == "subtract":
                    steps[t].sub_(spiked[t - 1] * theta)
            torch.gt(steps[t], theta, out=spiked[t])
        s = fired.to(v.dtype)
        ctx.save_for_backward(v, s, beta, theta)
        ctx.reset, ctx.how = reset, how
        ctx.set_materialize_grads(False)
        return v, s

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_v: Tensor | None, grad_s: Tensor | None) -> tuple[Tensor | None, ...]:
        v, s, beta, theta = ctx.saved_tensors
        g = ctx.how.surrogate.density(v - theta)
        kept = _kept(ctx.reset, ctx.how.reset_grad, (v, s, beta, theta, g))
        grad = torch.zeros_like(v) if grad_s is None else g.mul_(grad_s)
        if grad_v is not None:
            grad.add_(grad_v)
        steps = grad.unbind(0)
        for t in range(len(steps) - 2, -1, -1):
            steps[t].addcmul_(kept[t], steps[t + 1])
        return grad, None, None, None, None


def _kept(reset: Reset, mode: ResetGrad, state: tuple[Tensor, ...]) -> Tensor:
    """Derivative of V[t+1] by V[t], ``[T, B, ...]``, under the rule's view of the reset."""
    v, s, beta, theta, g = state
    if mode == "ignore" or (mode == "detach" and reset == "subtract"):
        return beta.expand_as(v)
    if reset == "subtract":
        return beta - theta * g
    kept = 1 - s
    return kept.mul_(beta) if mode == "detach" else kept.sub_(v * g).mul_(beta)


class ScanResult(NamedTuple):
    """All steps of one layer, each ``[T, B, ...]``; ``noise`` is None where none was drawn."""

    v_pre: Tensor
    spikes: Tensor
    noise: Tensor | None


class NoisyLeaky(snntorch.Leaky):
    """snnTorch's ``Leaky`` with Gaussian noise on the potential and a scan over all steps.

    ``V[t] = beta U[t-1] + I[t] + noise_std xi[t]``, ``S[t] = [V[t] > theta]``, and ``U[t] = V[t] (1 - S[t])`` for
    reset "zero" (TGO, ICLR 2026, Eqs. 15, 2, 3); reset "subtract" lowers V[t+1] by theta, as snnTorch does. Called
    like any snnTorch neuron it does one step, without noise; :meth:`scan` does all steps.

    Args:
        beta: fraction of the potential kept per step, 0 to 1.
        threshold: potential above which (strictly) it fires; ``inf`` makes an integrator, which never
            fires and whose reset means nothing.
        noise_std: standard deviation of the noise per step, in units of the potential.
        surrogate: density for the backward pass.
        reset: see above.
    """

    def __init__(
        self,
        beta: float,
        threshold: float = 1.0,
        noise_std: float = 0.0,
        surrogate: Surrogate | None = None,
        reset: Reset = "zero",
    ) -> None:
        own = surrogate or Surrogate()
        spiking = math.isfinite(threshold)
        reset = reset if spiking else "zero"
        super().__init__(
            beta, threshold=threshold, spike_grad=partial(spike, surrogate=own), reset_mechanism=reset
        )
        # snnTorch keeps every neuron ever made in a class-wide list, and so alive.
        snntorch.SpikingNeuron.instances.remove(self)
        self.surrogate, self.noise_std, self.spiking = own, noise_std, spiking
        self.reset_kind: Reset = reset

    def scan(self, current: Tensor, generator: torch.Generator | None = None) -> ScanResult:
        """All steps from rest.

        Args:
            current: I, ``[T, B, ...]``; may be an expanded view.
            generator: source of the noise; None switches the noise off.
        """
        noise = None
        if generator is not None and self.noise_std > 0:
            noise = torch.randn(
                current.shape, generator=generator, device=current.device, dtype=current.dtype
            ).mul_(self.noise_std)
        drive = current if noise is None else current + noise
        v, s = _Scan.apply(
            drive, self.beta.clamp(0, 1), self.threshold, self.reset_kind, rule(self.surrogate)
        )
        return ScanResult(v, s, noise)

    def trace(
        self, name: str, current: Tensor, generator: torch.Generator | None, is_output: bool
    ) -> LayerTrace:
        """:meth:`scan` with everything that a robust-training method may ask for."""
        v, s, noise = self.scan(current, generator)
        return LayerTrace(
            name,
            current,
            v,
            s,
            self.threshold,
            self.beta,
            self.reset_kind,
            self.surrogate,
            noise,
            is_output,
            self.spiking,
        )
