"""The float neuron on tensors: the difference equation of :mod:`nmtool.ir.population`, in its order of operations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nmtool.ir.semantics import F64, NeuronSemantics
from nmtool.twin.neuron import CellState, Course, Dynamics, Stimulus

NEVER = 1e30
"""Stands for an infinite threshold where it is multiplied by a gradient of zero."""


class FloatCell(nn.Module):
    """A neuron node's parameters as buffers ``[N]``, and its forward.

    What a late reset (``reset_delay``) takes from the next step is carried as ``hold``: 1 where it is due. In a loop,
    where steps are computed one by one, it passes no gradient to the spike that caused it.

    Args:
        neuron: the equation.
        dtype: of state and operations.
    """

    beta_mem: Tensor
    beta_syn: Tensor
    gain_mem: Tensor
    gain_syn: Tensor
    leak: Tensor
    v_th: Tensor
    v_reset: Tensor

    def __init__(self, neuron: NeuronSemantics, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.neuron, self.dtype = neuron, dtype
        self.filtered = neuron.beta_syn is not None
        for name in ("beta_mem", "gain_mem", "gain_syn", "leak", "v_th", "v_reset"):
            self._buffer(name, getattr(neuron, name))
        self._buffer("beta_syn", np.zeros_like(neuron.v_th) if neuron.beta_syn is None else neuron.beta_syn)

    def _buffer(self, name: str, value: F64) -> None:
        flat = torch.from_numpy(np.asarray(value, np.float64).reshape(-1).copy()).to(self.dtype)
        self.register_buffer(name, flat, persistent=False)

    def rest(self, n_samples: int, n_neurons: int) -> CellState:
        """State at rest."""
        return CellState(*(self.v_th.new_zeros(n_samples, n_neurons) for _ in range(3)))

    def course(self, stimulus: Stimulus, state: CellState) -> Course:
        """See :class:`nmtool.twin.neuron.Cell`; drive and noise are of the cell's type."""
        u, v_kept, due = state
        shape, spiking = stimulus.drive.shape, self.neuron.spiking
        spikes, potential = (
            torch.zeros(shape, dtype=self.dtype, device=u.device),
            torch.empty_like(stimulus.drive),
        )
        ignores = spiking and self.neuron.reset == "zero" and self.neuron.reset_delay
        held = torch.empty(shape, dtype=torch.bool, device=u.device) if ignores else None
        traces = [torch.empty_like(potential) for _ in range(2 * stimulus.record)]
        for t in range(shape[0]):
            u, v = self._integrate(u, v_kept, stimulus, t)
            if held is not None:
                held[t] = due > 0
                v = torch.where(held[t], self.v_reset, v)
            elif spiking and self.neuron.reset == "subtract":
                v = v - due * self._height()
            potential[t] = v
            if spiking:
                spikes[t] = v > self.v_th
                v, due = self._reset(v, spikes[t], due)
            if stimulus.record:
                traces[0][t], traces[1][t] = u, v
            u, v_kept = self.beta_syn * u, self.beta_mem * v
        return Course(spikes, potential, CellState(u, v_kept, due), held, *traces)

    def _integrate(self, u: Tensor, v: Tensor, stimulus: Stimulus, t: int) -> tuple[Tensor, Tensor]:
        """Current and potential of step ``t``, before what is due."""
        if self.filtered:
            u = u + self.gain_syn * stimulus.drive[t]
            v = v + self.gain_mem * u
        else:
            v = v + (self.gain_syn * self.gain_mem) * stimulus.drive[t]
        v = v + self.leak
        return u, v if stimulus.noise_v is None else v + stimulus.noise_v[t]

    def _reset(self, v: Tensor, spikes: Tensor, due: Tensor) -> tuple[Tensor, Tensor]:
        """What is left of the potential, and what is due at the next step."""
        n = self.neuron
        if n.reset == "none":
            return v, due
        if n.reset_delay:
            return v, spikes
        if n.reset == "zero":
            return torch.where(spikes > 0, self.v_reset, v), due
        left = v - (spikes - due) * self._height()
        return left, (left > self.v_th).to(self.dtype)

    def _height(self) -> Tensor:
        return torch.where(torch.isfinite(self.v_th), self.v_th, 0)

    def dynamics(self) -> Dynamics:
        """Coefficients for the backward; the surrogate's unit is the threshold, or 1 where that is not above 0."""
        n, finite = self.neuron, torch.isfinite(self.v_th)
        one = torch.ones_like(self.v_th)
        kind = n.reset if n.spiking and not (n.reset == "zero" and n.reset_delay) else "none"
        return Dynamics(
            keep_mem=self.beta_mem,
            keep_syn=self.beta_syn if self.filtered else None,
            gain_mem=self.gain_mem,
            gain_syn=self.gain_syn,
            threshold=torch.where(finite, self.v_th, NEVER),
            unit=torch.where(finite & (self.v_th > 0), self.v_th, one),
            v_reset=self.v_reset,
            reset=kind,
            reset_delay=n.reset_delay,
        )
