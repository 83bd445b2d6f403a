"""The integer compartment on tensors: :func:`nmtool.fixedpoint.neuron.step` over many steps, to the bit.

Every register and product of the step stays below 2**53, so float64 holds it exactly; unlike int64 it is fast on CPU
and GPU, and rounds toward zero in one instruction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nmtool.compiler.program import Population
from nmtool.fixedpoint.ops import ACTIVATION_SHIFT, DECAY_UNITY, U_HALF, V_MAX
from nmtool.twin.neuron import CellState, Course, Dynamics, Stimulus

GAIN = 1 << ACTIVATION_SHIFT
INT32_HALF = 2.0**31


def wrap(x: Tensor, half: float) -> Tensor:
    """Two's-complement wrap of integers in a float tensor to ``[-half, half)``."""
    return x - torch.floor((x + half) / (2 * half)) * (2 * half)


@dataclass(frozen=True)
class Bounds:
    """Largest magnitudes that can reach a population; an overflow that they rule out is not computed.

    Attributes:
        drive: of the weighted sum.
        bias: of the bias, in membrane units.
        noise_u, noise_v: of one noise integer on the current and on the membrane.
    """

    drive: int
    bias: int
    noise_u: int = 0
    noise_v: int = 0


class IntegerCell(nn.Module):
    """A population's registers as buffers, and its forward.

    Args:
        population: the registers.
        bounds: what can reach it.
    """

    decay_syn_q12: Tensor
    decay_mem_q12: Tensor
    v_th_man: Tensor
    bias: Tensor

    def __init__(self, population: Population, bounds: Bounds) -> None:
        super().__init__()
        p = population.params
        for name in ("decay_syn_q12", "decay_mem_q12", "v_th_man", "bias"):
            self.register_buffer(name, torch.from_numpy(getattr(p, name)).clone(), persistent=False)
        self.refractory_steps = p.refractory_steps
        self.real_unit = 1.0 / population.scale
        push, slowest = bounds.drive * GAIN + bounds.noise_u, int(p.decay_syn_q12.min())
        self.remembers_current = slowest < DECAY_UNITY
        self.folds_current = slowest == 0 or push * DECAY_UNITY >= U_HALF * slowest
        self.wraps = push > 2 * U_HALF or bounds.bias + bounds.noise_v > INT32_HALF / 2

    def rest(self, n_samples: int, n_neurons: int) -> CellState:
        """State at rest, float64; ``hold`` counts the steps for which a neuron is still refractory."""
        return CellState(*(self.v_th_man.new_zeros(n_samples, n_neurons).double() for _ in range(3)))

    def course(self, stimulus: Stimulus, state: CellState) -> Course:
        """See :class:`nmtool.twin.neuron.Cell`. Traces hold the registers u and v; noise is added where it is given."""
        u_kept, v_kept, hold = state
        keep_u, keep_v = self._keep(self.decay_syn_q12), self._keep(self.decay_mem_q12)
        threshold = self.v_th_man.double() * GAIN
        bias = self.bias.double() if stimulus.bias is None else stimulus.bias
        shape = stimulus.drive.shape
        spikes, potential = (torch.empty(shape, device=bias.device) for _ in range(2))
        held = torch.empty(shape, dtype=torch.bool, device=bias.device) if self.refractory_steps > 1 else None
        traces = [
            torch.empty(shape, dtype=torch.int32, device=bias.device) for _ in range(2 * stimulus.record)
        ]
        for t in range(shape[0]):
            u = self._current(u_kept, stimulus, t)
            v = v_kept + u + bias
            if stimulus.noise_v is not None:
                v += stimulus.noise_v[t]
            v = wrap(v, INT32_HALF) if self.wraps else v
            potential[t] = v
            v = v.clamp_(-V_MAX, V_MAX)
            if held is not None:
                torch.gt(hold, 0, out=held[t])
                v = v.masked_fill_(held[t], 0)
                potential[t].masked_fill_(held[t], 0)
            fired = v > threshold
            spikes[t] = fired
            v = v.masked_fill_(fired, 0)
            if held is not None:
                hold = (torch.where(fired, self.refractory_steps, hold) - 1).clamp_(min=0)
            if stimulus.record:
                traces[0][t], traces[1][t] = u, v
            u_kept, v_kept = torch.trunc(u.mul_(keep_u)), torch.trunc(v.mul_(keep_v))
        return Course(spikes, potential, CellState(u_kept, v_kept, hold), held, *traces)

    def _current(self, u_kept: Tensor, stimulus: Stimulus, t: int) -> Tensor:
        """The current register of step ``t``."""
        drive = stimulus.drive[t].double()
        if self.wraps:
            drive = wrap(wrap(drive, INT32_HALF) * GAIN, INT32_HALF) / GAIN
        x = torch.add(u_kept, drive, alpha=GAIN)
        if stimulus.noise_u is not None:
            x += stimulus.noise_u[t]
        if self.wraps:
            x = wrap(x, INT32_HALF)
        if self.folds_current:
            x -= 2 * U_HALF * ((x > U_HALF).double() - (x <= -U_HALF).double())
        return x

    def _keep(self, lost_q12: Tensor) -> Tensor:
        return (DECAY_UNITY - lost_q12.double()) / DECAY_UNITY

    def dynamics(self) -> Dynamics:
        """Coefficients for the backward, float32; the surrogate's unit is the threshold, else 1 in real units."""
        threshold = self.v_th_man.float() * GAIN
        one = torch.ones((), device=threshold.device)
        return Dynamics(
            keep_mem=self._keep(self.decay_mem_q12).float(),
            keep_syn=self._keep(self.decay_syn_q12).float() if self.remembers_current else None,
            gain_mem=one,
            gain_syn=GAIN * one,
            threshold=threshold,
            unit=torch.where(threshold > 0, threshold, self.real_unit),
            v_reset=0 * one,
        )
