"""Neurons in floating point: one step of the difference equation, in the order of operations of snnTorch 1.0."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nmtool.ir.kernels import Floats
from nmtool.ir.semantics import NeuronSemantics


class Population:
    """State and parameters of one neuron node.

    Where no term is dropped, one step is, with R the reset that is due,

        i = beta_syn i + gain_syn x;  V = beta_mem U + gain_mem i + leak + noise
        "subtract": V -= R v_th;  "zero" with reset_delay: V = v_reset where R;  S = V > v_th

    without reset_delay then "zero": U = v_reset where S;  "subtract": U = V - (S - R) v_th, and R = U > v_th: what
    is still above the threshold loses it again at the next step, and gets it back if no spike follows.

    Args:
        neuron: the equation.
        n_samples: B.
        dtype: of the state and all operations.
    """

    def __init__(self, neuron: NeuronSemantics, n_samples: int, dtype: DTypeLike) -> None:
        self.neuron, self._dtype = neuron, np.dtype(dtype)
        n = neuron
        self._beta, self._v_th, self._v_reset = (self._cast(a) for a in (n.beta_mem, n.v_th, n.v_reset))
        self._beta_syn = None if n.beta_syn is None else self._cast(n.beta_syn)
        self._gain_mem, self._gain_syn = (
            None if (g == 1).all() else self._cast(g) for g in (n.gain_mem, n.gain_syn)
        )
        self._leak = self._cast(n.leak) if np.any(n.leak) else None
        self._height = np.where(np.isfinite(self._v_th), self._v_th, 0)
        shape = (n_samples, *np.shape(n.v_th))
        self.v_post: Floats = np.zeros(shape, self._dtype)
        self.i_syn: Floats | None = None if n.beta_syn is None else np.zeros(shape, self._dtype)
        self.spikes: NDArray[np.bool_] = np.zeros(shape, bool)
        self._due: NDArray[np.bool_] | None = None

    def step(self, arriving: list[Floats], noise: NDArray[np.float64] | None = None) -> Floats:
        """One step.

        Args:
            arriving: ``[B, *shape]`` each, added to the state one after the other.
            noise: added to V, or None.

        Returns:
            spikes 0 or 1, or V of a neuron that does not spike, ``[B, *shape]``.
        """
        v = self._integrate(arriving)
        if self._leak is not None:
            v += self._leak
        if noise is not None:
            v += self._cast(noise)
        return self._fire(v) if self.neuron.spiking else self._keep(v)

    def _integrate(self, arriving: list[Floats]) -> Floats:
        if self.i_syn is None or self._beta_syn is None:
            v: Floats = self._beta * self.v_post
            gain = _both(self._gain_syn, self._gain_mem)
            for x in arriving:
                v += x if gain is None else gain * x
            return v
        self.i_syn = self._beta_syn * self.i_syn
        for x in arriving:
            self.i_syn += x if self._gain_syn is None else self._gain_syn * x
        v = self._beta * self.v_post
        v += self.i_syn if self._gain_mem is None else self._gain_mem * self.i_syn
        return v

    def _fire(self, v: Floats) -> Floats:
        reset, late = self.neuron.reset, self.neuron.reset_delay
        due = self._due
        if due is not None and reset == "subtract":
            v -= due * self._height
        elif due is not None:
            v = np.where(due, self._v_reset, v)
        self.spikes = v > self._v_th
        kept = v
        if reset == "zero" and not late:
            kept = np.where(self.spikes, self._v_reset, v)
        elif reset == "subtract" and not late:
            lost = self.spikes.astype(self._dtype) if due is None else self.spikes.astype(self._dtype) - due
            kept = v - lost * self._height
        if reset != "none" and late:
            self._due = self.spikes
        elif reset == "subtract":
            self._due = kept > self._v_th
        self.v_post = kept
        return self.spikes.astype(self._dtype)

    def _keep(self, v: Floats) -> Floats:
        self.v_post = v
        return v

    def _cast(self, a: NDArray[np.float64]) -> Floats:
        return np.asarray(a).astype(self._dtype)


def _both(a: Floats | None, b: Floats | None) -> Floats | None:
    """Product of two gains, None standing for 1."""
    return a if b is None else b if a is None else a * b
