"""One integer step of the Loihi compartment (CUBA-LIF), to the bit. The oracle for every faster kernel.

Registers, in the chip's names: ``u`` is the synaptic current, ``v`` the membrane potential. A potential between
integration and threshold test is ``v_pre``; after the reset it is what ``State.v`` holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nmtool.fixedpoint.ops import (
    ACTIVATION_SHIFT,
    U_HALF,
    V_MAX,
    Int,
    clip_v,
    decay,
    shift_left_or_floor,
    wrap_int32,
    wrap_u_once,
)


class State(NamedTuple):
    """What one population carries from step to step, each int64 ``[B, N]``."""

    u: Int
    v: Int
    refractory: Int


class StepResult(NamedTuple):
    """New state and what happened in the step."""

    state: State
    spikes: Int
    v_pre: Int
    u_wrapped: Int
    v_clipped: Int


@dataclass(frozen=True)
class NeuronParams:
    """Registers of one population, each int64, scalar or ``[N]``.

    Attributes:
        decay_syn_q12: fraction of u lost per step in 1/4096, *effective* (register du plus one), 0..4096.
        decay_mem_q12: fraction of v lost per step in 1/4096 (register dv), 0..4096.
        v_th_man: threshold mantissa; the comparison is ``v > v_th_man * 64``, strict.
        bias_man, bias_exp: bias added to v at every step, ``bias_man * 2**bias_exp`` (floor for negative exponents).
        refractory_steps: 1 means no dead step; r holds v at zero for r - 1 steps after a spike.
    """

    decay_syn_q12: Int
    decay_mem_q12: Int
    v_th_man: Int
    bias_man: Int
    bias_exp: Int
    refractory_steps: int = 1

    @property
    def bias(self) -> Int:
        """The effective bias in membrane units, an int32 in Lava."""
        return wrap_int32(shift_left_or_floor(self.bias_man, self.bias_exp))


def zero_state(n_samples: int, n_neurons: int) -> State:
    """State of a network at rest, ``[B, N]``."""
    return State(*(np.zeros((n_samples, n_neurons), np.int64) for _ in range(3)))


def step(
    params: NeuronParams, state: State, activation: Int, noise_u: Int | int = 0, noise_v: Int | int = 0
) -> StepResult:
    """One step of u and v, Lava's order (lava-nc 0.10.0, ``AbstractPyLifModelFixed``; refractory as nengo-loihi).

    1. ``u <- wrap(rz(u (4096 - decay_syn), 12) + 64 a + noise_u)``
    2. ``v <- clip(rz(v (4096 - decay_mem), 12) + u + bias + noise_v)``, with the *new* u
    3. held at 0 while refractory; spike where ``v > 64 v_th`` (strict); v to 0 where it spiked; u never reset.

    Args:
        params: registers.
        state: ``[B, N]`` each.
        activation: weighted sum arriving this step, ``[B, N]`` or broadcastable, before the shift by 6.
        noise_u, noise_v: integers in membrane units (see :mod:`nmtool.fixedpoint.noise`).
    """
    x = wrap_int32(
        decay(state.u, params.decay_syn_q12)
        + wrap_int32(wrap_int32(activation) << ACTIVATION_SHIFT)
        + noise_u
    )
    u = wrap_u_once(x)
    raw = wrap_int32(decay(state.v, params.decay_mem_q12) + u + params.bias + noise_v)
    v_pre = clip_v(raw)
    held = state.refractory > 0
    v_pre = np.where(held, 0, v_pre)
    spikes = (v_pre > (params.v_th_man << ACTIVATION_SHIFT)).astype(np.int64)
    v = np.where(spikes == 1, 0, v_pre)
    refractory = np.maximum(np.where(spikes == 1, params.refractory_steps, state.refractory) - 1, 0)
    wrapped = (np.abs(x) > U_HALF).astype(np.int64)
    clipped = (np.abs(raw) > V_MAX).astype(np.int64)
    return StepResult(State(u, v, refractory), spikes, v_pre, wrapped, clipped)
