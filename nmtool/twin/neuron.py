"""One population over time as a single autograd step: any forward, and backpropagation through time by a surrogate.

The forward is a :class:`Cell`'s business (exact integers, or floats). The backward is the same for all cells:

    i[t]  = u[t-1] + gain_syn drive[t],              u[t] = keep_syn i[t]
    V[t]  = v[t-1] + gain_mem i[t] + bias,           v[t] = what decay and reset leave of V[t]
    S[t]  = V[t] > threshold,                        dS/dV := density((V - threshold) / unit) / unit

with roundings and saturations passed straight through. Writing it out over whole arrays costs a fifth of the
operations that recorded autograd would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from nmtool.surrogate import BackwardRule, ResetGrad


@dataclass(frozen=True)
class Dynamics:
    """Coefficients of the module's equations, tensors that broadcast to ``[B, N]``.

    Attributes:
        keep_mem, keep_syn: fraction kept per step; ``keep_syn`` None without a memory of the current.
        gain_mem, gain_syn: factors of the current on the membrane and of the drive on the current.
        threshold: in membrane units.
        unit: membrane units in one surrogate unit.
        v_reset: where a "zero" reset goes.
        reset: kind of reset.
        reset_delay: whether a "subtract" reset acts after the decay (at t + 1) instead of before it.
    """

    keep_mem: Tensor
    keep_syn: Tensor | None
    gain_mem: Tensor
    gain_syn: Tensor
    threshold: Tensor
    unit: Tensor
    v_reset: Tensor
    reset: Literal["zero", "subtract", "none"] = "zero"
    reset_delay: bool = False


class CellState(NamedTuple):
    """What is left of a step for the next one, each ``[B, N]``: u, v (decayed, reset) and the cell's own ``hold``."""

    u: Tensor
    v: Tensor
    hold: Tensor


class Stimulus(NamedTuple):
    """What reaches a population.

    Attributes:
        drive: weighted sum ``[T, B, N]``.
        bias: constant per step, ``[B, N]`` or ``[N]``, or None.
        noise_u, noise_v: ``[T, B, N]``, or None.
        record: whether traces of u and v are wanted.
    """

    drive: Tensor
    bias: Tensor | None = None
    noise_u: Tensor | None = None
    noise_v: Tensor | None = None
    record: bool = False


class Course(NamedTuple):
    """A population over ``T`` steps.

    Attributes:
        spikes: ``[T, B, N]``, 0 and 1.
        potential: V ``[T, B, N]`` as the surrogate sees it: before saturation.
        end: what the last step leaves.
        held: bool ``[T, B, N]``, true where a refractory neuron ignored its input; None if nowhere.
        u, v: traces ``[T, B, N]`` of the current and of the membrane after the reset, or None.
    """

    spikes: Tensor
    potential: Tensor
    end: CellState
    held: Tensor | None = None
    u: Tensor | None = None
    v: Tensor | None = None

    @classmethod
    def joined(cls, steps: Sequence[Course]) -> Course:
        """One course of consecutive ones; ``held`` is dropped."""

        def whole(key: str) -> Tensor | None:
            parts = [getattr(c, key) for c in steps]
            return None if parts[0] is None else torch.cat(parts)

        spikes, potential = (torch.cat([getattr(c, k) for c in steps]) for k in ("spikes", "potential"))
        return cls(spikes, potential, steps[-1].end, None, whole("u"), whole("v"))


class Cell(Protocol):
    """Forward of a population."""

    def course(self, stimulus: Stimulus, state: CellState) -> Course:
        """Run ``T`` steps; called without gradients."""
        ...

    def dynamics(self) -> Dynamics:
        """Coefficients for the backward."""
        ...


def run_cell(cell: Cell, rule: BackwardRule, stimulus: Stimulus, state: CellState) -> Course:
    """Run a population; spikes, potential, ``end.u`` and ``end.v`` are differentiable in drive, bias and state."""
    out = _Population.apply(cell, rule, stimulus, stimulus.drive, stimulus.bias, *state)
    spikes, potential, u_end, v_end, hold_end, u, v = out
    return Course(spikes, potential, CellState(u_end, v_end, hold_end), None, u, v)


class _Population(torch.autograd.Function):
    """The forward of a cell, the backward of the module's equations."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        rule: BackwardRule,
        stimulus: Stimulus,
        _drive: Tensor,
        bias: Tensor | None,
        *state: Tensor,
    ) -> tuple[Tensor | None, ...]:
        course = cell.course(stimulus, CellState(*state))
        ctx.set_materialize_grads(False)
        ctx.dynamics, ctx.rule = cell.dynamics(), rule
        ctx.bias_shape = None if bias is None else bias.shape
        ctx.save_for_backward(course.spikes, course.potential, course.held)
        ctx.mark_non_differentiable(course.end.hold, *(t for t in (course.u, course.v) if t is not None))
        return (course.spikes, course.potential, *course.end, course.u, course.v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        spikes, potential, held = ctx.saved_tensors
        drive, bias, u, v = through_time(ctx.dynamics, ctx.rule, (spikes, potential, held), grads[:4])
        if ctx.bias_shape is not None:
            bias = bias.sum_to_size(ctx.bias_shape)
        return (None, None, None, drive, bias if ctx.bias_shape is not None else None, u, v, None)


def through_time(
    dynamics: Dynamics,
    rule: BackwardRule,
    course: tuple[Tensor, Tensor, Tensor | None],
    grads: tuple[Tensor | None, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backpropagation through time of the module's equations.

    Args:
        dynamics, rule: coefficients and what stands for the derivative of a spike.
        course: spikes, potential ``[T, B, N]`` and where it was held, or None.
        grads: of the loss in spikes, potential ``[T, B, N]``, end u and end v ``[B, N]``; None for zero.

    Returns:
        Gradients in drive ``[T, B, N]``, bias, initial u and initial v ``[B, N]``.
    """
    spikes, potential, held = course
    g_spikes, g_potential, g_u, g_v = grads
    slope = rule.surrogate.density((potential - dynamics.threshold) / dynamics.unit) / dynamics.unit
    direct = torch.zeros_like(potential) if g_spikes is None else g_spikes * slope
    if g_potential is not None:
        direct += g_potential
    left = _left_of_potential(dynamics, rule.reset_grad, (spikes, potential, slope))
    if held is not None:
        direct.masked_fill_(held, 0)
        left = left.masked_fill(held, 0)
    zero = torch.zeros_like(potential[0])
    carry_u, carry_v = (zero if g is None else g.to(zero.dtype) for g in (g_u, g_v))
    bias, drive = zero.clone(), torch.empty_like(potential)
    for t in range(potential.shape[0] - 1, -1, -1):
        carry_v = torch.addcmul(direct[t], carry_v, left[t])
        bias += carry_v
        current = carry_v * dynamics.gain_mem
        if dynamics.keep_syn is not None:
            current += carry_u * dynamics.keep_syn
        carry_u = current
        torch.mul(current, dynamics.gain_syn, out=drive[t])
    return drive, bias, carry_u, carry_v


def _left_of_potential(
    dynamics: Dynamics, reset_grad: ResetGrad, course: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Derivative of v[t] (what decay and reset leave) in V[t], ``[T, B, N]``."""
    spikes, potential, slope = course
    keep = dynamics.keep_mem
    if dynamics.reset == "zero" and reset_grad != "ignore":
        left = keep * (1 - spikes)
        return left + keep * (dynamics.v_reset - potential) * slope if reset_grad == "through" else left
    left = (keep + torch.zeros_like(potential[0])).expand_as(potential)
    if dynamics.reset == "subtract" and reset_grad == "through":
        return left - (1 if dynamics.reset_delay else keep) * dynamics.threshold * slope
    return left
