"""Grids and scales: how real weights, thresholds and biases become the chip's integers.

One number decides a layer: ``units_per_volt``, membrane units per real unit. A weight mantissa counts 64 units, so
all synapses into a population share ``units_per_volt = 64 * 2**weight_exp * mantissa_scale``. The scale is as large as
the registers allow, so that weights fill their bits and the threshold as much of its own as leaves the current room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nmtool.fixedpoint.ops import ACTIVATION_SHIFT, DECAY_UNITY, U_HALF

F64 = NDArray[np.float64]
SignMode = Literal["mixed", "excitatory", "inhibitory"]
UNIT = 1 << ACTIVATION_SHIFT
"""Membrane units per unit of weight mantissa."""


@dataclass(frozen=True)
class Grid:
    """The integers that a weight may take: multiples of ``step`` in ``[low, high]``.

    Source: lava-nc 0.10.0 ``weightutils``, executed: a matrix with both signs loses one bit to the sign.
    """

    sign_mode: SignMode
    bits: int
    low: int
    high: int

    @property
    def step(self) -> int:
        """Distance of neighbouring weights: 2**(8 - bits), doubled for mixed signs."""
        return int(1 << (8 - self.bits + (self.sign_mode == "mixed")))

    def scale_limit(self, w: F64) -> float:
        """Largest factor by which ``w`` still fits; inf for all-zero weights."""
        limits = [
            (self.high - self.high % self.step) / w.max() if w.size and w.max() > 0 else np.inf,
            (self.low + (-self.low) % self.step) / w.min() if w.size and w.min() < 0 else np.inf,
        ]
        return float(min(limits))

    def quantise(self, w: F64) -> tuple[NDArray[np.int32], int]:
        """Round half to even onto the grid and clip; ``(integers, how many were clipped)``."""
        q = np.rint(np.asarray(w, np.float64) / self.step) * self.step
        low, high = self.low + (-self.low) % self.step, self.high - self.high % self.step
        return np.clip(q, low, high).astype(np.int32), int(((q < low) | (q > high)).sum())


def grid_for(w: F64, bits: int, limits: dict[str, int]) -> Grid:
    """The grid that the chip derives from the signs of the weights.

    Args:
        w: real weights.
        bits: 1..8.
        limits: ``mixed_min``, ``mixed_max``, ``excitatory_max``, ``inhibitory_min`` of the target.
    """
    if not w.size or w.min() >= 0:
        return Grid("excitatory", bits, 0, limits["excitatory_max"])
    if w.max() <= 0:
        return Grid("inhibitory", bits, limits["inhibitory_min"], 0)
    return Grid("mixed", bits, limits["mixed_min"], limits["mixed_max"])


@dataclass(frozen=True)
class Budget:
    """What bounds the scale of one population, each as the largest ``units_per_volt`` that it allows.

    Attributes:
        weights: by the weight range, at weight exponent 0, one per incoming connection.
        threshold: by the threshold mantissa.
        bias: by bias mantissa and exponent.
        current: so that the synaptic current cannot wrap for any input.
        membrane: so that a readout without threshold cannot reach the largest one; inf for neurons that spike.
        exponents: smallest and largest weight exponent that these synapses can have.
    """

    weights: tuple[float, ...]
    threshold: float
    bias: float
    current: float
    exponents: tuple[int, int]
    membrane: float = np.inf

    @property
    def ceiling(self) -> float:
        """Largest scale that every budget allows, weights at their largest exponent."""
        by_weights = min(self.weights, default=np.inf) * 2.0 ** self.exponents[1]
        return float(min(by_weights, self.threshold, self.bias, self.current, self.membrane))

    @property
    def binding(self) -> str:
        """Name of the budget that decides."""
        named = {
            "weights": min(self.weights, default=np.inf) * 2.0 ** self.exponents[1],
            "threshold": self.threshold,
            "bias": self.bias,
            "current": self.current,
            "membrane": self.membrane,
        }
        return min(named, key=lambda k: named[k])


@dataclass(frozen=True)
class Scale:
    """The choice for one population."""

    units_per_volt: float
    weight_exps: tuple[int, ...]


def choose_scale(budget: Budget) -> Scale:
    """Fill the weights' bits first, then raise the exponent as far as the other budgets allow.

    A joint scale is needed because the sum of all synapses enters one register. Without synapses the ceiling itself.
    """
    ceiling = budget.ceiling
    if not budget.weights:
        return Scale(ceiling if np.isfinite(ceiling) else float(UNIT), ())
    filled = min(budget.weights)
    if not np.isfinite(filled):
        return Scale(ceiling if np.isfinite(ceiling) else float(UNIT), tuple(0 for _ in budget.weights))
    low, high = budget.exponents
    k = int(np.clip(np.floor(np.log2(ceiling / filled)), low, high))
    return with_scale(min(filled * 2.0**k, ceiling), budget)


def with_scale(units_per_volt: float, budget: Budget) -> Scale:
    """Exponents for a scale that something else decided (noise): the smallest at which every weight fits."""
    low, high = budget.exponents
    exps = tuple(
        int(np.clip(np.ceil(np.log2(units_per_volt / limit) - 1e-9), low, high)) if np.isfinite(limit) else 0
        for limit in budget.weights
    )
    return Scale(units_per_volt, exps)


def current_budget(row_sum: float, decay_syn_q12: int) -> float:
    """Largest scale at which ``|u|`` stays below 2**23 for any input.

    Args:
        row_sum: largest sum of absolute real weights into one neuron, times the largest payload.
        decay_syn_q12: effective fraction lost per step; the current's gain is at most 4096 over it.
    """
    if row_sum == 0:
        return np.inf
    gain = DECAY_UNITY / max(decay_syn_q12, 1)
    return float((U_HALF - 1) / (row_sum * gain))


def error_report(real: F64, integer: NDArray[Any], scale: float) -> dict[str, float]:
    """How far the integers are from the real weights: relative RMS, largest error in LSB-free real units, bits used."""
    back = np.asarray(integer, np.float64) / scale
    rms = float(np.sqrt(np.mean(real**2))) if real.size else 0.0
    largest = int(np.abs(integer).max(initial=0))
    return {
        "relative_rms_error": float(np.sqrt(np.mean((back - real) ** 2)) / rms) if rms else 0.0,
        "max_abs_error": float(np.abs(back - real).max(initial=0.0)),
        "bits_used": float(np.log2(largest + 1)) if largest else 0.0,
        "zero_share": float((integer == 0).mean()) if real.size else 0.0,
    }
