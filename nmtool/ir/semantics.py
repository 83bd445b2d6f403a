"""What NIR cannot say, and the exact difference equation that a neuron node stands for.

Every consumer (float engine, compiler, twin) reads :class:`NeuronSemantics`; nobody else interprets time constants.
One step, all arrays broadcast to the neuron's shape:

    i[t] = beta_syn * i[t-1] + gain_syn * x[t]            (only with a synaptic current; else i[t] = x[t])
    V[t] = beta_mem * U[t-1] + gain_mem * i[t] + leak + noise
    S[t] = V[t] > v_th                                    (strict)
    U[t] = V[t] where S = 0; where S = 1: v_reset ("zero") or V - v_th ("subtract")

With ``reset_delay`` the reset of a spike at t is applied at t+1 (snnTorch's default for "subtract"): "subtract" takes
v_th from V[t+1], "zero" replaces V[t+1] by v_reset, with all that arrives at t+1. (snnTorch's ``Leaky`` with reset to
zero keeps what arrives, so it is a neuron *without* reset_delay, whatever its flag says.)

"subtract" without delay is snnTorch's: a U that is still above v_th loses v_th once more before the next comparison,
and gets it back if no spike follows (see :class:`nmtool.ir.population.Population`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Reset = Literal["zero", "subtract", "none"]
Encoder = Literal["spikes", "direct", "rate"]
Readout = Literal["spike_count", "membrane"]

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class NeuronSemantics:
    """The difference equation above; arrays are float64 of the neuron's shape.

    Attributes:
        beta_mem: fraction of the membrane kept per step.
        gain_mem: factor on the current that enters the membrane.
        beta_syn: fraction of the synaptic current kept, or None without one.
        gain_syn: factor on the input of the current.
        leak: constant added to V per step (v_leak's share).
        v_th: threshold; +inf if the node does not spike.
        v_reset: value after a "zero" reset.
        reset, reset_delay: see the module.
        noise_std: standard deviation of the Gaussian added to V per step; 0 without noise.
    """

    beta_mem: F64
    gain_mem: F64
    beta_syn: F64 | None
    gain_syn: F64
    leak: F64
    v_th: F64
    v_reset: F64
    reset: Reset = "zero"
    reset_delay: bool = False
    noise_std: float = 0.0

    @property
    def spiking(self) -> bool:
        """Whether the node emits spikes."""
        return bool(np.isfinite(self.v_th).any())


@dataclass(frozen=True)
class ModelSemantics:
    """Graph-level facts.

    Attributes:
        dt_s: seconds per step.
        encoder: how data become input: ``spikes`` as given, ``direct`` constant current, ``rate`` Bernoulli.
        n_steps: default T.
        readout: ``spike_count`` of the output node's source, or its ``membrane`` after the last step.
        bounds: range of an analog input.
        class_labels: may be empty.
        data: name of the data set that it was trained on, may be empty.
    """

    dt_s: float
    encoder: Encoder = "spikes"
    n_steps: int = 16
    readout: Readout = "spike_count"
    bounds: tuple[float, float] = (0.0, 1.0)
    class_labels: tuple[str, ...] = ()
    data: str = ""
